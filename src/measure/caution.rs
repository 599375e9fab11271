//! What else differs between two measurements that are compared.

use crate::engine::Quantity;

use super::measurement::Measurement;

/// Something beside the engine's speed that differs, so that a difference need not come from what was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caution {
    /// What kind.
    pub code: CautionCode,
    /// A sentence.
    pub message: String,
}

/// Kinds of cautions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CautionCode {
    /// Another model is served, or the same under another name.
    ModelDiffers,
    /// Another version of the engine.
    VersionDiffers,
    /// Another number of replicas was measured.
    ReplicasDiffer,
    /// More or fewer requests: latencies follow the load.
    LoadDiffers,
    /// Longer or shorter requests: latencies follow their length.
    WorkloadDiffers,
}

impl CautionCode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ModelDiffers => "MODEL_DIFFERS",
            Self::VersionDiffers => "VERSION_DIFFERS",
            Self::ReplicasDiffer => "REPLICAS_DIFFER",
            Self::LoadDiffers => "LOAD_DIFFERS",
            Self::WorkloadDiffers => "WORKLOAD_DIFFERS",
        }
    }
}

/// Loads and lengths further apart than this are told.
const TOLERANCE_RATIO: f64 = 0.1;

pub(super) fn cautions_of(baseline: &Measurement, candidate: &Measurement) -> Vec<Caution> {
    let sides = [baseline, candidate];
    let [models, versions] = [
        sides.map(|side| side.model_name.clone()),
        sides.map(|side| side.engine_version.clone()),
    ];
    let replicas = sides.map(|side| {
        let measured = side
            .replicas
            .iter()
            .filter(|replica| replica.outcome.is_ok());
        Some(measured.count().to_string())
    });
    let load = |side: &Measurement| side.figures.value("requests_finished_per_second");
    let length = |quantity| {
        move |side: &Measurement| side.figures.distribution(quantity).and_then(|one| one.mean)
    };
    let texts = [
        (CautionCode::ModelDiffers, "served model", models),
        (CautionCode::VersionDiffers, "engine version", versions),
        (CautionCode::ReplicasDiffer, "measured replicas", replicas),
    ];
    let texts = texts.into_iter().filter_map(|(code, what, values)| {
        let [Some(one), Some(other)] = values else {
            return None;
        };
        (one != other).then(|| caution(code, what, &one, &other))
    });
    let numbers = [
        (
            CautionCode::LoadDiffers,
            "finished requests a second",
            sides.map(load),
        ),
        (
            CautionCode::WorkloadDiffers,
            "mean prompt tokens a request",
            sides.map(length(Quantity::PromptLength)),
        ),
        (
            CautionCode::WorkloadDiffers,
            "mean generated tokens a request",
            sides.map(length(Quantity::GenerationLength)),
        ),
    ];
    let numbers = numbers.into_iter().filter_map(|(code, what, values)| {
        let [Some(one), Some(other)] = values else {
            return None;
        };
        let apart = (one - other).abs() > TOLERANCE_RATIO * one.abs().max(other.abs());
        apart.then(|| caution(code, what, &format!("{one:.2}"), &format!("{other:.2}")))
    });
    texts.chain(numbers).collect()
}

fn caution(code: CautionCode, what: &str, baseline: &str, candidate: &str) -> Caution {
    Caution {
        code,
        message: format!("{what}: {baseline} in the baseline, {candidate} in the candidate"),
    }
}
