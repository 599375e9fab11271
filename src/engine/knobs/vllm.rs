//! vLLM's knobs: 0.8 to 0.33. None of them changes while it runs.

use super::{Knob, KnobType, SwitchForm};

/// Where vLLM shows its configuration, in development mode only.
pub(in crate::engine) const SERVER_INFO: &str = "/server_info?config_format=json";
/// Where it shows the model's length.
pub(in crate::engine) const MODELS: &str = "/v1/models";

const SWITCH: KnobType = KnobType::Switch(SwitchForm::OnOff);
const ONE_UP: KnobType = KnobType::from(1);
const ZERO_UP: KnobType = KnobType::from(0);
const GIGABYTES: KnobType = KnobType::Number {
    min: 0.0,
    max: f64::MAX,
    open: (false, false),
};

pub(in crate::engine) fn knobs() -> Vec<Knob> {
    [
        batching(),
        model(),
        parallelism(),
        speculation(),
        memory(),
        graphs_and_adapters(),
    ]
    .concat()
}

/// A knob that a section of the configuration shows under its own name.
fn shown(section: &str, name: &'static str, flag: &'static str, kind: KnobType) -> Knob {
    Knob::new(name, flag, kind).json(SERVER_INFO, format!("/vllm_config/{section}/{name}"))
}

fn batching() -> Vec<Knob> {
    let knob = |name, flag, kind| shown("scheduler_config", name, flag, kind);
    vec![
        knob("max_num_seqs", "--max-num-seqs", ONE_UP)
            .called(&["max_batch_size", "max_running_requests"])
            .tiered(&["256", "1024"], "by engine: 256 in V0, 1024 in V1")
            .tiered_since(
                (0, 8, 5),
                &["256", "1024"],
                "by the GPU: 1024 from 70 GiB on except A100, else 256; 128 for each worker on CPU",
            )
            .trades("More requests run at once and fewer wait; each token takes longer, and a small KV cache preempts."),
        knob("max_num_active_seqs", "--max-num-active-seqs", ONE_UP)
            .since(0, 31, 0)
            .unset()
            .trades("More requests run at once, up to --max-num-seqs, which buffers and graphs are sized for."),
        knob(
            "max_num_batched_tokens",
            "--max-num-batched-tokens",
            KnobType::from_with_units(1),
        )
        .tiered(
            &["2048", "8192"],
            "by the GPU: 8192 from 70 GiB on except A100, else 2048; 2048 for each worker on CPU",
        )
        .tiered_since(
            (0, 28, 0),
            &["2048", "8192", "16384"],
            "by the GPU: 16384 from 160 GiB on, 8192 from 70 GiB on except A100, else 2048; 2048 for each worker on CPU",
        )
        .trades("Prompts are computed in fewer steps; steps that mix them with decodes take longer, and activations take memory from the KV cache."),
        knob("enable_chunked_prefill", "--enable-chunked-prefill", SWITCH)
            .printed(SERVER_INFO, "/vllm_config", "chunked_prefill_enabled")
            .tiered(&["true", "false"], "on in V1 where the model supports it")
            .trades("Long prompts are cut into steps and stop the others for a shorter time."),
        knob(
            "long_prefill_token_threshold",
            "--long-prefill-token-threshold",
            ZERO_UP,
        )
        .default("0")
        .trades("A long prompt takes more of a step: it is done sooner, and short ones wait longer. 0 sets no bound."),
        knob(
            "prefill_schedule_interval",
            "--prefill-schedule-interval",
            ONE_UP,
        )
        .since(0, 24, 0)
        .default("1")
        .trades("Ranks of a data-parallel deployment begin prompts together and decode undisturbed in between; prompts wait longer."),
        knob(
            "scheduler_reserve_full_isl",
            "--scheduler-reserve-full-isl",
            SWITCH,
        )
        .since(0, 19, 0)
        .default("true")
        .trades("A request begins only when its whole prompt fits: fewer preemptions, later begins."),
        knob(
            "watermark",
            "--watermark",
            KnobType::Number {
                min: 0.0,
                max: 1.0,
                open: (false, true),
            },
        )
        .since(0, 24, 0)
        .default("0")
        .trades("More of the KV cache stays free when requests begin: fewer preemptions, fewer that run at once."),
        knob("policy", "--scheduling-policy", KnobType::Choice(&["fcfs", "priority"]))
            .default("fcfs")
            .trades("With `priority` what clients rank first begins first; clients must send a priority."),
        knob("async_scheduling", "--async-scheduling", SWITCH)
            .since(0, 10, 0)
            .default("false")
            .chosen_since((0, 14, 0), "on where the rest of the configuration allows it")
            .trades("The host prepares the next step while the GPU computes: gaps between steps vanish."),
        knob("stream_interval", "--stream-interval", ONE_UP)
            .since(0, 11, 1)
            .default("1")
            .trades("The host sends less often, and clients get several tokens at a time."),
        knob("max_num_queued_reqs", "--max-num-queued-reqs", ZERO_UP)
            .since(0, 29, 0)
            .called(&["max_queue_size"])
            .unset()
            .trades("More requests may be inside before others are refused with 503; they wait longer."),
        knob(
            "max_num_queued_tokens",
            "--max-num-queued-tokens",
            KnobType::from_with_units(0),
        )
        .since(0, 29, 0)
        .unset()
        .trades("More prompt tokens may wait before requests are refused with 503; they wait longer."),
        Knob::new(
            "performance_mode",
            "--performance-mode",
            KnobType::Choice(&["balanced", "interactivity", "throughput"]),
        )
        .json(SERVER_INFO, "/vllm_config/performance_mode")
        .since(0, 17, 0)
        .default("balanced")
        .trades("`throughput` doubles the defaults of --max-num-seqs and --max-num-batched-tokens."),
    ]
}

fn model() -> Vec<Knob> {
    let knob = |name, flag, kind| shown("model_config", name, flag, kind);
    vec![
        // -1 and `auto` are for the engine to choose; what is in force is a length
        knob("max_model_len", "--max-model-len", KnobType::from_with_units(1))
            .printed(SERVER_INFO, "/vllm_config", "max_seq_len")
            .json(MODELS, "/data/0/max_model_len")
            .chosen("the model's own length")
            .trades("Longer requests are accepted; one of them may take that much of the KV cache."),
        knob("enforce_eager", "--enforce-eager", SWITCH)
            .printed(SERVER_INFO, "/vllm_config", "enforce_eager")
            .default("false")
            .trades("No graphs are captured: the start is faster and memory is saved, decodes are slower."),
        knob(
            "dtype",
            "--dtype",
            KnobType::Choice(&["auto", "half", "float16", "bfloat16", "float", "float32"]),
        )
        .printed(SERVER_INFO, "/vllm_config", "dtype")
        .default("auto")
        .changes_answers(),
        knob("quantization", "--quantization", KnobType::Text)
            .or(&["-q"])
            .printed(SERVER_INFO, "/vllm_config", "quantization")
            .chosen("the checkpoint's own")
            .changes_answers()
            .trades("Weights take less memory, which the KV cache gets, and are read faster in small batches."),
    ]
}

fn parallelism() -> Vec<Knob> {
    let knob = |name, flag, short| {
        shown("parallel_config", name, flag, ONE_UP)
            .printed(SERVER_INFO, "/vllm_config", name)
            .or(short)
            .default("1")
    };
    vec![
        knob("tensor_parallel_size", "--tensor-parallel-size", &["-tp"])
            .trades("A step takes less time and each GPU holds less of the weights; GPUs wait for each other in every layer."),
        knob("pipeline_parallel_size", "--pipeline-parallel-size", &["-pp"])
            .trades("Larger models fit; each token passes more GPUs one after the other."),
        knob("data_parallel_size", "--data-parallel-size", &["-dp"])
            .trades("That many copies serve; each takes its own GPUs."),
        Knob::new("api_server_count", "--api-server-count", ZERO_UP)
            .or(&["-asc"])
            .since(0, 9, 1)
            .default("1")
            .chosen_since((0, 16, 0), "as many as --data-parallel-size")
            .trades("More processes take requests apart and send tokens; the multimodal cache between processes is off."),
    ]
}

/// Keys of one flag.
fn speculation() -> Vec<Knob> {
    vec![
        shown(
            "speculative_config",
            "num_speculative_tokens",
            "--speculative-config",
            ONE_UP,
        )
        .key("num_speculative_tokens")
        .unset()
        .trades("More tokens are guessed in a step: gaps shrink where guesses are right and batches small, else steps are wasted."),
        Knob::new("speculative_method", "--speculative-config", KnobType::Text)
            .json(SERVER_INFO, "/vllm_config/speculative_config/method")
            .key("method")
            .unset()
            .trades("Tokens are guessed and checked in one step; guessing takes memory, and time where it is wrong."),
    ]
}

fn memory() -> Vec<Knob> {
    let knob = |name: &'static str, flag, kind| Knob::new(name, flag, kind).label(name);
    vec![
        knob("block_size", "--block-size", ONE_UP)
            .chosen("by the attention backend: mostly 16, far more for hybrid models")
            .trades("Fewer and larger blocks: prefixes match more coarsely, and the last block wastes more."),
        knob("num_gpu_blocks", "--num-gpu-blocks-override", ZERO_UP).derived(),
        knob("num_gpu_blocks_override", "--num-gpu-blocks-override", ONE_UP).unset(),
        knob(
            "gpu_memory_utilization",
            "--gpu-memory-utilization",
            KnobType::SHARE,
        )
        .default("0.9")
        .default_since((0, 20, 0), "0.92")
        .trades("The KV cache grows; what else runs on the GPU may run out of memory."),
        knob(
            "kv_cache_memory_bytes",
            "--kv-cache-memory-bytes",
            KnobType::from_with_units(1),
        )
        .or(&["--kv-cache-memory"])
        .since(0, 10, 2)
        .unset()
        .trades("The KV cache gets exactly that much, and --gpu-memory-utilization has no effect; too much does not start."),
        Knob::new("kv_cache_dtype", "--kv-cache-dtype", KnobType::Text)
            .label("cache_dtype")
            .default("auto")
            .changes_answers()
            .trades("With 8 bits the KV cache holds about twice as many tokens; answers may become others."),
        knob("enable_prefix_caching", "--enable-prefix-caching", SWITCH)
            .tiered(&["true", "false"], "on in V1 where the model supports it, off in V0")
            .trades("Prompts that begin alike are computed once."),
        knob("cpu_offload_gb", "--cpu-offload-gb", GIGABYTES)
            .default("0")
            .trades("Weights in the host's memory make room on the GPU; every step fetches them."),
        knob("kv_offloading_size", "--kv-offloading-size", GIGABYTES)
            .since(0, 12, 0)
            .unset()
            .trades("Prefixes that leave the GPU stay in the host's memory, and are fetched back."),
        knob("swap_space", "--swap-space", GIGABYTES)
            .until(0, 18, 0)
            .default("4"),
        knob("sliding_window", "", ZERO_UP).derived(),
    ]
}

fn graphs_and_adapters() -> Vec<Knob> {
    vec![
        // a list; with one number all sizes up to it are captured
        Knob::new(
            "cuda_graph_sizes",
            "--cuda-graph-sizes",
            KnobType::Integers(' '),
        )
        .since(0, 9, 0)
        .until(0, 11, 1)
        .chosen("up to 512, or twice --max-num-seqs where that is less")
        .trades("Larger batches decode with graphs; capturing takes memory and time at the start."),
        shown(
            "compilation_config",
            "max_cudagraph_capture_size",
            "--max-cudagraph-capture-size",
            ZERO_UP,
        )
        .since(0, 11, 1)
        .chosen("up to 512, 1024 on data-centre Blackwell, bounded by what a batch can be")
        .trades("Larger batches decode with graphs; capturing takes memory and time at the start."),
        shown("lora_config", "max_loras", "--max-loras", ONE_UP)
            .default("1")
            .trades(
                "Requests of more adapters run in one batch; each takes memory from the KV cache.",
            ),
        shown("lora_config", "max_lora_rank", "--max-lora-rank", ONE_UP)
            .default("16")
            .trades("Adapters of a higher rank load; all take the memory of that rank."),
    ]
}
