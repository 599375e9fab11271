//! A deployment as a file or a command line describes it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{
    Arrival, Lengths, Load, LoadError, Policy, RequestClass, SharedPrefix, SimulationError,
};

use super::deployment::{Deployment, FaultChange, Incident, IncidentError, Restart};
use super::flags::{FlagError, FlagValues, engine_of};
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
    /// What happens.
    pub faults: Vec<FaultPart>,
}

/// What comes in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoadPart {
    /// Requests a second, independent of one another.
    pub rate: Option<f64>,
    /// Clients that each wait for their answer.
    pub clients: Option<u32>,
    /// Their mean pause, in seconds.
    pub think_seconds: Option<f64>,
    /// How much the rate jumps up.
    pub bursts: Option<BurstPart>,
    /// How it is divided over the replicas: a weight for each of them; even where it is absent.
    pub split: Option<Vec<u32>>,
    /// The same seed gives the same requests.
    pub seed: Option<u64>,
    /// The kind of requests, where there is one.
    #[serde(flatten)]
    pub request: RequestPart,
    /// Kinds of requests, where there are several.
    pub classes: Vec<RequestPart>,
}

/// A rate that jumps up again and again.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BurstPart {
    /// This many times as many.
    pub factor: f64,
    /// How long a burst is.
    pub seconds: f64,
    /// From one to the next.
    pub period_seconds: f64,
}

/// A kind of request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestPart {
    /// How many there are of it, against others.
    pub weight: Option<f64>,
    /// Tokens of prompts: `64`, `"48..96"` or `"lognormal 200 0.8 4000"` (median, sigma, most).
    pub prompt_tokens: Option<Value>,
    /// Tokens of outputs, written the same way.
    pub output_tokens: Option<Value>,
    /// Tokens that prompts share at their beginning.
    pub shared_prefix_tokens: Option<u32>,
    /// How many different beginnings there are.
    pub shared_prefix_groups: Option<u32>,
    /// Share of clients that go before the end.
    pub abort_ratio: Option<f64>,
    /// Clients go if there is no first token by then.
    pub patience_seconds: Option<f64>,
    /// Share of outputs that end by a stop token.
    pub stop_ratio: Option<f64>,
    /// Seconds for which a request waits for its LoRA adapter, grammar or KV transfer.
    pub deferred_seconds: Option<f64>,
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
        "{0}: tokens are written `64`, `48..96` or `lognormal 200 0.8 4000` (median, sigma, most)"
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

/// Clients where no load is given.
const CLIENTS: u32 = 8;

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

impl LoadPart {
    fn load(&self) -> Result<Load, ScenarioError> {
        let arrival = match (self.rate, self.clients, self.bursts) {
            (Some(_), Some(_), _) => {
                return Err(ScenarioError::Number(
                    "a load is either a rate or clients, not both".to_owned(),
                ));
            }
            (Some(rate_per_second), None, None) => Arrival::Poisson { rate_per_second },
            (Some(rate_per_second), None, Some(bursts)) => Arrival::Bursty {
                rate_per_second,
                burst_factor: bursts.factor,
                burst_seconds: bursts.seconds,
                period_seconds: bursts.period_seconds,
            },
            (None, clients, None) => Arrival::Closed {
                clients: clients.unwrap_or(CLIENTS),
                think_seconds: self.think_seconds.unwrap_or(0.0),
            },
            (None, _, Some(_)) => {
                return Err(ScenarioError::Number(
                    "bursts are of a rate, and there is none".to_owned(),
                ));
            }
        };
        let classes = if self.classes.is_empty() {
            vec![self.request.class(&self.request)?]
        } else {
            self.classes
                .iter()
                .map(|class| class.class(&self.request))
                .collect::<Result<_, _>>()?
        };
        if self.split.as_ref().is_some_and(Vec::is_empty) {
            return Err(ScenarioError::Number(
                "split = []: a weight for each replica is meant".to_owned(),
            ));
        }
        let load = Load {
            arrival,
            classes,
            split: self.split.clone().unwrap_or_default(),
            seed: self.seed.unwrap_or(1),
        };
        load.check()?;
        Ok(load)
    }
}

impl RequestPart {
    /// With what another says where this says nothing.
    fn class(&self, other: &Self) -> Result<RequestClass, ScenarioError> {
        let lengths = |own: &Option<Value>, other: &Option<Value>, default| match own
            .as_ref()
            .or(other.as_ref())
        {
            Some(value) => lengths(value),
            None => Ok(default),
        };
        let shared = self
            .shared_prefix_tokens
            .or(other.shared_prefix_tokens)
            .filter(|tokens| *tokens > 0);
        Ok(RequestClass {
            weight: self.weight.unwrap_or(1.0),
            prompt: lengths(
                &self.prompt_tokens,
                &other.prompt_tokens,
                Lengths::Uniform { min: 64, max: 512 },
            )?,
            output: lengths(
                &self.output_tokens,
                &other.output_tokens,
                Lengths::Uniform { min: 32, max: 256 },
            )?,
            prefix: shared.map(|tokens| SharedPrefix {
                tokens,
                groups: self
                    .shared_prefix_groups
                    .or(other.shared_prefix_groups)
                    .unwrap_or(1),
            }),
            abort_ratio: self.abort_ratio.or(other.abort_ratio).unwrap_or(0.0),
            patience_seconds: self.patience_seconds.or(other.patience_seconds),
            stop_ratio: self.stop_ratio.or(other.stop_ratio).unwrap_or(0.5),
            deferred_seconds: self
                .deferred_seconds
                .or(other.deferred_seconds)
                .unwrap_or(0.0),
        })
    }
}

fn lengths(value: &Value) -> Result<Lengths, ScenarioError> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let found = match text.split_once("..") {
        Some((min, max)) => min
            .parse()
            .ok()
            .zip(max.parse().ok())
            .map(|(min, max)| Lengths::Uniform { min, max }),
        None => match text.split_whitespace().collect::<Vec<_>>()[..] {
            [fixed] => fixed.parse().ok().map(Lengths::Fixed),
            ["lognormal", median, sigma, max] => median
                .parse()
                .ok()
                .zip(sigma.parse().ok())
                .zip(max.parse().ok())
                .map(|((median, sigma), max)| Lengths::LogNormal { median, sigma, max }),
            _ => None,
        },
    };
    found.ok_or(ScenarioError::Lengths(text))
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
