//! A deployment as a file or a command line describes it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{LoadError, Policy, RequestClass, SimulationError};

use super::deployment::{Deployment, FaultChange, Incident, IncidentError, Restart};
use super::flags::{FlagError, FlagValues, engine_of};
use super::load::LoadPart;
use super::memory::MemoryPart;
use super::replica::Replica;
use super::timing::TimingPart;

/// What a file or a command line says of a deployment; what it does not say has a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What is wrong, as a diagnosis should name it.
    pub cause: Option<String>,
    /// `vllm`, `sglang` or `tgi`.
    pub engine: Option<String>,
    /// Model that is said to be served.
    pub model: Option<String>,
    /// How many replicas.
    pub replicas: Option<u32>,
    /// Seconds of the simulation in one of the clock.
    pub speed: Option<f64>,
    /// The engine's flags, by name.
    pub settings: BTreeMap<String, Value>,
    /// What comes in.
    pub load: LoadPart,
    /// How long steps take.
    pub timing: TimingPart,
    /// The memory that the KV cache is a part of; without it the cache has a size of its own.
    pub memory: Option<MemoryPart>,
    /// What happens.
    pub faults: Vec<FaultPart>,
}

/// What happens to replicas.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FaultPart {
    /// When, in seconds of the simulation.
    pub at_seconds: f64,
    /// To which, counted from 0; all where it is absent.
    pub replica: Option<u32>,
    /// Requests are taken, and nothing is computed.
    pub stalled: Option<bool>,
    /// Steps take this many times as long.
    pub slowness: Option<f64>,
    /// Share of requests that fail.
    pub failure_ratio: Option<f64>,
    /// The engine is restarted.
    pub restart: Option<Restart>,
}

/// A scenario that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// An engine that is not simulated.
    #[error("no engine `{0}` is simulated; vllm, sglang and tgi are")]
    Engine(String),
    /// A length that is none.
    #[error(
        "{0}: tokens are written `64`, `48..96`, `lognormal 200 0.8 4000` (median, sigma, most) or `pareto 50 1.5 4000` (least, exponent, most)"
    )]
    Lengths(String),
    /// A number that is none of its kind.
    #[error("{0}")]
    Number(String),
    /// A flag that cannot be.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Something that cannot happen.
    #[error(transparent)]
    Incident(#[from] IncidentError),
    /// A load that cannot be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What cannot be simulated.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

impl Scenario {
    /// The deployment that it describes; whether it can be is checked.
    ///
    /// # Errors
    /// What cannot be.
    pub fn deployment(&self) -> Result<Deployment, ScenarioError> {
        let engine = self.engine.as_deref().unwrap_or("vllm");
        let engine = engine_of(engine).ok_or_else(|| ScenarioError::Engine(engine.to_owned()))?;
        let mut flags = FlagValues::default();
        flags.change(&self.settings);
        let speed = self.speed.unwrap_or(1.0);
        if !(speed.is_finite() && speed > 0.0) {
            return Err(ScenarioError::Number(format!(
                "speed = {speed}: a number above 0 is meant"
            )));
        }
        let replicas = self.replicas.unwrap_or(1);
        if replicas == 0 {
            return Err(ScenarioError::Number(
                "replicas = 0: at least 1 is meant".to_owned(),
            ));
        }
        if let Some(fault) = self.memory.as_ref().and_then(MemoryPart::fault) {
            return Err(ScenarioError::Number(fault));
        }
        let mut incidents = self
            .faults
            .iter()
            .map(FaultPart::incident)
            .collect::<Result<Vec<_>, _>>()?;
        incidents.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
        let deployment = Deployment {
            engine,
            flags,
            acceptance_ratio: self.timing.acceptance_ratio.unwrap_or(0.7),
            load: self.load.load()?,
            step_time: self.timing.step_time()?,
            device_timer: self.timing.device_timer(engine)?,
            memory: self.memory,
            replicas,
            speed,
            model_name: self.model.clone().unwrap_or_else(|| "simulated".to_owned()),
            incidents,
            cause: self.cause.clone(),
        };
        let deferred = |class: &RequestClass| class.deferred_seconds > 0.0;
        if engine == Policy::Tgi && deployment.load.classes.iter().any(deferred) {
            return Err(ScenarioError::Number(
                "load.deferred_seconds: tgi defers no request; vllm and sglang do".to_owned(),
            ));
        }
        // restarts that will be are tried now, not when their time has come
        let mut later = deployment.flags.clone();
        for restart in deployment
            .incidents
            .iter()
            .filter_map(|incident| incident.restart.as_ref())
        {
            later.change(&restart.settings);
            deployment.settings(&later)?;
        }
        Replica::new(&deployment, 0, 0.0)?;
        Ok(deployment)
    }
}

impl FaultPart {
    fn incident(&self) -> Result<Incident, IncidentError> {
        let faults = FaultChange {
            stalled: self.stalled,
            slowness: self.slowness,
            failure_ratio: self.failure_ratio,
        };
        faults.applied(crate::model::Faults::default())?;
        if let Some(restart) = &self.restart {
            restart.check()?;
        }
        let value = self.at_seconds;
        if !(value.is_finite() && value >= 0.0) {
            return Err(IncidentError::Number {
                name: "at_seconds",
                value,
                reason: "seconds are 0 or more",
            });
        }
        Ok(Incident {
            at_seconds: value,
            replica: self.replica,
            faults,
            restart: self.restart.clone(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{Arrival, Lengths, SharedPrefix};

    fn parsed(text: &str) -> Result<Deployment, ScenarioError> {
        toml::from_str::<Scenario>(text).unwrap().deployment()
    }

    #[test]
    fn a_file_describes_a_deployment() {
        let deployment = parsed(
            r#"
            cause = "too few sequences"
            engine = "vllm"
            replicas = 2
            settings = { max_num_seqs = 4, no_enable_prefix_caching = true }
            [load]
            rate = 3
            prompt_tokens = "48..96"
            output_tokens = 80
            [[load.classes]]
            weight = 9
            [[load.classes]]
            prompt_tokens = "lognormal 2000 0.5 6000"
            shared_prefix_tokens = 512
            [timing]
            fixed_seconds = 0.01
            [[faults]]
            at_seconds = 60
            replica = 1
            slowness = 3
            [[faults]]
            at_seconds = 30
            restart = { settings = { max_num_seqs = 8 }, load_seconds = 5 }
            "#,
        )
        .unwrap();
        let settings = deployment.settings(&deployment.flags).unwrap();
        assert_eq!((settings.max_num_seqs, settings.prefix_caching), (4, false));
        assert_eq!(
            deployment.load.arrival,
            Arrival::Poisson {
                rate_per_second: 3.0
            }
        );
        let [short, long] = &deployment.load.classes[..] else {
            unreachable!()
        };
        assert_eq!(
            (&short.prompt, &short.output),
            (&Lengths::Uniform { min: 48, max: 96 }, &Lengths::Fixed(80))
        );
        assert_eq!(long.output, Lengths::Fixed(80));
        assert_eq!(
            long.prefix,
            Some(SharedPrefix {
                tokens: 512,
                groups: 1
            })
        );
        assert_eq!(deployment.step_time.fixed_seconds, 0.01);
        let times: Vec<f64> = deployment
            .incidents
            .iter()
            .map(|incident| incident.at_seconds)
            .collect();
        assert_eq!(times, [30.0, 60.0]);
        assert_eq!(deployment.cause.as_deref(), Some("too few sequences"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_meant() {
        for (text, what) in [
            ("engine = \"llama.cpp\"", "vllm, sglang and tgi"),
            ("load = { rate = 1, clients = 2 }", "not both"),
            ("load = { prompt_tokens = \"9-5\" }", "`48..96`"),
            ("load = { rate = 0 }", "more than 0"),
            (
                "settings = { max_running_requests = 4 }",
                "vllm has no setting",
            ),
            (
                "timing = { fixed_seconds = 0 }",
                "fixed_seconds = 0: the fixed part is above 0",
            ),
            ("timing = { host_seconds = -1 }", "host_seconds = -1"),
            ("timing = { jitter_sigma = -1 }", "jitter_sigma = -1"),
            (
                "timing = { pause_ratio = 0.1 }",
                "timing.pause_ratio = 0.1: of pauses of timing.pause_seconds",
            ),
            ("timing = { knee_sharpness = 0 }", "knee_sharpness = 0"),
            ("timing = { token_exponent = 9 }", "token_exponent = 9"),
            (
                "load = { rate = 1, drift = { factor = 0 } }",
                "a drift to 0 times",
            ),
            (
                "load = { length_correlation = 2 }",
                "length_correlation = 2",
            ),
            (
                "load = { prompt_tokens = \"pareto 9 0 90\" }",
                "an exponent above 0",
            ),
            (
                "timing = { graph_max_sequences = 8, eager_factor = 0.5 }",
                "eager_factor = 0.5",
            ),
            (
                "timing = { eager_factor = 2 }",
                "timing.graph_max_sequences",
            ),
            ("timing = { device_timer = true }", "timing.device_timer"),
            ("faults = [{ failure_ratio = 2 }]", "between 0 and 1"),
            (
                "faults = [{ restart = { settings = { block_size = 0 } } }]",
                "block_size = 0",
            ),
            ("speed = 0", "above 0"),
            (
                "load = { split = [3, 1] }",
                "split = [3, 1]: there are 1 replicas",
            ),
            ("replicas = 2\nload = { split = [] }", "split = []"),
            (
                "replicas = 2\nload = { split = [0, 0] }",
                "not all of them 0",
            ),
            ("replicas = 2\nload = { split = [1, 5000] }", "0 to 1000"),
            (
                "load = { deferred_seconds = -1 }",
                "deferred_seconds = -1: seconds are 0 or more",
            ),
            (
                "engine = 'tgi'\n[[load.classes]]\ndeferred_seconds = 1",
                "load.deferred_seconds: tgi",
            ),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
