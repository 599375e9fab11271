//! TGI's knobs: 2 and 3. All need a restart; each can also be set by an environment variable.

use super::{Knob, KnobType, SwitchForm};

/// Where TGI shows some of its arguments.
pub(in crate::engine) const INFO: &str = "/info";

const ONE_UP: KnobType = KnobType::from(1);
const ZERO_UP: KnobType = KnobType::from(0);

pub(in crate::engine) fn knobs() -> Vec<Knob> {
    [limits(), batching(), model()].concat()
}

/// A knob that `/info` shows, in some versions.
fn shown(name: &'static str, flag: &'static str, env: &'static str, kind: KnobType) -> Knob {
    hidden(name, flag, env, kind).json(INFO, format!("/{name}"))
}

/// A knob that stands among the launch arguments only.
fn hidden(name: &'static str, flag: &'static str, env: &'static str, kind: KnobType) -> Knob {
    let mut knob = Knob::new(name, flag, kind);
    knob.env = Some(env);
    knob
}

fn limits() -> Vec<Knob> {
    vec![
        shown(
            "max_concurrent_requests",
            "--max-concurrent-requests",
            "MAX_CONCURRENT_REQUESTS",
            ONE_UP,
        )
        .called(&["max_queue_size"])
        .default("128")
        .trades(
            "More requests may be inside before others are refused with 429; they wait longer.",
        ),
        shown(
            "max_input_tokens",
            "--max-input-tokens",
            "MAX_INPUT_TOKENS",
            ONE_UP,
        )
        .or(&["--max-input-length"])
        .chosen("one less than --max-total-tokens")
        .trades("Longer prompts are accepted."),
        shown(
            "max_total_tokens",
            "--max-total-tokens",
            "MAX_TOTAL_TOKENS",
            ONE_UP,
        )
        .chosen("the model's own length, or what memory allows")
        .trades("Longer requests are accepted; each reserves more, and fewer run at once."),
        shown(
            "max_batch_total_tokens",
            "--max-batch-total-tokens",
            "MAX_BATCH_TOTAL_TOKENS",
            ONE_UP,
        )
        .chosen(
            "at warm-up, from what memory is left; models with flash attention ignore what is set",
        )
        .trades("More requests run at once; more than fits does not start."),
    ]
}

fn batching() -> Vec<Knob> {
    vec![
        shown(
            "waiting_served_ratio",
            "--waiting-served-ratio",
            "WAITING_SERVED_RATIO",
            KnobType::Number {
                min: 0.0,
                max: f64::MAX,
                open: (false, false),
            },
        )
        .tiered(&["0.3", "1.2"], "by version")
        .trades("Decodes are stopped for prompts less often. No effect where prompts are cut into chunks."),
        shown(
            "max_waiting_tokens",
            "--max-waiting-tokens",
            "MAX_WAITING_TOKENS",
            ZERO_UP,
        )
        .default("20")
        .trades("Prompts wait for more decodes before they are let in. No effect where prompts are cut into chunks."),
        shown(
            "max_client_batch_size",
            "--max-client-batch-size",
            "MAX_CLIENT_BATCH_SIZE",
            ONE_UP,
        )
        .default("4")
        .trades("A client may send more inputs in one request."),
        shown(
            "validation_workers",
            "--validation-workers",
            "VALIDATION_WORKERS",
            ONE_UP,
        )
        .default("2")
        .trades("More threads take prompts apart."),
        hidden(
            "max_batch_prefill_tokens",
            "--max-batch-prefill-tokens",
            "MAX_BATCH_PREFILL_TOKENS",
            ONE_UP,
        )
        .chosen("from the GPU's and the model's speed, else 4096, as memory allows")
        .trades("Prompts are computed in fewer steps; each stops decodes for longer, and takes memory."),
        hidden("max_batch_size", "--max-batch-size", "MAX_BATCH_SIZE", ONE_UP)
            .called(&["max_num_seqs", "max_running_requests"])
            .unset()
            .trades("More requests run at once. Meant for hardware that pads batches; it did not hold where prompts are cut into chunks."),
        hidden("cuda_graphs", "--cuda-graphs", "CUDA_GRAPHS", KnobType::Integers(','))
            .or(&["-c"])
            .default("1,2,4,8,16,32")
            .trades("Larger batches decode with graphs; capturing takes memory and time at the start."),
        hidden("speculate", "--speculate", "SPECULATE", ZERO_UP)
            .unset()
            .trades("More tokens are guessed in a step: gaps shrink where guesses are right and batches small."),
    ]
}

fn model() -> Vec<Knob> {
    vec![
        hidden(
            "quantize",
            "--quantize",
            "QUANTIZE",
            KnobType::Choice(&[
                "awq",
                "bitsandbytes",
                "bitsandbytes-fp4",
                "bitsandbytes-nf4",
                "compressed-tensors",
                "eetq",
                "exl2",
                "fp8",
                "gptq",
                "marlin",
            ]),
        )
        .called(&["quantization"])
        .chosen("the checkpoint's own")
        .changes_answers()
        .trades("Weights take less memory, which the KV cache gets; bitsandbytes and exl2 switch graphs off."),
        hidden(
            "kv_cache_dtype",
            "--kv-cache-dtype",
            "KV_CACHE_DTYPE",
            KnobType::Choice(&["fp8_e4m3fn", "fp8_e5m2"]),
        )
        .chosen("the model's own type")
        .changes_answers()
        .trades("The KV cache holds about twice as many tokens; answers may become others."),
        hidden(
            "dtype",
            "--dtype",
            "DTYPE",
            KnobType::Choice(&["float16", "bfloat16"]),
        )
        .chosen("the model's own type")
        .changes_answers(),
        hidden("num_shard", "--num-shard", "NUM_SHARD", ONE_UP)
            .called(&["tensor_parallel_size", "tp_size"])
            .chosen("all GPUs that it sees, where --sharded is on")
            .trades("A step takes less time and each GPU holds less of the weights; GPUs wait for each other in every layer."),
        hidden(
            "sharded",
            "--sharded",
            "SHARDED",
            KnobType::Switch(SwitchForm::Value),
        )
        .chosen("on where there are several GPUs"),
        hidden(
            "cuda_memory_fraction",
            "--cuda-memory-fraction",
            "CUDA_MEMORY_FRACTION",
            KnobType::SHARE,
        )
        .default("1")
        .trades("The KV cache grows; what else runs on the GPU may run out of memory."),
    ]
}
