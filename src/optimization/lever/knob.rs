//! Which knobs a version has, and what is in force of them.

use crate::engine::Version;
use crate::optimization::{KnobChange, SettingValue, Situation};

use super::draft::Declined;

/// A knob that this engine has, with what is in force.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Knob {
    pub(super) name: &'static str,
    pub(super) flag: String,
    pub(super) value: SettingValue,
}

const fn v(major: u32, minor: u32, patch: u32) -> Option<Version> {
    Some(Version::new(major, minor, patch))
}

/// A knob, and the versions that have it: from the first one on, up to the one that has it no longer.
struct Row(
    &'static str,
    &'static str,
    &'static str,
    Option<Version>,
    Option<Version>,
);

/// Engine, its knobs and flags, since, until; as read in the engines' sources. Newest spelling first.
#[rustfmt::skip]
const KNOBS: &[Row] = &[
    Row("vllm", "max_num_seqs", "--max-num-seqs", None, None),
    Row("vllm", "max_num_batched_tokens", "--max-num-batched-tokens", None, None),
    Row("vllm", "long_prefill_token_threshold", "--long-prefill-token-threshold", v(0, 7, 0), None),
    Row("vllm", "prefill_schedule_interval", "--prefill-schedule-interval", v(0, 24, 0), None),
    Row("vllm", "max_num_queued_reqs", "--max-num-queued-reqs", v(0, 29, 0), None),
    Row("vllm", "async_scheduling", "--async-scheduling", v(0, 10, 0), None),
    Row("vllm", "stream_interval", "--stream-interval", v(0, 11, 1), None),
    Row("vllm", "gpu_memory_utilization", "--gpu-memory-utilization", None, None),
    Row("vllm", "kv_cache_memory_bytes", "--kv-cache-memory-bytes", v(0, 10, 2), None),
    Row("vllm", "num_gpu_blocks_override", "--num-gpu-blocks-override", None, None),
    Row("vllm", "kv_cache_dtype", "--kv-cache-dtype", None, None),
    Row("vllm", "quantization", "--quantization", None, None),
    Row("vllm", "enable_prefix_caching", "--enable-prefix-caching", None, None),
    Row("vllm", "enforce_eager", "--enforce-eager", None, None),
    Row("vllm", "max_cudagraph_capture_size", "--max-cudagraph-capture-size", v(0, 11, 1), None),
    Row("vllm", "tensor_parallel_size", "--tensor-parallel-size", None, None),
    Row("vllm", "api_server_count", "--api-server-count", v(0, 9, 1), None),
    Row("vllm", "num_speculative_tokens", "--speculative-config", v(0, 8, 0), None),
    Row("vllm", "speculative_method", "--speculative-config", v(0, 8, 0), None),
    Row("sglang", "max_running_requests", "--max-running-requests", None, None),
    Row("sglang", "chunked_prefill_size", "--chunked-prefill-size", None, None),
    Row("sglang", "enable_mixed_chunk", "--enable-mixed-chunk", None, None),
    Row("sglang", "max_queued_requests", "--max-queued-requests", v(0, 5, 2), None),
    Row("sglang", "mem_fraction_static", "--mem-fraction-static", None, None),
    Row("sglang", "kv_cache_dtype", "--kv-cache-dtype", None, None),
    Row("sglang", "quantization", "--quantization", None, None),
    Row("sglang", "disable_radix_cache", "--disable-radix-cache", None, None),
    Row("sglang", "schedule_policy", "--schedule-policy", None, None),
    Row("sglang", "schedule_conservativeness", "--schedule-conservativeness", None, None),
    Row("sglang", "disable_overlap_schedule", "--disable-overlap-schedule", None, None),
    Row("sglang", "num_continuous_decode_steps", "--num-continuous-decode-steps", None, None),
    Row("sglang", "stream_interval", "--stream-interval", None, None),
    Row("sglang", "cuda_graph_max_bs_decode", "--cuda-graph-max-bs-decode", v(0, 5, 15), None),
    Row("sglang", "cuda_graph_max_bs", "--cuda-graph-max-bs", None, v(0, 5, 16)),
    Row("sglang", "speculative_algorithm", "--speculative-algorithm", None, None),
    Row("sglang", "speculative_num_steps", "--speculative-num-steps", None, None),
    Row("sglang", "speculative_num_draft_tokens", "--speculative-num-draft-tokens", None, None),
    Row("sglang", "speculative_eagle_topk", "--speculative-eagle-topk", None, None),
    Row("sglang", "tokenizer_worker_num", "--tokenizer-worker-num", v(0, 5, 2), None),
    Row("sglang", "tp_size", "--tp-size", None, None),
    Row("tgi", "max_batch_size", "--max-batch-size", None, None),
    Row("tgi", "max_batch_prefill_tokens", "--max-batch-prefill-tokens", None, None),
    Row("tgi", "max_concurrent_requests", "--max-concurrent-requests", None, None),
    Row("tgi", "cuda_memory_fraction", "--cuda-memory-fraction", None, None),
    Row("tgi", "kv_cache_dtype", "--kv-cache-dtype", v(3, 0, 0), None),
    Row("tgi", "quantize", "--quantize", None, None),
    Row("tgi", "speculate", "--speculate", None, None),
    Row("tgi", "cuda_graphs", "--cuda-graphs", None, None),
    Row("tgi", "validation_workers", "--validation-workers", None, None),
    Row("tgi", "num_shard", "--num-shard", None, None),
];

/// The flag of a knob that this engine and version has.
///
/// # Errors
/// Why it has none, as a sentence.
pub(super) fn has_knob(situation: &Situation<'_>, name: &str) -> Result<String, String> {
    let engine = situation.engine();
    let title = &situation.profile.title;
    let row = KNOBS.iter().find(|row| row.0 == engine && row.1 == name);
    let Some(Row(_, _, flag, since, until)) = row else {
        let own = situation
            .profile
            .knobs
            .iter()
            .find(|knob| knob.name == name);
        return match own {
            Some(knob) => Ok(knob.flag.to_string()),
            None => Err(format!("{title} has no setting {name}")),
        };
    };
    // what shows its value has it
    let shown = situation.in_force.value(&[name]).is_some();
    match (situation.version(), since, until) {
        (Some(version), Some(since), _) if version < *since => Err(format!(
            "{title} {version} has no {flag}: it came with {since}"
        )),
        (Some(version), _, Some(until)) if version >= *until => Err(format!(
            "{title} {version} has no {flag} any more: it went with {until}"
        )),
        (None, Some(since), _) if !shown && *since > oldest(engine) => Err(format!(
            "the version is not known, and {title} has {flag} only since {since}"
        )),
        _ => Ok((*flag).to_owned()),
    }
}

/// Older ones are not measured in full; what they have all have.
fn oldest(engine: &str) -> Version {
    match engine {
        "vllm" => Version::new(0, 8, 0),
        "sglang" => Version::new(0, 4, 0),
        _ => Version::new(3, 0, 0),
    }
}

/// A knob with what is in force of it.
///
/// # Errors
/// The version has none.
pub(super) fn knob(
    situation: &Situation<'_>,
    title: &str,
    name: &'static str,
) -> Result<Knob, Declined> {
    let flag = has_knob(situation, name).map_err(|reason| Declined::new(title, reason))?;
    let told = situation.in_force.get(name);
    Ok(Knob {
        name,
        flag,
        value: told.map_or(SettingValue::Unknown, |one| one.value.clone()),
    })
}

impl Knob {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            SettingValue::Known(text) => Some(text),
            SettingValue::NotSet | SettingValue::Unknown => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        let number: f64 = self.text()?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// What is in force, where nothing can be said without it.
    ///
    /// # Errors
    /// Nobody tells it.
    pub(super) fn told(&self, title: &str) -> Result<f64, Declined> {
        self.number().ok_or_else(|| {
            let why = match self.value {
                SettingValue::NotSet => "is left to the engine, and what it chose is not told",
                _ => "is not known",
            };
            Declined::new(
                title,
                format!("{} in force {why}; declare the launch arguments", self.flag),
            )
        })
    }

    /// A switch: whether it is on.
    pub(super) fn is_on(&self) -> Option<bool> {
        match self.text()? {
            "true" | "True" => Some(true),
            "false" | "False" => Some(false),
            _ => None,
        }
    }

    pub(super) fn to(&self, value: impl ToString) -> KnobChange {
        KnobChange {
            name: self.name.to_owned(),
            flag: self.flag.clone(),
            from: self.text().map(str::to_owned),
            to: Some(value.to_string()),
        }
    }

    /// The flag is taken away.
    pub(super) fn away(&self) -> KnobChange {
        KnobChange {
            to: None,
            ..self.to("")
        }
    }
}
