//! How predictions and recommendations do on the proof set.

use std::fs;
use std::time::Instant;

use perfagent::optimization::{
    Advice, Effect, KnobChange, PredictedQuantity, QuantityPrediction, Recommendation,
};

use super::seen::{Seen, measured};
use super::truth::{EQUAL, Flags, Phase, Score, Truth, flags, score};
use super::{Chosen, Kind, Scenario, Treatment, grid};

/// Something that predicts and recommends from what an agent sees.
pub(crate) trait Predictor: Sync {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// What becomes of a change.
    fn predict(&self, scenario: &Scenario, seen: &Seen, changes: &[KnobChange]) -> Effect;
    /// What to change.
    fn recommend(&self, scenario: &Scenario, seen: &Seen) -> Recommendation;
}

/// A scenario and how it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) engine: &'static str,
    pub(crate) checked: Vec<Checked>,
    /// Predicted quantities of which only a bound was measured, before or after.
    pub(crate) bounded: usize,
    /// Changes of which nothing was predicted, and quantities of others: why.
    pub(crate) unpredicted: Vec<String>,
    pub(crate) recommended: Recommended,
}

/// A quantity that was predicted, and measured.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// The knobs that change.
    pub(crate) lever: String,
    /// Whether it is of the top recommendation, and not of a what-if.
    pub(crate) is_recommended: bool,
    pub(crate) predicted: QuantityPrediction,
    /// After over before.
    pub(crate) actual: f64,
}

/// What came of the top recommendation.
#[derive(Debug)]
pub(crate) struct Recommended {
    pub(crate) advice: Advice,
    pub(crate) title: String,
    /// Without any change.
    pub(crate) unchanged: Score,
    /// With it; the text says why the engine does not start so.
    pub(crate) changed: Result<Score, String>,
    /// With the first that changes settings alone. The grid has no replicas, so only this can be held against it.
    pub(crate) by_settings: Result<Score, String>,
    /// With the best that the grid found; none where there is none.
    pub(crate) best: Option<Score>,
    pub(crate) cpu_seconds: f64,
    /// What is recommended when it has been taken, if that is more of the same: the same settings, further.
    pub(crate) again: Option<String>,
}

impl Checked {
    pub(crate) fn is_within(&self) -> bool {
        (self.predicted.ratio_low..=self.predicted.ratio_high).contains(&self.actual)
    }

    pub(crate) fn width(&self) -> f64 {
        (self.predicted.ratio_high - self.predicted.ratio_low) / self.predicted.ratio
    }
}

impl Recommended {
    pub(crate) fn improves(&self) -> bool {
        self.gain() > EQUAL
    }

    /// By how much the violation falls.
    pub(crate) fn gain(&self) -> f64 {
        self.gain_of(&self.changed)
    }

    /// The same of settings alone.
    pub(crate) fn gain_by_settings(&self) -> f64 {
        self.gain_of(&self.by_settings)
    }

    fn gain_of(&self, changed: &Result<Score, String>) -> f64 {
        match changed {
            Ok(changed) => grid::gain(&self.unchanged, changed),
            Err(_) => 0.0,
        }
    }

    /// The same with the best of the grid, where that is anything.
    pub(crate) fn most(&self) -> Option<f64> {
        let most = grid::gain(&self.unchanged, &self.best?);
        (most > EQUAL).then_some(most)
    }
}

/// How a scenario goes with each of these.
pub(crate) fn outcomes(chosen: &Chosen, predictors: &[&dyn Predictor]) -> Vec<Outcome> {
    let truth = Truth::of(&chosen.scenario);
    let seen = truth.seen();
    predictors
        .iter()
        .map(|predictor| outcome(chosen, &truth, &seen, *predictor))
        .collect()
}

fn outcome(chosen: &Chosen, truth: &Truth<'_>, seen: &Seen, of: &dyn Predictor) -> Outcome {
    let scenario = &chosen.scenario;
    let mut outcome = Outcome {
        seed: scenario.seed,
        kind: scenario.kind,
        engine: super::truth::engine(scenario),
        checked: Vec::new(),
        bounded: 0,
        unpredicted: Vec::new(),
        recommended: Recommended {
            advice: Advice::CannotTell,
            title: String::new(),
            unchanged: score_of(truth, &Treatment::default()).expect("it runs as it is"),
            changed: Err("nothing is recommended".to_owned()),
            by_settings: Err("no setting is recommended".to_owned()),
            best: None,
            cpu_seconds: 0.0,
            again: None,
        },
    };
    for changes in &scenario.what_ifs {
        let treatment = Treatment {
            changes: changes.clone(),
            replicas: None,
        };
        let effect = of.predict(scenario, seen, changes);
        outcome.check(truth, seen, &treatment, &effect, false);
    }
    let start = CpuTime::now();
    let recommendation = of.recommend(scenario, seen);
    outcome.recommended.cpu_seconds = start.elapsed_seconds();
    outcome.recommended.advice = recommendation.advice;
    outcome.take(chosen, truth, seen, &recommendation);
    outcome.recommended.again = again(truth, &recommendation, of);
    outcome
}

/// What is recommended where the first recommendation of settings alone has been taken, if it takes one of them further.
fn again(truth: &Truth<'_>, taken: &Recommendation, of: &dyn Predictor) -> Option<String> {
    let first = taken.optimizations.first()?;
    if first.replicas.is_some() || first.changes.is_empty() {
        return None;
    }
    let seen = truth.seen_after(&flags(&first.changes).ok()?).ok()?;
    let mut scenario = truth.scenario.clone();
    // who declares the launch line declares the new one
    let declares = !scenario.declared.is_empty();
    for change in first.changes.iter().filter(|_| declares) {
        let flag = change.flag.trim_start_matches('-').to_owned();
        match &change.to {
            Some(to) => scenario.declared.insert(flag, to.clone()),
            None => scenario.declared.remove(&flag),
        };
    }
    let again = of.recommend(&scenario, &seen);
    let further = |one: &KnobChange| {
        let same = first.changes.iter().find(|first| first.name == one.name)?;
        let number = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
        let step = |change: &KnobChange| Some(number(&change.to)? - number(&change.from)?);
        Some(step(same)? * step(one)? > 0.0)
    };
    let more = again.optimizations.into_iter().next()?;
    let is_more = more.changes.iter().any(|one| further(one) == Some(true));
    is_more.then_some(format!("{}, then {}", first.title, more.title))
}

fn score_of(truth: &Truth<'_>, treatment: &Treatment) -> Result<Score, String> {
    let summary = truth.after(treatment)?;
    Ok(score(&summary, &truth.scenario.targets))
}

impl Outcome {
    /// What comes of the top recommendation.
    fn take(&mut self, chosen: &Chosen, truth: &Truth<'_>, seen: &Seen, of: &Recommendation) {
        let scenario = &chosen.scenario;
        let replicas_now = scenario.base.replicas.unwrap_or(1);
        if grid::curable(scenario) {
            let best = grid::written(&chosen.best);
            let summary = truth.with(Phase::After, &best, None);
            self.recommended.best = summary
                .ok()
                .map(|summary| score(&summary, &scenario.targets));
        }
        let of_settings = of.optimizations.iter().find(|one| one.replicas.is_none());
        if let Some(first) = of_settings {
            let treatment = Treatment {
                changes: first.changes.clone(),
                replicas: None,
            };
            self.recommended.by_settings = score_of(truth, &treatment);
        }
        let treatment = match of.optimizations.first() {
            Some(top) => {
                self.recommended.title.clone_from(&top.title);
                let treatment = Treatment {
                    changes: top.changes.clone(),
                    replicas: top.replicas.map(|(_, after)| after),
                };
                self.check(truth, seen, &treatment, &top.effect, true);
                treatment
            }
            // "add capacity" is all that is to be said where no setting is enough
            None if of.advice == Advice::AddCapacity && scenario.kind == Kind::Capacity => {
                Treatment {
                    changes: Vec::new(),
                    replicas: Some(replicas_now + 1),
                }
            }
            None => return,
        };
        self.recommended.changed = score_of(truth, &treatment);
    }

    /// Holds what was predicted against what is measured after.
    fn check(
        &mut self,
        truth: &Truth<'_>,
        seen: &Seen,
        treatment: &Treatment,
        effect: &Effect,
        is_recommended: bool,
    ) {
        let prediction = match effect {
            Effect::Predicted(prediction) => prediction,
            Effect::NotPredictable(reason) => {
                self.unpredicted.push(reason.clone());
                return;
            }
        };
        self.unpredicted
            .extend(prediction.unpredicted.iter().map(|one| one.reason.clone()));
        let changed: Result<Flags, String> = flags(&treatment.changes);
        let after = changed
            .and_then(|flags| truth.recording(Phase::After, &flags, treatment.replicas))
            .map(|recording| recording.measure());
        // what an engine does not start with has no effect to measure
        let Ok(after) = after else { return };
        let mut knobs: Vec<&str> = treatment
            .changes
            .iter()
            .map(|change| change.name.as_str())
            .collect();
        if treatment.replicas.is_some() {
            knobs.push("replicas");
        }
        for predicted in &prediction.quantities {
            let of = |measurement| measured(measurement, predicted.quantity);
            match (of(&seen.measurement), of(&after)) {
                (Some(before), Some(after)) if before > 0.0 => self.checked.push(Checked {
                    lever: knobs.join(" + "),
                    is_recommended,
                    predicted: *predicted,
                    actual: after / before,
                }),
                _ => self.bounded += 1,
            }
        }
    }
}

/// CPU time of this thread, where the system tells it; else wall time.
struct CpuTime {
    cpu_nanoseconds: Option<u64>,
    wall: Instant,
}

impl CpuTime {
    fn now() -> Self {
        Self {
            cpu_nanoseconds: Self::of_thread(),
            wall: Instant::now(),
        }
    }

    fn of_thread() -> Option<u64> {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn elapsed_seconds(&self) -> f64 {
        match (self.cpu_nanoseconds, Self::of_thread()) {
            (Some(before), Some(now)) => now.saturating_sub(before) as f64 / 1e9,
            _ => self.wall.elapsed().as_secs_f64(),
        }
    }
}

/// Figures of a set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) scenarios: usize,
    pub(crate) checked: usize,
    pub(crate) within: usize,
    pub(crate) width: f64,
    pub(crate) bounded: usize,
    pub(crate) unpredicted: usize,
    pub(crate) troubled: usize,
    pub(crate) improved: usize,
    /// Scenarios that settings can mend, and those that the first recommended setting does mend.
    pub(crate) curable: usize,
    pub(crate) cured: usize,
    pub(crate) gain_of_sums: f64,
    pub(crate) gain_median: f64,
    pub(crate) healthy: usize,
    pub(crate) left_alone: usize,
    pub(crate) cpu_median: f64,
    pub(crate) cpu_most: f64,
    /// Recommendations that, when they have been taken, are followed by more of the same.
    pub(crate) again: usize,
}

impl Figures {
    pub(crate) fn of(outcomes: &[&Outcome]) -> Self {
        let checked: Vec<&Checked> = outcomes.iter().flat_map(|one| &one.checked).collect();
        let healthy: Vec<_> = outcomes
            .iter()
            .filter(|one| one.kind == Kind::Healthy)
            .collect();
        let troubled: Vec<_> = outcomes
            .iter()
            .filter(|one| one.kind != Kind::Healthy)
            .collect();
        let gains: Vec<(f64, f64)> = troubled
            .iter()
            .filter_map(|one| Some((one.recommended.gain_by_settings(), one.recommended.most()?)))
            .collect();
        let (gained, most) = gains
            .iter()
            .fold((0.0, 0.0), |(a, b), (one, most)| (a + one, b + most));
        let cpu: Vec<f64> = outcomes
            .iter()
            .map(|one| one.recommended.cpu_seconds)
            .collect();
        Self {
            scenarios: outcomes.len(),
            checked: checked.len(),
            within: checked.iter().filter(|one| one.is_within()).count(),
            width: median(checked.iter().map(|one| one.width()).collect()),
            bounded: outcomes.iter().map(|one| one.bounded).sum(),
            unpredicted: outcomes.iter().map(|one| one.unpredicted.len()).sum(),
            troubled: troubled.len(),
            improved: troubled
                .iter()
                .filter(|one| one.recommended.improves())
                .count(),
            curable: gains.len(),
            cured: gains.iter().filter(|(gain, _)| *gain > EQUAL).count(),
            gain_of_sums: gained / most,
            gain_median: median(gains.iter().map(|(one, most)| one / most).collect()),
            healthy: healthy.len(),
            left_alone: healthy
                .iter()
                .filter(|one| one.recommended.advice == Advice::NothingToDo)
                .count(),
            again: outcomes
                .iter()
                .filter(|one| one.recommended.again.is_some())
                .count(),
            cpu_most: cpu.iter().copied().fold(0.0, f64::max),
            cpu_median: median(cpu),
        }
    }

    /// Share of actual ratios within their interval.
    pub(crate) fn coverage(&self) -> f64 {
        self.within as f64 / self.checked as f64
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The name of a quantity with its statistic.
pub(crate) fn quantity_name(quantity: PredictedQuantity) -> String {
    format!("{} {}", quantity.quantity(), quantity.statistic())
}
