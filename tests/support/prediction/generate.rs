//! A seed → a scenario.

use std::collections::BTreeMap;

use perfagent::model::Policy;
use perfagent::optimization::KnobChange;
use perfagent::simulator::{self, DriftPart, LoadPart, engine_name};
use serde_json::Value;

use super::dice::Dice;
use super::hardware::{Hardware, hardware};
use super::kinds;
use super::{Kind, Scenario, Treatment};

/// A scenario while it is made.
pub(super) struct Draft {
    pub(super) dice: Dice,
    pub(super) engine: Policy,
    pub(super) hardware: Hardware,
    pub(super) lengths: Shape,
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) load: LoadPart,
    pub(super) replicas: u32,
    pub(super) acceptance_ratio: Option<f64>,
    pub(super) cure: Treatment,
}

/// Lengths of requests.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) prompt: String,
    pub(super) output: String,
    /// Means, about.
    pub(super) prompt_mean: f64,
    pub(super) output_mean: f64,
    /// Most of both together.
    pub(super) longest: u32,
}

/// The scenario of this seed.
pub(crate) fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice::new(seed);
    let unit = dice.unit();
    let engine = if unit < 0.60 {
        Policy::Vllm
    } else if unit < 0.85 {
        Policy::Sglang
    } else {
        Policy::Tgi
    };
    let kind = match dice.chance(1.0 / 3.0) {
        true => Kind::Healthy,
        false => dice.pick(kinds::of(engine)),
    };
    let hardware = hardware(&mut dice);
    let lengths = shape(&mut dice, &hardware, kind);
    let mut draft = Draft {
        engine,
        hardware,
        lengths,
        settings: BTreeMap::new(),
        load: LoadPart::default(),
        replicas: if dice.chance(0.15) { 2 } else { 1 },
        acceptance_ratio: None,
        cure: Treatment::default(),
        dice,
    };
    let targets = kinds::apply(kind, &mut draft);
    finish(seed, kind, draft, targets)
}

/// Lengths of a chat, of summaries, or with a heavy tail.
fn shape(dice: &mut Dice, hardware: &Hardware, kind: Kind) -> Shape {
    let times = hardware.lengths;
    let tokens = |tokens: f64| (tokens * times).round().max(1.0);
    let long_prompts = matches!(kind, Kind::BudgetTooSmall | Kind::BudgetTooLarge);
    let (prompt, prompt_mean, longest_prompt) = if long_prompts {
        let median = tokens(dice.between(1_000.0, 2_500.0));
        lognormal(median, dice.between(0.4, 0.8), tokens(6_000.0))
    } else {
        match dice.pick(&["chat", "chat", "uniform", "heavy", "documents"]) {
            "uniform" => {
                let (low, high) = (
                    tokens(dice.between(20.0, 100.0)),
                    tokens(dice.between(300.0, 900.0)),
                );
                (format!("{low}..{high}"), (low + high) / 2.0, high)
            }
            "heavy" => pareto(
                tokens(dice.between(60.0, 200.0)),
                dice.between(1.2, 1.8),
                tokens(4_000.0),
            ),
            "documents" => lognormal(
                tokens(dice.between(700.0, 1_400.0)),
                dice.between(0.4, 0.9),
                tokens(4_000.0),
            ),
            _ => lognormal(
                tokens(dice.between(120.0, 500.0)),
                dice.between(0.7, 1.4),
                tokens(4_000.0),
            ),
        }
    };
    let (output, output_mean, longest_output) = match dice.pick(&["chat", "heavy", "uniform"]) {
        "uniform" => {
            let (low, high) = (
                tokens(dice.between(16.0, 60.0)),
                tokens(dice.between(150.0, 400.0)),
            );
            (format!("{low}..{high}"), (low + high) / 2.0, high)
        }
        "heavy" => lognormal(
            tokens(dice.between(70.0, 160.0)),
            dice.between(1.2, 1.6),
            tokens(1_500.0),
        ),
        _ => lognormal(
            tokens(dice.between(90.0, 220.0)),
            dice.between(0.5, 1.0),
            tokens(1_200.0),
        ),
    };
    Shape {
        prompt,
        output,
        prompt_mean,
        output_mean,
        longest: (longest_prompt + longest_output) as u32,
    }
}

/// Text, mean and longest.
fn lognormal(median: f64, sigma: f64, most: f64) -> (String, f64, f64) {
    // the tail is cut, so a little less than exp(sigma²/2)
    let mean = median * (sigma * sigma / 2.0).exp() * 0.95;
    (
        format!("lognormal {median} {sigma:.2} {most}"),
        mean.min(most / 2.0),
        most,
    )
}

fn pareto(least: f64, exponent: f64, most: f64) -> (String, f64, f64) {
    // of a tail that is cut at `most`
    let share = (least / most).powf(exponent - 1.0);
    let mean = least * exponent / (exponent - 1.0) * (1.0 - share);
    (format!("pareto {least} {exponent:.2} {most}"), mean, most)
}

fn finish(
    seed: u64,
    kind: Kind,
    mut draft: Draft,
    targets: perfagent::analysis::Targets,
) -> Scenario {
    let dice = &mut draft.dice;
    let (warm_seconds, window_seconds) = (draft.hardware.warm_seconds, 60.0);
    let request = &mut draft.load.request;
    request.prompt_tokens = Some(draft.lengths.prompt.clone().into());
    request.output_tokens = Some(draft.lengths.output.clone().into());
    if dice.chance(0.5) {
        request.length_correlation = Some(dice.between(-0.3, 0.6));
    }
    if dice.chance(0.3) && kind != Kind::KvCapacity {
        request.shared_prefix_tokens =
            Some((dice.between(50.0, 400.0) * draft.hardware.lengths) as u32);
        request.shared_prefix_groups = Some(dice.pick(&[1, 4, 20]));
    }
    draft.load.seed = Some(seed * 2 + 1);
    if dice.chance(0.25) && draft.load.bursts.is_none() {
        draft.load.drift = Some(DriftPart {
            factor: dice.log_between(0.8, 1.25),
            from_seconds: warm_seconds,
            over_seconds: window_seconds,
        });
    }
    let history = match dice.pick(&[0, 1, 3]) {
        0 => Vec::new(),
        windows => (0..windows).map(|_| dice.between(0.3, 1.1)).collect(),
    };
    let settings_known = dice.chance(0.5);
    let interval_seconds = dice.pick(&[5.0, 15.0]);
    let what_ifs = what_ifs(&mut draft);
    let declared = match settings_known || draft.dice.chance(0.3) {
        true => BTreeMap::new(),
        false => declared(&draft.settings),
    };
    let mut timing = draft.hardware.timing;
    timing.acceptance_ratio = draft.acceptance_ratio;
    Scenario {
        seed,
        kind,
        engine: draft.engine,
        hardware: draft.hardware.name,
        base: simulator::Scenario {
            engine: Some(engine_name(draft.engine).to_owned()),
            replicas: Some(draft.replicas),
            settings: draft.settings,
            load: draft.load,
            timing,
            memory: Some(draft.hardware.memory),
            ..simulator::Scenario::default()
        },
        targets,
        settings_known,
        declared,
        warm_seconds,
        window_seconds,
        interval_seconds,
        history,
        cure: draft.cure,
        what_ifs,
    }
}

/// Flags as an operator declares them.
fn declared(settings: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    settings
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One to three changes of settings, up and down, that need not be wise.
fn what_ifs(draft: &mut Draft) -> Vec<Vec<KnobChange>> {
    let count = draft.dice.pick(&[1, 2, 3]);
    let mut what_ifs: Vec<Vec<KnobChange>> = Vec::new();
    for _ in 0..count {
        let (name, value) = match draft.engine {
            Policy::Vllm => {
                let knob = draft
                    .dice
                    .pick(&["cap", "cap", "budget", "kv", "threshold", "guess"]);
                vllm_what_if(draft, knob)
            }
            Policy::Sglang => match draft
                .dice
                .pick(&["cap", "cap", "budget", "kv", "conservative"])
            {
                "budget" => (
                    "chunked-prefill-size",
                    draft.dice.pick(&[1_024, 2_048, 4_096, 16_384]).to_string(),
                ),
                "kv" => kinds::kv_change(draft, &[0.4, 0.6, 0.8, 0.93]),
                "conservative" => (
                    "schedule-conservativeness",
                    draft.dice.pick(&["0.3", "0.6", "1.3"]).to_owned(),
                ),
                _ => ("max-running-requests", scaled_cap(draft)),
            },
            Policy::Tgi => match draft.dice.pick(&["cap", "cap", "budget", "kv"]) {
                "budget" => (
                    "max-batch-prefill-tokens",
                    draft.dice.pick(&[4_096, 8_192]).to_string(),
                ),
                "kv" => kinds::kv_change(draft, &[0.5, 0.7, 0.95]),
                _ => ("max-batch-size", scaled_cap(draft)),
            },
        };
        let change = kinds::change(draft.engine, &draft.settings, name, Some(value));
        if change.from != change.to && !what_ifs.iter().any(|known| known[0].flag == change.flag) {
            what_ifs.push(vec![change]);
        }
    }
    what_ifs
}

fn vllm_what_if(draft: &mut Draft, knob: &str) -> (&'static str, String) {
    let number = |draft: &Draft, name: &str, default: u32| {
        kinds::number(&draft.settings, name).unwrap_or(default)
    };
    match knob {
        "budget" => {
            let cap = number(draft, "max-num-seqs", 256);
            let budget = draft.dice.pick(&[512, 1_024, 4_096, 8_192]).max(cap);
            ("max-num-batched-tokens", budget.to_string())
        }
        "kv" => kinds::kv_change(draft, &[0.5, 0.7, 0.95]),
        "threshold" => (
            "long-prefill-token-threshold",
            draft.dice.pick(&[256, 512, 1_024]).to_string(),
        ),
        "guess" if draft.settings.contains_key("speculative-config") => {
            let tokens = draft.dice.pick(&[1, 2, 8]);
            ("speculative-config", tokens.to_string())
        }
        _ => {
            let budget = number(draft, "max-num-batched-tokens", 2_048);
            let cap: u32 = scaled_cap(draft).parse().unwrap();
            ("max-num-seqs", cap.min(budget).to_string())
        }
    }
}

/// A cap that is some times the present one.
fn scaled_cap(draft: &mut Draft) -> String {
    let cap = kinds::cap(draft).unwrap_or(64);
    let times = draft.dice.pick(&[0.25, 0.5, 2.0, 4.0]);
    ((f64::from(cap) * times) as u32)
        .clamp(1, 1_024)
        .to_string()
}
