//! What was found, what is to be changed, and what came of it, as events hold it.

use serde::{Deserialize, Serialize};

use super::canary::Canary;
use crate::optimization::{Effect, KnobChange, Optimization, PredictedQuantity, shown};

/// What was found out about the instance.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Analysis {
    /// The diagnosis in one line.
    pub headline: String,
    /// What holds the instance back, root cause first.
    pub findings: Vec<FindingSummary>,
    /// Beginning of the window, unix time in seconds.
    pub start_unix_seconds: f64,
    /// Its end.
    pub end_unix_seconds: f64,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
    /// What was measured of what can be predicted, before any change.
    pub before: Vec<MeasuredValue>,
}

/// A quantity as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct MeasuredValue {
    /// Which.
    pub quantity: PredictedQuantity,
    /// In the quantity's unit.
    pub value: f64,
}

/// One thing that holds the instance back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct FindingSummary {
    /// The cause's word.
    pub cause: String,
    /// The severity's word.
    pub severity: String,
    /// In a sentence.
    pub description: String,
}

/// What was measured just before the first write: approvals take days.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Baseline {
    /// Beginning of the window, unix time in seconds.
    pub start_unix_seconds: f64,
    /// Its end.
    pub end_unix_seconds: f64,
    /// What of it can be predicted.
    pub values: Vec<MeasuredValue>,
}

/// How a change goes out.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    /// To one target after the other, each ready before the next is touched.
    InPlace,
    /// To a part of the targets first, which is judged against the rest.
    Canary(Box<Canary>),
}

impl Strategy {
    /// How it goes out part by part, where it does.
    pub fn canary(&self) -> Option<&Canary> {
        match self {
            Self::InPlace => None,
            Self::Canary(canary) => Some(canary),
        }
    }
}

/// A plan before it has an etag: what its runner worked out.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct PlanDraft {
    /// What is planned, in one line.
    pub headline: String,
    /// All that is recommended, the best first. Empty where the caller said what to change.
    pub optimizations: Vec<Optimization>,
    /// The one of them that is carried out.
    pub chosen: Option<String>,
    /// Settings that change.
    pub changes: Vec<KnobChange>,
    /// What that is predicted to do.
    pub effect: Effect,
    /// Id of the prediction that is kept, where one is.
    pub prediction_id: Option<String>,
    /// Where the settings change, in the order in which they do. Empty without an actuator.
    pub targets: Vec<PlanTarget>,
    /// Snapshot of the settings before. None without an actuator.
    pub snapshot_id: Option<String>,
    /// Where the store keeps what the settings become. None without an actuator.
    pub planned_snapshot_id: Option<String>,
    /// How the change goes out.
    pub strategy: Strategy,
    /// Answers may become others.
    pub changes_answers: bool,
    /// Engines are restarted.
    pub needs_restart: bool,
    /// What a reader must know, a sentence each.
    pub notes: Vec<String>,
}

/// Settings of one target before and after. Their content is in the store's snapshots, never here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct PlanTarget {
    /// Its name, as the actuator calls it.
    pub name: String,
    /// Revision of its settings when the plan was made, as the actuator gives it.
    pub revision: String,
    /// SHA-256 of its settings before, in hexadecimal.
    pub digest_before: String,
    /// SHA-256 of its settings after, in hexadecimal.
    pub digest_after: String,
    /// The engine has to be restarted.
    pub needs_restart: bool,
    /// Launch arguments after; `***` stands for values that set nothing the agent knows, since they may be secret.
    pub launch_args: Vec<String>,
}

/// A plan that can be approved.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Plan {
    /// Digest of changes, targets, strategy and revisions: what an approval is bound to.
    pub etag: String,
    /// What is planned.
    #[serde(flatten)]
    pub draft: PlanDraft,
}

/// What came of a change: measured before and after, which is weaker evidence than a comparison at the same time.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct MeasuredEffects {
    /// Beginning of the window before the change, unix time in seconds.
    pub before_start_unix_seconds: f64,
    /// Its end.
    pub before_end_unix_seconds: f64,
    /// Beginning of the window after the change.
    pub after_start_unix_seconds: f64,
    /// Its end.
    pub after_end_unix_seconds: f64,
    /// What was measured in both.
    pub quantities: Vec<MeasuredEffect>,
    /// The diagnosis after the change, in one line.
    pub headline: String,
}

/// One quantity before and after.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct MeasuredEffect {
    /// Which.
    pub quantity: PredictedQuantity,
    /// Before, in the quantity's unit.
    pub before: f64,
    /// After.
    pub after: f64,
    /// After over before.
    pub ratio: f64,
    /// The predicted ratio and the ends of its 90 % interval, where one was predicted.
    pub predicted: Option<[f64; 3]>,
}

impl MeasuredEffects {
    /// What users and operators ask for first, in a sentence.
    pub fn in_words(&self) -> String {
        let told = self.quantities.iter().filter(|one| {
            matches!(
                one.quantity,
                PredictedQuantity::GenerationTokensPerSecond
                    | PredictedQuantity::TimeToFirstTokenMean
                    | PredictedQuantity::InterTokenLatencyMean
            )
        });
        let told: Vec<String> = told
            .map(|one| {
                let value = |value| shown(one.quantity, value);
                format!(
                    "{} {} → {}",
                    one.quantity.short(),
                    value(one.before),
                    value(one.after)
                )
            })
            .collect();
        match told.is_empty() {
            true => format!("The change is in force. Now: {}.", self.headline),
            false => format!("The change is in force: {}.", told.join(", ")),
        }
    }
}
