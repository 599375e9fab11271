//! The proof set of verdicts: seeded pools of simulated replicas, a change that goes out to them, and what truly comes of it.
//!
//! ```text
//! seed → trial → pages of text → observations → the workflow's own machine → promoted, undone, or not known
//!              → truth: long runs with and without the change, counted by the simulator itself
//! ```
//!
//! What decides sees pages, one each five seconds, and nothing else. The set was chosen by the truth alone: `choose.rs`
//! says how. What is said of it played no part.
#![allow(dead_code)]

#[path = "trials/choose.rs"]
pub(crate) mod choose;
// beside those of the predictions, which a bench of verdicts has no use for
#[allow(clippy::duplicate_mod)]
#[path = "prediction/dice.rs"]
mod dice;
#[path = "trials/draw.rs"]
mod draw;
#[allow(clippy::duplicate_mod)]
#[path = "prediction/hardware.rs"]
mod hardware;
#[path = "trials/rollout.rs"]
pub(crate) mod rollout;
#[path = "trials/truth.rs"]
pub(crate) mod truth;

use std::collections::BTreeMap;

use perfagent::analysis::Slo;
use perfagent::simulator::{Scenario, TimingPart};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use draw::trial;

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub(crate) enum Kind {
    /// None: both sides are the same.
    Same,
    /// Every step is faster, as of a better kernel.
    Faster,
    /// A better setting.
    Better,
    /// A better setting that costs something else, which its prediction says.
    Traded,
    /// Every step is slower.
    Slower,
    /// A worse setting.
    Worse,
    /// Steps vary more; their mean stays.
    TailOnly,
    /// Some requests fail.
    ErrorsOnly,
    /// Every step is slower, from some time after the change on.
    Late,
}

/// How much worse it makes what it makes worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub(crate) enum Class {
    /// By 10 to 20 %; or 0.5 to 2 in 100 requests fail.
    Mild,
    /// By 20 to 50 %; or 2 to 10 in 100.
    Clear,
    /// By more.
    Gross,
    /// Of what does no harm.
    None,
}

/// A pool, its load, and a change.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) before: Scenario,
    pub(crate) change: Changed,
    pub(crate) slos: Vec<Slo>,
    /// How long a part is observed, before it is observed once more as long.
    pub(crate) observe_seconds: f64,
    /// Until the engines are filled.
    pub(crate) warm_seconds: f64,
}

/// What is different with the change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub(crate) settings: BTreeMap<String, Value>,
    /// Steps take so many times as long.
    pub(crate) slowness: Option<f64>,
    pub(crate) failure_ratio: Option<f64>,
    pub(crate) timing: Option<TimingPart>,
    /// Of what is late: after which share of the first part's time to observe.
    pub(crate) from_share: Option<f64>,
}

/// A trial of the set.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) kind: Kind,
    pub(crate) class: Class,
    pub(crate) seed: u64,
}

impl Chosen {
    pub(crate) fn trial(&self) -> Trial {
        trial(self.seed, self.kind)
    }
}

impl Kind {
    pub(crate) fn is_harm(self) -> bool {
        matches!(
            self,
            Self::Slower | Self::Worse | Self::TailOnly | Self::ErrorsOnly | Self::Late
        )
    }

    pub(crate) fn is_help(self) -> bool {
        matches!(self, Self::Faster | Self::Better | Self::Traded)
    }
}

/// The set, a trial a line: kind, class, seed.
const SET: &str = include_str!("../fixtures/verdict/trials.json");

/// All of the set.
pub(crate) fn all() -> Vec<Chosen> {
    serde_json::from_str(SET).expect("the set")
}
