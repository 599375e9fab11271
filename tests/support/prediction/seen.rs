//! What an agent sees of a scenario: pages of text, and what is measured from them.

use std::sync::Arc;

use perfagent::engine::{EngineProfile, Quantity, Registry};
use perfagent::measure::{Bounded, Measurement};
use perfagent::model::StepWindow;
use perfagent::optimization::PredictedQuantity;
use perfagent::simulator::{Deployment, Replica};

use super::super::diagnosis::{Page, RecordedReplica, Recording, START_UNIX_SECONDS, probed};
use super::truth::{Flags, Phase, Truth, engine};

/// What an agent sees of it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) profile: Arc<EngineProfile>,
    pub(crate) measurement: Measurement,
    /// Of windows that it kept, and of this one; each of one replica.
    pub(crate) windows: Vec<StepWindow>,
}

impl Truth<'_> {
    /// All that is seen before a change.
    pub(crate) fn seen(&self) -> Seen {
        let before = self.recording(Phase::Before, &Flags::new(), None);
        let before = before.expect("it runs as it is");
        let mut windows = Vec::new();
        for at in 0..self.scenario.history.len() {
            if let Ok(kept) = self.recording(Phase::History(at), &Flags::new(), None) {
                windows.extend(step_windows(&kept));
            }
        }
        windows.extend(step_windows(&before));
        Seen {
            profile: Registry::builtin()
                .get(engine(self.scenario))
                .expect("built in")
                .clone(),
            measurement: before.measure(),
            windows,
        }
    }

    /// What is seen once changes of settings are in force.
    pub(crate) fn seen_after(&self, flags: &Flags) -> Result<Seen, String> {
        let after = self.recording(Phase::After, flags, None)?;
        let registry = Registry::builtin();
        let profile = registry.get(engine(self.scenario)).expect("built in");
        Ok(Seen {
            profile: profile.clone(),
            measurement: after.measure(),
            windows: step_windows(&after),
        })
    }

    /// Pages of a window in a phase, changed.
    pub(crate) fn recording(
        &self,
        phase: Phase,
        flags: &Flags,
        replicas: Option<u32>,
    ) -> Result<Recording, String> {
        let deployment = self.deployment(phase, flags, replicas)?;
        let engine = engine(self.scenario);
        let registry = Registry::builtin();
        let profile = registry.get(engine).expect("built in");
        let replicas = (0..deployment.replicas)
            .map(|number| self.replica(&deployment, number, profile))
            .collect::<Result<_, _>>()?;
        Ok(Recording {
            engine: engine.to_owned(),
            replicas,
            truth: None,
        })
    }

    fn replica(
        &self,
        deployment: &Deployment,
        number: u32,
        profile: &EngineProfile,
    ) -> Result<RecordedReplica, String> {
        let scenario = self.scenario;
        let mut replica = Replica::new(deployment, number, START_UNIX_SECONDS)
            .map_err(|error| error.to_string())?;
        let scrapes = (scenario.window_seconds / scenario.interval_seconds).round() as u32;
        let pages = (0..=scrapes)
            .map(|scrape| {
                let since = f64::from(scrape) * scenario.interval_seconds;
                replica.run_until(scenario.warm_seconds + since);
                Page {
                    unix_seconds: replica.now_unix_seconds(),
                    text: replica.metrics(false),
                }
            })
            .collect();
        Ok(RecordedReplica {
            pages,
            probed: Arc::new(probed(profile, &replica, None, scenario.settings_known)),
        })
    }
}

/// Of each replica alone.
fn step_windows(recording: &Recording) -> Vec<StepWindow> {
    let windows = recording.replicas.iter().map(|replica| {
        let alone = Recording {
            replicas: vec![replica.clone()],
            ..recording.clone()
        };
        StepWindow::of(&alone.measure()).ok()
    });
    windows.flatten().collect()
}

/// A quantity as it was measured; none where nothing or only a bound is known of it.
pub(crate) fn measured(measurement: &Measurement, quantity: PredictedQuantity) -> Option<f64> {
    let figures = &measurement.figures;
    let of = |quantity| figures.distribution(quantity);
    let p99 = |quantity| {
        let quantiles = &of(quantity)?.quantiles;
        let found = quantiles.iter().find(|one| one.q == 0.99)?;
        match found.value {
            Bounded::Value(value) => Some(value),
            Bounded::AtMost(_) | Bounded::AtLeast(_) => None,
        }
    };
    match quantity {
        PredictedQuantity::GenerationTokensPerSecond => figures.value(quantity.quantity()),
        PredictedQuantity::TimeToFirstTokenMean => of(Quantity::TimeToFirstToken)?.mean,
        PredictedQuantity::TimeToFirstTokenP99 => p99(Quantity::TimeToFirstToken),
        PredictedQuantity::InterTokenLatencyMean => of(Quantity::InterTokenLatency)?.mean,
        PredictedQuantity::InterTokenLatencyP99 => p99(Quantity::InterTokenLatency),
        PredictedQuantity::KvCacheUsage => Some(figures.gauge(Quantity::KvCacheUsage)?.mean),
    }
}
