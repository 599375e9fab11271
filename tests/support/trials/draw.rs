//! Seed → trial.

use std::collections::BTreeMap;

use perfagent::analysis::{Aggregation, Side, Slo};
use perfagent::simulator::{BurstPart, LoadPart, RequestPart, Scenario};
use serde_json::{Value, json};

use super::dice::Dice;
use super::hardware::{Hardware, hardware};
use super::{Changed, Kind, Trial};

/// The trial of this seed and kind.
pub(crate) fn trial(seed: u64, kind: Kind) -> Trial {
    let mut dice = Dice::new(seed ^ ((kind as u64) << 40));
    let mut draft = Draft::new(&mut dice, kind);
    let bound = (kind == Kind::TailOnly).then(|| draft.near_a_bound(&mut dice));
    let change = draft.change(&mut dice, kind);
    let slos = match bound {
        Some(bound) => vec![promise("inter_token_latency_seconds", bound)],
        _ if dice.chance(0.3) => vec![promise(
            "time_to_first_token_seconds",
            dice.pick(&[0.1, 0.25, 0.5, 1.0]),
        )],
        _ => Vec::new(),
    };
    let observe_seconds = (REQUESTS / draft.rate).clamp(3_600.0, 7_200.0).round();
    let replicas = dice.pick(&[2_u32, 3, 4, 6]);
    // of all of them
    draft.load.rate = draft.load.rate.map(|rate| rate * f64::from(replicas));
    draft.load.clients = draft.load.clients.map(|clients| clients * replicas);
    Trial {
        seed,
        kind,
        before: Scenario {
            engine: Some(draft.engine.to_owned()),
            replicas: Some(replicas),
            settings: draft.settings,
            load: LoadPart {
                seed: Some(seed),
                ..draft.load
            },
            timing: draft.hardware.timing,
            memory: Some(draft.hardware.memory),
            ..Scenario::default()
        },
        change,
        slos,
        observe_seconds,
        warm_seconds: draft.hardware.warm_seconds + 60.0,
    }
}

/// Of a replica, in the time that a part is observed.
const REQUESTS: f64 = 8_000.0;

struct Draft {
    engine: &'static str,
    hardware: Hardware,
    settings: BTreeMap<String, Value>,
    load: LoadPart,
    /// Requests a second of a replica.
    rate: f64,
    /// About how long a step takes.
    step: f64,
    /// Requests that run at once, about.
    running: f64,
}

fn promise(quantity: &str, target: f64) -> Slo {
    Slo {
        name: "tail".to_owned(),
        quantity: quantity.to_owned(),
        aggregation: Aggregation::quantile(0.9),
        comparison: Side::AtMost,
        target,
        only_while_requests_wait: false,
    }
}

impl Draft {
    fn new(dice: &mut Dice, kind: Kind) -> Self {
        let engine = dice.pick(&["vllm", "vllm", "vllm", "sglang", "tgi"]);
        let mut hardware = hardware(dice);
        if kind == Kind::TailOnly {
            hardware.timing.pause_ratio = None;
            hardware.timing.pause_seconds = None;
            hardware.timing.jitter_sigma = Some(dice.between(0.02, 0.1));
        }
        let times = hardware.lengths;
        let tokens = |of: f64| (of * times).round().max(4.0);
        let (prompt, output) = (
            tokens(dice.log_between(100.0, 700.0)),
            tokens(dice.log_between(50.0, 180.0)),
        );
        let request = RequestPart {
            prompt_tokens: Some(json!(format!(
                "lognormal {prompt} {:.2} {}",
                dice.between(0.4, 1.0),
                tokens(4_000.0)
            ))),
            output_tokens: Some(json!(format!(
                "lognormal {output} {:.2} {}",
                dice.between(0.4, 0.9),
                tokens(1_000.0)
            ))),
            ..RequestPart::default()
        };
        let most = dice.log_between(12.0, 48.0);
        let capacity = hardware.capacity(most, prompt * 1.3, output * 1.3);
        let rate = (capacity * dice.between(0.35, 0.8)).min(8.0);
        let step = hardware.step_seconds(0.0, most * 0.6, prompt + output);
        let mut load = LoadPart {
            request,
            ..LoadPart::default()
        };
        load.rate = Some(rate);
        if dice.chance(0.4) {
            let period_seconds = dice.between(40.0, 180.0);
            load.bursts = Some(BurstPart {
                factor: dice.between(1.3, 2.5),
                seconds: period_seconds * dice.between(0.1, 0.4),
                period_seconds,
            });
        } else if dice.chance(0.25) {
            load.rate = None;
            load.clients = Some((most * 0.6).ceil() as u32);
            load.think_seconds = Some(dice.between(0.0, 2.0));
        }
        Self {
            engine,
            hardware,
            settings: BTreeMap::new(),
            load,
            rate,
            step,
            running: most * 0.6,
        }
    }

    /// Has most steps take a little less than a bound of the engines' buckets, which is promised: a tail can be seen there.
    fn near_a_bound(&mut self, dice: &mut Dice) -> f64 {
        let bounds = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3];
        let next = bounds.into_iter().find(|bound| *bound >= self.step * 1.05);
        let bound = next.unwrap_or(0.3);
        let times = bound / (self.step * dice.between(1.0, 1.25));
        let timing = &mut self.hardware.timing;
        for part in [
            &mut timing.fixed_seconds,
            &mut timing.token_seconds,
            &mut timing.decode_sequence_seconds,
            &mut timing.decode_context_token_seconds,
            &mut timing.prefill_context_token_seconds,
        ] {
            *part = part.map(|seconds| seconds * times);
        }
        self.rate /= times;
        self.load.rate = self.load.rate.map(|rate| rate / times);
        bound
    }

    /// The change; settings from before that it needs are set, and the load becomes that of the whole pool.
    fn change(&mut self, dice: &mut Dice, kind: Kind) -> Changed {
        let slowness = |of: f64| Changed {
            slowness: Some(of),
            ..Changed::default()
        };
        match kind {
            Kind::Same => Changed::default(),
            Kind::Faster => slowness(dice.between(0.5, 0.93)),
            Kind::Slower => slowness(dice.log_between(1.05, 1.8)),
            Kind::Late => Changed {
                from_share: Some(dice.between(0.05, 0.5)),
                ..slowness(dice.log_between(1.05, 1.8))
            },
            Kind::ErrorsOnly => Changed {
                failure_ratio: Some(dice.log_between(0.005, 0.5)),
                ..Changed::default()
            },
            Kind::TailOnly => {
                let mut timing = self.hardware.timing;
                timing.jitter_sigma = Some(dice.log_between(0.08, 0.9));
                Changed {
                    timing: Some(timing),
                    slowness: Some(dice.between(0.96, 1.0)),
                    ..Changed::default()
                }
            }
            Kind::Worse => self.setting(dice, false),
            Kind::Better | Kind::Traded => self.setting(dice, true),
        }
    }

    /// A setting that is set well on one side and badly on the other.
    fn setting(&mut self, dice: &mut Dice, to_good: bool) -> Changed {
        let cap = match self.engine {
            "vllm" => "max-num-seqs",
            "sglang" => "max-running-requests",
            _ => "max-batch-size",
        };
        let caching = match self.engine {
            "vllm" => Some("no-enable-prefix-caching"),
            "sglang" => Some("disable-radix-cache"),
            _ => None,
        };
        let (name, good, bad) = match (dice.pick(&["cap", "cap", "cache", "room"]), caching) {
            ("cache", Some(name)) => {
                let shared = (dice.between(150.0, 900.0) * self.hardware.lengths).round();
                self.load.request.shared_prefix_tokens = Some(shared as u32);
                self.load.request.shared_prefix_groups = Some(dice.pick(&[1, 4, 12]));
                (name, None, Some(json!(true)))
            }
            ("room", _) if self.engine == "vllm" => {
                let blocks = |times: f64| json!((self.running * 40.0 * times).ceil() as u64);
                let few = dice.between(0.5, 1.2);
                (
                    "num-gpu-blocks-override",
                    Some(blocks(8.0)),
                    Some(blocks(few)),
                )
            }
            _ => {
                let few = (self.running * dice.between(0.3, 1.2)).ceil().max(2.0) as u64;
                (
                    cap,
                    Some(json!((self.running * 6.0).ceil() as u64)),
                    Some(json!(few)),
                )
            }
        };
        let (from, to) = match to_good {
            true => (bad, good),
            false => (good, bad),
        };
        if let Some(value) = from {
            self.settings.insert(name.to_owned(), value);
        }
        Changed {
            settings: [(name.to_owned(), to.unwrap_or(Value::Null))].into(),
            ..Changed::default()
        }
    }
}
