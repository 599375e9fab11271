//! Observations → the verdict.

use super::means::{self, percent};
use super::observation::{Evidence, Observation};
use super::outcome::{QuantityVerdict, Verdict, VerdictWord as W};
use super::policy::VerdictPolicy;
use super::quantity::{JudgedQuantity as J, Kind};
use super::shares;
use super::sides::Sides;
use super::traffic;

/// One quantity over all observations, and over the newest.
pub(super) struct Parts {
    pub(super) all: Sides,
    /// None where that is all there is.
    pub(super) newest: Option<Sides>,
}

/// What holds for all quantities of a look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Which, from 1.
    number: u32,
    /// Chance of an error of each test for a pass, in one tail.
    pub(super) pass_level: f64,
    /// The same of the last look.
    pub(super) last_pass_level: f64,
    /// Chance of an error of each test for harm.
    pub(super) harm_level: f64,
}

/// What these observations, in order of time, say of a canary. Each of them is a look; harm that was proven at one stays.
pub fn verdict(observations: &[Observation], policy: &VerdictPolicy) -> Verdict {
    let planned = usize::try_from(policy.looks).unwrap_or(usize::MAX);
    let judged = observations.get(..planned).unwrap_or(observations);
    if judged.is_empty() {
        return Verdict {
            word: W::Inconclusive,
            quantities: Vec::new(),
            look: 0,
            looks: policy.looks,
            evidence: None,
            reason: "Nothing has been observed yet.".to_owned(),
        };
    }
    let mut last = None;
    for number in 1..=judged.len() {
        let known = judged.get(..number).unwrap_or(judged);
        let found = look(known, policy);
        let is_harm = found.word == W::Fail;
        last = Some(found);
        if is_harm {
            break;
        }
    }
    let mut last = last.unwrap_or_else(|| look(judged, policy));
    if judged.len() < observations.len() && last.word != W::Fail {
        last.reason += &format!(
            " Of {} observations the {} that were planned are judged.",
            observations.len(),
            policy.looks
        );
    }
    last
}

/// The verdict of the last of these looks.
fn look(observations: &[Observation], policy: &VerdictPolicy) -> Verdict {
    let number = u32::try_from(observations.len()).unwrap_or(u32::MAX);
    let evidence = observations
        .iter()
        .any(|one| one.evidence == Evidence::BeforeAfter);
    let mut said = Verdict {
        word: W::NotComparable,
        quantities: Vec::new(),
        look: number,
        looks: policy.looks,
        evidence: Some(match evidence {
            true => Evidence::BeforeAfter,
            false => Evidence::SameTime,
        }),
        reason: String::new(),
    };
    if let Some(why) = incomparable(observations) {
        said.reason = format!("Canary and control cannot be compared: {why}.");
        return said;
    }
    let enforced = |quantity: &J| {
        let told = observations
            .iter()
            .any(|one| one.pairs.contains_key(quantity));
        told && policy.enforces(*quantity)
    };
    let tests = J::ALL.iter().filter(|quantity| enforced(quantity)).count();
    let look = Look {
        number,
        pass_level: policy.pass_level(number),
        last_pass_level: policy.pass_level(policy.looks),
        // all, and the newest part
        harm_level: policy.harm_level(2 * tests),
    };
    said.quantities = J::ALL
        .into_iter()
        .filter_map(|quantity| judge(quantity, observations, policy, look))
        .collect();
    (said.word, said.reason) = together(&said.quantities, policy, look);
    if let Some(why) = traffic::explained(said.word, observations, policy) {
        said.reason = format!("Canary and control cannot be compared: {why}.");
        said.word = W::NotComparable;
    }
    if evidence {
        said.reason +=
            " It was compared with the time before the change, which is weaker evidence.";
    }
    said
}

/// Why nothing of the two can be held against each other.
fn incomparable(observations: &[Observation]) -> Option<String> {
    let first = observations.first()?;
    if let Some(other) = observations.iter().find(|one| one.engine != first.engine) {
        return Some(format!(
            "one window is of {} and one of {}",
            first.engine, other.engine
        ));
    }
    if observations
        .iter()
        .any(|one| one.simulated != one.control_simulated || one.simulated != first.simulated)
    {
        return Some("one side is simulated".to_owned());
    }
    if observations.iter().any(|one| one.bounds != first.bounds) {
        return Some("windows were counted with different bounds".to_owned());
    }
    observations
        .iter()
        .any(|one| one.evidence != first.evidence)
        .then(|| {
            "the control is of the same time in one window and of before in another".to_owned()
        })
}

/// What is said of one quantity; none where neither side has it.
fn judge(
    quantity: J,
    observations: &[Observation],
    policy: &VerdictPolicy,
    look: Look,
) -> Option<QuantityVerdict> {
    judged(quantity, observations, policy, look).map(QuantityVerdict::told)
}

fn judged(
    quantity: J,
    observations: &[Observation],
    policy: &VerdictPolicy,
    look: Look,
) -> Option<QuantityVerdict> {
    let known: Vec<&Observation> = observations.iter().collect();
    let one_sided = observations
        .iter()
        .any(|one| one.one_sided.contains(&quantity));
    let Some(all) = Sides::of(&known, quantity) else {
        let nothing = Sides::Paired(Vec::new());
        return one_sided.then(|| QuantityVerdict {
            word: W::NotComparable,
            reason: "only one side tells it".to_owned(),
            ..unjudged(quantity, &nothing, policy)
        });
    };
    let unusable = if one_sided {
        Some("only one side tells it in part of the time")
    } else if quantity == J::GenerationTokensPerSecond
        && !observations.iter().all(|one| one.saturated)
    {
        Some("requests were not waiting throughout, so this is what clients asked for")
    } else {
        None
    };
    if let Some(why) = unusable {
        return Some(QuantityVerdict {
            word: W::NotComparable,
            reason: why.to_owned(),
            ..unjudged(quantity, &all, policy)
        });
    }
    let parts = Parts {
        newest: newest(&known, quantity, policy),
        all,
    };
    let mut said = match quantity.kind() {
        Kind::Mean => means::judge(quantity, &parts, policy, look),
        Kind::Share => shares::judge(quantity, &parts, policy, look),
    };
    if said.word == W::Pass && look.number < policy.pass_from_look {
        said.word = W::Inconclusive;
        said.reason += &format!(
            "; nothing passes before look {}, since harm may begin late",
            policy.pass_from_look
        );
    }
    Some(said)
}

/// The newest observations that have enough intervals; none where those are all.
fn newest(observations: &[&Observation], quantity: J, policy: &VerdictPolicy) -> Option<Sides> {
    for count in 1..observations.len() {
        let from = observations.len() - count;
        let sides = Sides::of(observations.get(from..)?, quantity)?;
        if sides.intervals() >= policy.least_intervals {
            return Some(sides);
        }
    }
    None
}

/// A quantity of which nothing is said yet.
pub(super) fn unjudged(quantity: J, of: &Sides, policy: &VerdictPolicy) -> QuantityVerdict {
    let (canary, control) = (of.canary(), of.control());
    QuantityVerdict {
        quantity,
        enforced: policy.enforces(quantity),
        word: W::Inconclusive,
        canary: canary.value,
        control: control.value,
        effect_ratio: None,
        interval: None,
        difference: None,
        difference_interval: None,
        interval_confidence: 0.0,
        intervals: of.intervals(),
        canary_count: canary.count,
        control_count: control.count,
        smallest_detectable_ratio: None,
        reason: String::new(),
    }
}

/// Of all quantities together.
fn together(quantities: &[QuantityVerdict], policy: &VerdictPolicy, look: Look) -> (W, String) {
    let enforced: Vec<&QuantityVerdict> = quantities.iter().filter(|one| one.enforced).collect();
    let first = |word: W| enforced.iter().find(|one| one.word == word);
    let about = |one: &QuantityVerdict| {
        let mut words = one.quantity.in_words().chars();
        let begin = words.next().map(|char| char.to_uppercase().to_string());
        format!("{}{}", begin.unwrap_or_default(), words.as_str())
    };
    if let Some(one) = first(W::Fail) {
        let reason = format!("The canary does harm. {}: {}.", about(one), one.reason);
        return (W::Fail, reason);
    }
    let blocking = |one: &&&QuantityVerdict| {
        // what clients ask for says nothing of an engine, and nothing against it
        one.word == W::NotComparable && one.quantity != J::GenerationTokensPerSecond
    };
    if let Some(one) = enforced.iter().find(blocking) {
        let reason = format!(
            "Canary and control cannot be compared. {}: {}.",
            about(one),
            one.reason
        );
        return (W::NotComparable, reason);
    }
    let judged = enforced.iter().filter(|one| one.word != W::NotComparable);
    if judged.clone().all(|one| one.quantity.kind() == Kind::Share) {
        let reason =
            "No latency and no throughput is told by both sides: there is nothing to judge by.";
        return (W::NotComparable, reason.to_owned());
    }
    if let Some(one) = first(W::Inconclusive) {
        let others = judged.filter(|one| one.word == W::Inconclusive).count() - 1;
        let others = match others {
            0 => String::new(),
            1 => " One more quantity is open.".to_owned(),
            more => format!(" {more} more quantities are open."),
        };
        let reason = format!(
            "Not enough is known at look {} of {}. {}: {}.{others}",
            look.number,
            policy.looks,
            about(one),
            one.reason
        );
        return (W::Inconclusive, reason);
    }
    let least = judged.clone().map(|one| one.intervals).min().unwrap_or(0);
    let gains = judged.filter_map(|one| {
        let ratio = one
            .effect_ratio
            .filter(|_| one.quantity.kind() == Kind::Mean)?;
        Some(format!(
            "{} {}{}",
            one.quantity.in_words(),
            if ratio >= 1.0 { "+" } else { "" },
            percent(ratio - 1.0)
        ))
    });
    let gains: Vec<String> = gains.collect();
    let errors = quantities
        .iter()
        .any(|one| one.quantity == J::FailureShare && one.enforced);
    let unknown = match errors {
        true => "",
        false => " Failures are not told by the engine, and were not judged.",
    };
    let reason = format!(
        "Nothing became worse by more than is accepted, over {least} intervals or more: {}.{unknown}",
        gains.join(", ")
    );
    (W::Pass, reason)
}
