//! Models on devices: how long steps take, how much memory there is, and what their users are promised.

use perfagent::analysis::Targets;
use perfagent::simulator::{MemoryPart, TimingPart};

use super::dice::Dice;

/// A model on a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hardware {
    pub(super) name: &'static str,
    pub(super) timing: TimingPart,
    pub(super) memory: MemoryPart,
    pub(super) targets: Targets,
    /// Lengths are this many times those of a chat.
    pub(super) lengths: f64,
    pub(super) warm_seconds: f64,
}

/// One of three, each a little different from any other, with a curve and a jitter of its own.
pub(super) fn hardware(dice: &mut Dice) -> Hardware {
    let unit = dice.unit();
    let mut hardware = if unit < 0.5 {
        h100_8b()
    } else if unit < 0.8 {
        four_h100_70b()
    } else {
        cpu_small()
    };
    let mut vary = |part: &mut Option<f64>| {
        let times = dice.log_between(0.8, 1.25);
        *part = part.map(|value| value * times);
    };
    let timing = &mut hardware.timing;
    vary(&mut timing.fixed_seconds);
    vary(&mut timing.token_seconds);
    vary(&mut timing.knee_tokens);
    vary(&mut timing.decode_sequence_seconds);
    vary(&mut timing.decode_context_token_seconds);
    vary(&mut timing.frontend_seconds);
    timing.padded_decodes = Some(dice.chance(0.6));
    timing.knee_sharpness = dice.chance(0.6).then(|| dice.between(2.0, 6.0));
    timing.token_exponent = Some(dice.between(0.94, 1.08));
    timing.jitter_sigma = Some(dice.between(0.02, 0.15));
    if dice.chance(0.5) {
        timing.pause_ratio = Some(dice.log_between(2e-4, 2e-3));
        // a pause is some steps long
        let step = timing.fixed_seconds.unwrap_or(0.0)
            + timing.token_seconds.unwrap_or(0.0) * timing.knee_tokens.unwrap_or(0.0);
        timing.pause_seconds = Some(step * dice.between(2.0, 8.0));
    }
    hardware
}

/// 8 billion parameters in 16 bits on one H100: see `StepTime::default`.
fn h100_8b() -> Hardware {
    Hardware {
        name: "8B on an H100",
        timing: TimingPart {
            fixed_seconds: Some(1.5e-3),
            token_seconds: Some(27e-6),
            knee_tokens: Some(178.0),
            decode_sequence_seconds: Some(10e-6),
            decode_context_token_seconds: Some(45e-9),
            prefill_context_token_seconds: Some(1e-9),
            frontend_seconds: Some(2e-3),
            ..TimingPart::default()
        },
        memory: MemoryPart {
            device_gib: 80.0,
            weights_gib: 20.0,
            kv_bytes_per_token: 131_072.0,
        },
        targets: Targets::default(),
        lengths: 1.0,
        warm_seconds: 30.0,
    }
}

/// 70 billion parameters in 16 bits on four H100: 140 GFLOP a token at 2 PFLOP/s, 140 GB of weights at 13.4 TB/s, 320 KiB
/// of keys and values a token.
fn four_h100_70b() -> Hardware {
    Hardware {
        name: "70B on four H100",
        timing: TimingPart {
            fixed_seconds: Some(5e-3),
            token_seconds: Some(70e-6),
            knee_tokens: Some(149.0),
            decode_sequence_seconds: Some(15e-6),
            decode_context_token_seconds: Some(24e-9),
            prefill_context_token_seconds: Some(2e-9),
            frontend_seconds: Some(4e-3),
            ..TimingPart::default()
        },
        memory: MemoryPart {
            device_gib: 320.0,
            weights_gib: 160.0,
            kv_bytes_per_token: 327_680.0,
        },
        targets: Targets {
            ttft_p50_seconds: 0.3,
            ttft_p99_seconds: 1.5,
            ..Targets::default()
        },
        lengths: 1.0,
        warm_seconds: 40.0,
    }
}

/// Half a billion parameters on 16 cores, about as recorded from a vLLM on a CPU.
fn cpu_small() -> Hardware {
    Hardware {
        name: "0.5B on a CPU",
        timing: TimingPart {
            fixed_seconds: Some(8e-3),
            token_seconds: Some(0.35e-3),
            knee_tokens: Some(8.0),
            decode_sequence_seconds: Some(0.4e-3),
            decode_context_token_seconds: Some(0.6e-6),
            prefill_context_token_seconds: Some(30e-9),
            frontend_seconds: Some(5e-3),
            ..TimingPart::default()
        },
        memory: MemoryPart {
            device_gib: 16.0,
            weights_gib: 4.0,
            kv_bytes_per_token: 24_576.0,
        },
        targets: Targets {
            ttft_p50_seconds: 0.5,
            ttft_p99_seconds: 2.5,
            itl_p99_seconds: 0.3,
            ..Targets::default()
        },
        lengths: 0.4,
        warm_seconds: 40.0,
    }
}

impl Hardware {
    fn of(part: Option<f64>) -> f64 {
        part.unwrap_or(0.0)
    }

    /// About how long a step takes that computes so many tokens of prompts beside so many decodes, whose requests hold
    /// so many tokens each.
    pub(super) fn step_seconds(&self, prefill: f64, decodes: f64, context: f64) -> f64 {
        let timing = &self.timing;
        Self::of(timing.fixed_seconds)
            + Self::of(timing.token_seconds) * (prefill + decodes).max(Self::of(timing.knee_tokens))
            + Self::of(timing.decode_sequence_seconds) * decodes
            + Self::of(timing.decode_context_token_seconds) * decodes * context
    }

    /// About how many requests a second it can serve, so many at once, of such lengths on average.
    pub(super) fn capacity(&self, sequences: f64, prompt: f64, output: f64) -> f64 {
        let prefill = sequences * prompt / output;
        let step = self.step_seconds(prefill, sequences, prompt + output / 2.0);
        sequences / (output * step)
    }
}
