//! Which predictions are asked for, and in what order they come.

use crate::optimization::{Ended, LedgerEntry};

/// Which predictions are asked for; all where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PredictionFilter {
    /// Of this instance.
    pub instance_id: Option<String>,
    /// Of this lever.
    pub lever: Option<String>,
    /// In this state.
    pub state: Option<Ended>,
}

/// Place of a prediction in a list, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictionPlace {
    /// When it was made, unix time in microseconds.
    pub made_us: i64,
    /// Its id.
    pub prediction_id: String,
}

impl PredictionPlace {
    /// Of a prediction.
    pub fn of(entry: &LedgerEntry) -> Self {
        Self {
            made_us: micros_of(entry.made_at_unix_seconds),
            prediction_id: entry.prediction_id.clone(),
        }
    }
}

/// Unix time in microseconds; what is no time is the end of it, before or after.
pub(super) fn micros_of(unix_seconds: f64) -> i64 {
    (unix_seconds * 1e6).round() as i64
}
