//! From proposals to a short ranked list: what the twin expects of each, and what is worth doing.

use crate::analysis::{Cause, Finding, Severity, Slo};
use crate::model::StepWindow;

use super::change::KnobChange;
use super::custom::{CustomOptimizer, custom_proposals};
use super::ledger::TrackRecord;
use super::lever;
use super::prediction::{Effect, PredictedQuantity as P, Prediction};
use super::proposal::{Expectation, Proposal};
use super::recommendation::{Advice, LeftOut, Optimization, Priority, Recommendation};
use super::score::Service;
use super::search::{Chosen, Search};
use super::situation::Situation;
use super::trade_off::shown;
use super::twin::Twin;

/// Optimizations that are shown at most.
const MOST: usize = 6;

/// What to do about an instance, by what holds it back, the settings in force and the model fitted to it. `windows` are
/// of the same instance at other load.
pub fn recommend(
    situation: &Situation<'_>,
    windows: &[StepWindow],
    custom: &[CustomOptimizer],
    record: &TrackRecord,
) -> Recommendation {
    let (families, mut left_out) = lever::families(situation);
    let (own, not_told) = custom_proposals(custom, situation);
    left_out.extend(not_told);
    let mut notes = Vec::new();
    let alternatives = families.iter().flat_map(|family| &family.alternatives);
    let proposals = alternatives.chain(own.iter().map(|own| &own.proposal));
    let twin = fitted(situation, windows, proposals, &mut notes);
    let mut search = Search::new(situation, twin.as_ref());
    let mut chosen: Vec<Chosen> = Vec::new();
    for family in families {
        match search.best_of(family) {
            Ok(one) => chosen.push(one),
            Err(reasons) => left_out.extend(reasons),
        }
    }
    for one in own {
        match search.weighed(one) {
            Ok(one) => chosen.push(one),
            Err(reason) => left_out.push(reason),
        }
    }
    chosen.extend(search.combined(&chosen));
    rank(&mut chosen, situation.findings);
    search.put_beside(&mut chosen);
    // where no setting is enough, none does nearly as much
    if root(situation.findings) != Some(Cause::Capacity) {
        left_out.extend(needless(&mut chosen));
    }
    for one in chosen.drain(MOST.min(chosen.len())..) {
        left_out.push(LeftOut {
            lever: one.lever,
            title: one.proposal.title,
            reason: "others are expected to do more".to_owned(),
        });
    }
    let optimizations: Vec<Optimization> = chosen
        .into_iter()
        .map(|one| optimization(one, situation, twin.as_ref(), record))
        .collect();
    let (advice, mut headline) = advice(situation.findings, &optimizations);
    if let (Advice::CannotTell, Some(reason)) = (advice, lever::no_tuning(situation)) {
        headline = format!("Nothing is recommended of what was seen: {reason}.");
    }
    Recommendation {
        advice,
        headline,
        optimizations,
        left_out,
        notes,
    }
}

/// The twin, where there is something to predict; where there is none the notes say why.
fn fitted<'p>(
    situation: &Situation<'_>,
    windows: &[StepWindow],
    mut proposals: impl Iterator<Item = &'p Proposal>,
    notes: &mut Vec<String>,
) -> Option<Twin> {
    let modelled = |one: &Proposal| one.expectation.model_changes().is_some();
    if !proposals.any(modelled) {
        return None;
    }
    let Some(measurement) = situation.measurement else {
        notes.push(
            "There is no measurement in the request: changes are ranked by what was found, and their effect is not predicted."
                .to_owned(),
        );
        return None;
    };
    match Twin::fit(measurement, situation.in_force, windows) {
        Ok(twin) => Some(twin),
        Err(reason) => {
            notes.push(format!("Effects are not predicted: {reason}."));
            None
        }
    }
}

/// The best first: what keeps answers as they are before what may change them, what is predicted before what is not,
/// settings before hardware unless that does far more or no setting is enough, and more gain before less. Of what is not
/// predicted comes first what treats the root cause.
fn rank(chosen: &mut [Chosen], findings: &[Finding]) {
    let lacks_hardware = root(findings) == Some(Cause::Capacity) && !mended(chosen);
    let settings = chosen
        .iter()
        .filter(|one| one.proposal.replicas.is_none())
        .filter_map(|one| one.gain)
        .fold(0.0, f64::max);
    let place = |one: &Chosen| {
        let bought = one.proposal.replicas.is_some() || lever::takes_hardware(&one.lever);
        // more hardware is worth its price where settings leave most of the trouble
        let late = match lacks_hardware {
            true => !bought,
            false => bought && one.gain.is_none_or(|gain| gain < BOUGHT_GAIN * settings),
        };
        let treats = |finding: &Finding| one.proposal.treats.contains(&finding.cause);
        let treated = findings.iter().position(treats).unwrap_or(findings.len());
        // what is computed for nothing helps nobody, whatever else is wrong
        let waste = one.proposal.treats.contains(&Cause::SpeculationLoss);
        match (one.proposal.changes_answers, one.gain) {
            (true, gain) => (3, 0, u8::from(late), gain.unwrap_or(0.0)),
            (false, Some(gain)) => (u8::from(late), 0, 0, gain),
            (false, None) => (u8::from(!waste), 1 + treated, u8::from(late), 0.0),
        }
    };
    chosen.sort_by(|one, other| {
        let (one, other) = (place(one), place(other));
        let first = (one.0, one.1, one.2).cmp(&(other.0, other.1, other.2));
        first.then(other.3.total_cmp(&one.3))
    });
}

/// Whether a setting is found wrong that takes nearly all of what more hardware would mend.
fn mended(chosen: &[Chosen]) -> bool {
    let bought = chosen.iter().filter(|one| one.proposal.replicas.is_some());
    let most = bought.filter_map(|one| one.gain).fold(0.0, f64::max);
    chosen.iter().any(|one| {
        let wrong = |cause: &Cause| ![Cause::Capacity, Cause::Aborts].contains(cause);
        one.proposal.replicas.is_none()
            && one.proposal.treats.iter().any(wrong)
            && one
                .gain
                .is_some_and(|gain| most > 0.0 && gain >= SETTINGS_SUFFICE * most)
    })
}

/// The root cause.
fn root(findings: &[Finding]) -> Option<Cause> {
    findings.first().map(|one| one.cause)
}

/// Replicas that a setting does nearly as much as: they are taken out.
fn needless(chosen: &mut Vec<Chosen>) -> Vec<LeftOut> {
    let most = |bought: bool| {
        let those = chosen
            .iter()
            .filter(|one| one.proposal.replicas.is_some() == bought);
        // what is only assumed to help is no reason to leave out what does
        those
            .filter(|one| !matches!(one.proposal.expectation, Expectation::Assumed { .. }))
            .filter_map(|one| one.gain)
            .fold(0.0, f64::max)
    };
    let (settings, bought) = (most(false), most(true));
    if settings <= 0.0 || settings < SETTINGS_SUFFICE * bought {
        return Vec::new();
    }
    let (kept, needless) = std::mem::take(chosen)
        .into_iter()
        .partition(|one| one.proposal.replicas.is_none());
    *chosen = kept;
    let left_out = |one: Chosen| LeftOut {
        lever: one.lever,
        title: one.proposal.title,
        reason: "a setting does nearly as much, and costs no hardware".to_owned(),
    };
    needless.into_iter().map(left_out).collect()
}

/// Settings that bring this share of what replicas would are enough.
const SETTINGS_SUFFICE: f64 = 0.8;

/// Replicas come before settings if they do so many times as much.
const BOUGHT_GAIN: f64 = 3.0;

fn optimization(
    one: Chosen,
    situation: &Situation<'_>,
    twin: Option<&Twin>,
    record: &TrackRecord,
) -> Optimization {
    let Chosen {
        lever,
        proposal,
        kind,
        priority: own,
        gain,
    } = one;
    let effect = match (&proposal.expectation, twin) {
        (Expectation::NotPredictable(reason), _)
        | (
            Expectation::Assumed {
                unknown: reason, ..
            },
            _,
        ) => Effect::NotPredictable(reason.clone()),
        (Expectation::Modelled(changes), Some(twin)) => twin.effect(changes, record.factor(&lever)),
        (Expectation::Modelled(_), None) => Effect::NotPredictable(match situation.measurement {
            None => {
                "there is no measurement: a prediction rests on what was measured of this instance"
                    .to_owned()
            }
            Some(_) => "no model could be fitted to what was measured".to_owned(),
        }),
    };
    let trade_off = effect.prediction().and_then(Prediction::trade_off);
    let mut prerequisites = proposal.prerequisites.clone();
    prerequisites.extend(not_held_to(situation, effect.prediction()));
    let mut risks = proposal.risks.clone();
    if let Some(prediction) = effect.prediction() {
        risks.extend(at_risk(prediction, situation));
    }
    let priority = own.unwrap_or_else(|| priority(&proposal, situation.findings, gain));
    let id = format!(
        "{lever}-{:08x}",
        digest(&proposal.changes, proposal.replicas)
    );
    Optimization {
        id,
        lever,
        kind,
        priority,
        title: proposal.title,
        reason: proposal.reason,
        treats: proposal.treats,
        changes: proposal.changes,
        replicas: proposal.replicas,
        effect,
        trade_off,
        risks,
        watch: proposal.watch,
        undo: proposal.undo,
        prerequisites,
        changes_answers: proposal.changes_answers,
        needs_restart: proposal.needs_restart,
    }
}

/// The SLOs that must hold and that a change could not be held to: all where nothing is predicted of it.
fn not_held_to(situation: &Situation<'_>, prediction: Option<&Prediction>) -> Option<String> {
    let slos = situation.limits.must_hold.iter();
    let is_held = |slo: &Slo| {
        Service::default().is_broken(slo).is_some() && prediction.is_some_and(|one| !one.lacks(slo))
    };
    let names: Vec<&str> = slos
        .filter(|slo| !is_held(slo))
        .map(|slo| slo.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "Whether {} holds after it is not predicted: check it on one replica first.",
            names.join(" and ")
        )
    })
}

/// The SLOs that must hold and that a change may break, by its interval. What is broken as it is, is not at risk.
fn at_risk(prediction: &Prediction, situation: &Situation<'_>) -> Vec<String> {
    let slos = situation.limits.must_hold.iter();
    slos.filter(|slo| prediction.is_held_to(slo))
        .filter_map(|slo| prediction.promise(slo))
        .collect()
}

/// By the worst of what it treats, one less where little is expected of it, or nothing can be said.
fn priority(proposal: &Proposal, findings: &[Finding], gain: Option<f64>) -> Priority {
    let treated = findings
        .iter()
        .filter(|finding| proposal.treats.contains(&finding.cause));
    let severity = treated.map(|finding| finding.severity).max();
    let sure = gain.is_some_and(|gain| gain >= LARGE_GAIN) && !proposal.changes_answers;
    match (severity.unwrap_or(Severity::Low), sure) {
        (Severity::Critical, true) => Priority::Critical,
        (Severity::Critical, false) | (Severity::High, true) => Priority::High,
        (Severity::High, false) | (Severity::Medium, true) => Priority::Medium,
        _ => Priority::Low,
    }
}

/// A target that is missed by a third less.
const LARGE_GAIN: f64 = 0.3;

/// The same for the same changes (FNV-1a, 32 bits of it).
fn digest(changes: &[KnobChange], replicas: Option<(u32, u32)>) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for change in changes {
        take(&change.name);
        take(change.to.as_deref().unwrap_or("\u{1}"));
    }
    if let Some((_, after)) = replicas {
        take(&after.to_string());
    }
    (hash >> 16) as u32
}

/// What to do, in short and in one line.
fn advice(findings: &[Finding], optimizations: &[Optimization]) -> (Advice, String) {
    let (without, text) = lever::verdict_without_changes(findings);
    let Some(first) = optimizations.first() else {
        return (without, text);
    };
    // what no setting mends is not mended by one
    if without == Advice::Repair && !treats_root(first, findings) {
        return (without, text);
    }
    let advice = match first.changes.is_empty() {
        true => Advice::AddCapacity,
        false => Advice::Change,
    };
    let mut headline = first.title.clone();
    if let Some(prediction) = first.effect.prediction() {
        let told = headline_numbers(prediction);
        if !told.is_empty() {
            headline = format!("{headline}: {}", told.join(", "));
        }
    }
    (advice, headline)
}

fn treats_root(optimization: &Optimization, findings: &[Finding]) -> bool {
    findings
        .first()
        .is_some_and(|root| optimization.treats.contains(&root.cause))
}

/// The two numbers that say most: throughput, and the latency that moves most.
fn headline_numbers(prediction: &Prediction) -> Vec<String> {
    let moved = |quantity: &P| {
        let found = prediction.of(*quantity)?;
        Some((found.ratio.ln().abs(), found))
    };
    let latencies = [
        P::TimeToFirstTokenMean,
        P::TimeToFirstTokenP99,
        P::InterTokenLatencyMean,
        P::InterTokenLatencyP99,
    ];
    let most = latencies
        .iter()
        .filter_map(moved)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let tokens = moved(&P::GenerationTokensPerSecond);
    [most, tokens]
        .into_iter()
        .flatten()
        .map(|(_, found)| {
            let [_, low, high] = found.after();
            format!(
                "{} {} → {} to {}",
                found.quantity.short(),
                shown(found.quantity, found.before),
                shown(found.quantity, low),
                shown(found.quantity, high)
            )
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::optimization::example::prediction;
    use crate::optimization::lever::example::Case;

    #[test]
    fn an_slo_that_a_change_cannot_be_held_to_is_said() {
        let case = Case::new("vllm", "0.33.0", &[Cause::SequenceCap])
            .set("max_num_seqs", "4")
            .limited(|limits| limits.must_hold = Slo::defaults());
        let found = recommend(&case.situation(), &[], &[], &TrackRecord::default());
        let first = found.optimizations.first().unwrap();
        assert!(matches!(first.effect, Effect::NotPredictable(_)));
        let said = first.prerequisites.last().unwrap();
        assert!(said.contains("ttft_p50 and ttft_p99"), "{said}");
        // of what the model knows nothing is left to say
        let case = case.limited(|limits| limits.must_hold.clear());
        let nothing = prediction(&[]);
        assert_eq!(not_held_to(&case.situation(), Some(&nothing)), None);
    }

    #[test]
    fn where_nothing_is_predicted_the_root_cause_is_treated_first() {
        let titles = |causes: &[Cause]| {
            let case = Case::new("vllm", "0.33.0", causes)
                .set("max_num_seqs", "64")
                .set("num_speculative_tokens", "4")
                .set("max_num_batched_tokens", "8192")
                .set("gpu_memory_utilization", "0.9");
            let found = recommend(&case.situation(), &[], &[], &TrackRecord::default());
            let titles = found.optimizations.into_iter().map(|one| one.title);
            titles.collect::<Vec<_>>()
        };
        let memory = titles(&[Cause::KvCapacity, Cause::PrefillInterference]);
        assert!(!memory[0].contains("batched-tokens"), "{memory:?}");
        let budget = titles(&[Cause::PrefillInterference, Cause::KvCapacity]);
        assert!(budget[0].contains("batched-tokens"), "{budget:?}");
        // what is computed for nothing goes before all
        let waste = titles(&[Cause::KvCapacity, Cause::SpeculationLoss]);
        assert_eq!(waste[0], "Guess no tokens ahead");
    }

    #[test]
    fn where_no_setting_is_enough_hardware_comes_first() {
        let first = |causes: &[Cause]| {
            let case = Case::new("vllm", "0.33.0", causes)
                .set("max_num_seqs", "64")
                .set("max_num_batched_tokens", "512")
                .measured()
                .value("requests_finished_increase", 500.0)
                .value("requests_finished_per_second", 9.0);
            let found = recommend(&case.situation(), &[], &[], &TrackRecord::default());
            found.optimizations[0].replicas.is_some()
        };
        assert!(first(&[Cause::Capacity]));
        assert!(!first(&[Cause::TokenBudget, Cause::Capacity]));
    }

    #[test]
    fn the_same_changes_have_the_same_id() {
        let change = |to: &str| KnobChange {
            name: "max_num_seqs".to_owned(),
            flag: "--max-num-seqs".to_owned(),
            from: Some("4".to_owned()),
            to: Some(to.to_owned()),
        };
        assert_eq!(digest(&[change("8")], None), digest(&[change("8")], None));
        assert_ne!(digest(&[change("8")], None), digest(&[change("9")], None));
        assert_ne!(digest(&[], Some((1, 2))), digest(&[], Some((1, 3))));
    }
}
