//! A peer: nothing changes, give or take a fifth, and the advice that a guide gives for the first finding.

use perfagent::analysis::{Cause, Thresholds, diagnose};
use perfagent::model::Policy;
use perfagent::optimization::{
    Advice, Effect, KnobChange, Optimization, PredictedQuantity, Prediction, PredictionBasis,
    Priority, QuantityPrediction, Recommendation,
};

use super::Scenario;
use super::kinds::{budget_flag, cap_flag, change, number, queue_flag, share_flag};
use super::seen::{Seen, measured};
use super::tally::Predictor;

/// What a guide says.
#[derive(Debug)]
pub(crate) struct Naive;

impl Predictor for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn predict(&self, _: &Scenario, seen: &Seen, _: &[KnobChange]) -> Effect {
        let quantities = PredictedQuantity::ALL.into_iter().filter_map(|quantity| {
            Some(QuantityPrediction {
                quantity,
                before: measured(&seen.measurement, quantity)?,
                ratio: 1.0,
                ratio_low: 0.8,
                ratio_high: 1.2,
            })
        });
        Effect::Predicted(Prediction {
            quantities: quantities.collect(),
            unpredicted: Vec::new(),
            basis: PredictionBasis {
                windows: 1,
                observed_requests: 0.0,
                simulated_requests: 0,
                simulations: 0,
                mismatch_ratio: 1.0,
                assumptions: Vec::new(),
                track_record: 0,
            },
        })
    }

    fn recommend(&self, scenario: &Scenario, seen: &Seen) -> Recommendation {
        let (thresholds, targets) = (Thresholds::default(), &scenario.targets);
        let diagnosis = diagnose(&seen.measurement, &thresholds, targets, None);
        let Some(finding) = diagnosis.findings.first() else {
            return recommendation(Advice::NothingToDo, Vec::new());
        };
        if finding.cause == Cause::Capacity {
            return recommendation(Advice::AddCapacity, Vec::new());
        }
        let Some(change) = guided(scenario, finding.cause) else {
            return recommendation(Advice::CannotTell, Vec::new());
        };
        let effect = self.predict(scenario, seen, std::slice::from_ref(&change));
        recommendation(Advice::Change, vec![optimization(change, effect)])
    }
}

/// Twice or half of what is too small or too large.
fn guided(scenario: &Scenario, cause: Cause) -> Option<KnobChange> {
    let engine = scenario.engine;
    let settings = &scenario.base.settings;
    let scaled = |flag: &'static str, default: u32, times: f64| {
        let now = f64::from(number(settings, flag).unwrap_or(default));
        Some(change(
            engine,
            settings,
            flag,
            Some(((now * times) as u32).to_string()),
        ))
    };
    match cause {
        Cause::SequenceCap => scaled(cap_flag(engine), 256, 2.0),
        Cause::BatchTooLarge | Cause::DecodeBound => scaled(cap_flag(engine), 256, 0.5),
        Cause::KvCapacity | Cause::KvNearCapacity => Some(change(
            engine,
            settings,
            share_flag(engine),
            Some("0.95".to_owned()),
        )),
        Cause::TokenBudget | Cause::PrefillBound => scaled(budget_flag(engine), 2_048, 2.0),
        Cause::PrefillInterference => scaled(budget_flag(engine), 2_048, 0.5),
        Cause::HeadOfLine if engine == Policy::Vllm => {
            let threshold = Some("512".to_owned());
            Some(change(
                engine,
                settings,
                "long-prefill-token-threshold",
                threshold,
            ))
        }
        Cause::AdmissionLimit => scaled(queue_flag(engine), 128, 2.0),
        Cause::SpeculationLoss => Some(change(engine, settings, "speculative-config", None)),
        _ => None,
    }
}

fn recommendation(advice: Advice, optimizations: Vec<Optimization>) -> Recommendation {
    Recommendation {
        advice,
        headline: String::new(),
        optimizations,
        left_out: Vec::new(),
        notes: Vec::new(),
    }
}

fn optimization(change: KnobChange, effect: Effect) -> Optimization {
    let title = format!(
        "{} {}",
        change.flag,
        change.to.as_deref().unwrap_or("taken away")
    );
    Optimization {
        id: title.clone(),
        lever: "guide".to_owned(),
        kind: None,
        priority: Priority::Medium,
        title,
        reason: String::new(),
        treats: Vec::new(),
        changes: vec![change],
        replicas: None,
        effect,
        trade_off: None,
        risks: Vec::new(),
        watch: Vec::new(),
        undo: String::new(),
        prerequisites: Vec::new(),
        changes_answers: false,
        needs_restart: true,
    }
}
