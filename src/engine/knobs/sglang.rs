//! SGLang's knobs: 0.4.6 to 0.5.23. A few change while it runs, by `POST /set_internal_state`.

use super::{Knob, KnobType, SwitchForm};

/// Where SGLang shows its arguments.
pub(in crate::engine) const SERVER_INFO: &str = "/server_info";
/// The name before 0.5.6.
pub(in crate::engine) const OLD_SERVER_INFO: &str = "/get_server_info";
/// Where it shows what it chose.
pub(in crate::engine) const LOADS: &str = "/v1/loads";

const SWITCH: KnobType = KnobType::Switch(SwitchForm::OnOnly);
const ONE_UP: KnobType = KnobType::from(1);
const ZERO_UP: KnobType = KnobType::from(0);
const MINUS_ONE_UP: KnobType = KnobType::from(-1);
const TOKENS: KnobType = KnobType::from_with_units(1);
const POSITIVE: KnobType = KnobType::Number {
    min: 0.0,
    max: f64::MAX,
    open: (true, false),
};

/// The device memory that a default goes by.
const CHUNK_TIERS: &str = "by the GPU's memory: 2048 below 20 GB, 4096 below 60 or where unknown, 8192 below 160, else 16384";
const GRAPH_TIERS: &str = "by the GPU's memory and tensor parallelism: 8 below 20 GB, 32 to 160 below 60, 256 below 160, \
                           512 above or with 4 GPUs, at most --max-running-requests";

pub(in crate::engine) fn knobs() -> Vec<Knob> {
    [
        batching(),
        precision(),
        parallelism(),
        graphs(),
        speculation(),
        host_and_tiers(),
        sizes(),
    ]
    .concat()
}

/// A knob that the arguments show under its own name.
fn knob(name: &'static str, flag: &'static str, kind: KnobType) -> Knob {
    in_server_info(Knob::new(name, flag, kind))
}

fn in_server_info(knob: Knob) -> Knob {
    let pointer = format!("/{}", knob.name);
    knob.json(SERVER_INFO, pointer.clone())
        .json(OLD_SERVER_INFO, pointer)
}

fn batching() -> Vec<Knob> {
    vec![
        knob("mem_fraction_static", "--mem-fraction-static", KnobType::INNER_SHARE)
            .chosen("from the GPU's memory less what chunks, graphs and parallelism need")
            .trades("The KV cache grows; activations and graphs may run out of memory."),
        knob("max_queued_requests", "--max-queued-requests", ONE_UP)
            .since(0, 5, 2)
            .called(&["max_queue_size"])
            .unset()
            .trades("More requests may wait before others are refused; they wait longer."),
        // -1 takes prompts whole
        knob("chunked_prefill_size", "--chunked-prefill-size", MINUS_ONE_UP)
            .tiered(&["2048", "4096", "8192", "16384"], CHUNK_TIERS)
            .trades("Prompts are computed in fewer steps; each stops decodes for longer, and activations take memory."),
        knob("max_prefill_tokens", "--max-prefill-tokens", TOKENS)
            .default("16384")
            .trades("More prompts are computed in one step; decodes wait longer. At least the context length holds."),
        knob("prefill_max_requests", "--prefill-max-requests", ONE_UP)
            .since(0, 5, 10)
            .unset()
            .trades("More prompts are computed in one step; decodes wait longer."),
        knob("prefill_decode_interval", "--prefill-decode-interval", ZERO_UP)
            .since(0, 5, 20)
            .chosen("off but for some models")
            .trades("More decodes between prefills: tokens come evenly, prompts wait longer."),
        knob("enable_mixed_chunk", "--enable-mixed-chunk", SWITCH)
            .default("false")
            .trades("Chunks of prompts share steps with decodes: tokens come more evenly."),
        knob(
            "schedule_policy",
            "--schedule-policy",
            KnobType::Choice(&[
                "lpm",
                "random",
                "fcfs",
                "dfs-weight",
                "lof",
                "priority",
                "routing-key",
                "hrrn",
                "shortest-prefill-first",
            ]),
        )
        .default("fcfs")
        .trades("With `lpm` requests that share a prefix run together: more cache hits, more work for the host."),
        knob(
            "schedule_conservativeness",
            "--schedule-conservativeness",
            POSITIVE,
        )
        .default("1")
        .trades("More room is kept for output to come: fewer retractions, fewer that run at once."),
        knob("disable_radix_cache", "--disable-radix-cache", SWITCH)
            .default("false")
            .trades("Prompts that begin alike are computed again each time."),
        knob(
            "radix_eviction_policy",
            "--radix-eviction-policy",
            KnobType::Choice(&["lru", "lfu", "slru", "priority", "tlru"]),
        )
        .since(0, 5, 10)
        .default("lru")
        .trades("Another choice of which prefixes to forget first."),
    ]
}

fn precision() -> Vec<Knob> {
    vec![
        knob("kv_cache_dtype", "--kv-cache-dtype", KnobType::Text)
            .default("auto")
            .changes_answers()
            .trades("With 8 bits the KV cache holds about twice as many tokens; answers may become others."),
        knob("quantization", "--quantization", KnobType::Text)
            .chosen("the checkpoint's own")
            .changes_answers()
            .trades("Weights take less memory, which the KV cache gets, and are read faster in small batches."),
        knob(
            "dtype",
            "--dtype",
            KnobType::Choice(&["auto", "half", "float16", "bfloat16", "float", "float32"]),
        )
        .default("auto")
        .changes_answers(),
    ]
}

fn parallelism() -> Vec<Knob> {
    vec![
        knob("tp_size", "--tp-size", ONE_UP)
            .or(&["--tensor-parallel-size", "--tp"])
            .default("1")
            .trades("A step takes less time and each GPU holds less of the weights; GPUs wait for each other in every layer."),
        knob("pp_size", "--pp-size", ONE_UP)
            .or(&["--pipeline-parallel-size"])
            .since(0, 5, 2)
            .default("1")
            .trades("Larger models fit; each token passes more GPUs one after the other."),
        knob("dp_size", "--dp-size", ONE_UP)
            .or(&["--data-parallel-size", "--dp"])
            .default("1")
            .trades("That many copies serve; each takes its own GPUs."),
        knob("ep_size", "--ep-size", ONE_UP)
            .or(&["--expert-parallel-size", "--ep"])
            .default("1"),
        knob("attn_dp_size", "--attn-dp-size", ONE_UP)
            .since(0, 5, 23)
            .chosen("1, or what the deprecated --enable-dp-attention asks for")
            .trades("Each rank holds the KV cache of its own requests only: more of them fit."),
        // choices have changed with versions
        knob("load_balance_method", "--load-balance-method", KnobType::Text)
            .tiered(&["auto", "round_robin"], "by version")
            .trades("Another choice of which copy gets a request."),
        knob("pp_max_micro_batch_size", "--pp-max-micro-batch-size", ONE_UP)
            .since(0, 5, 10)
            .chosen("from --max-running-requests and --pp-size")
            .live()
            .trades("Each stage of the pipeline takes more requests at once."),
    ]
}

fn graphs() -> Vec<Knob> {
    const SIZES: &[&str] = &["8", "32", "48", "160", "256", "512"];
    const TRADE: &str =
        "Larger batches decode with graphs; each size more takes about 2 MB and time at the start.";
    vec![
        knob("cuda_graph_max_bs", "--cuda-graph-max-bs", ONE_UP)
            .until(0, 5, 16)
            .tiered(SIZES, GRAPH_TIERS)
            .trades(TRADE),
        knob("cuda_graph_max_bs_decode", "--cuda-graph-max-bs-decode", ONE_UP)
            .since(0, 5, 15)
            .tiered(SIZES, GRAPH_TIERS)
            .trades(TRADE),
        knob("disable_cuda_graph", "--disable-cuda-graph", SWITCH)
            .default("false")
            .trades("No graphs are captured: the start is faster and memory is saved, decodes are slower."),
        knob("enable_torch_compile", "--enable-torch-compile", SWITCH)
            .default("false")
            .trades("Small models in small batches decode faster; the start takes much longer."),
        knob("torch_compile_max_bs", "--torch-compile-max-bs", ONE_UP)
            .default("32")
            .trades("Larger batches are compiled; the start takes longer."),
        knob("disable_overlap_schedule", "--disable-overlap-schedule", SWITCH)
            .default("false")
            .trades("The host prepares a step only when the GPU is done: gaps between steps grow."),
        knob(
            "num_continuous_decode_steps",
            "--num-continuous-decode-steps",
            ONE_UP,
        )
        .default("1")
        .trades("The host schedules less often: more tokens a second, a later first token."),
        knob("stream_interval", "--stream-interval", ONE_UP)
            .default("1")
            .trades("The host sends less often, and clients get several tokens at a time."),
    ]
}

fn speculation() -> Vec<Knob> {
    let tuned = |name, flag| knob(name, flag, ONE_UP).chosen("by the model, where guessing is on");
    vec![
        knob("speculative_algorithm", "--speculative-algorithm", KnobType::Text)
            .unset()
            .trades("Tokens are guessed and checked in one step; guessing takes memory, and time where it is wrong."),
        tuned("speculative_num_steps", "--speculative-num-steps")
            .trades("Guesses reach further; those at the end are right less often."),
        tuned("speculative_eagle_topk", "--speculative-eagle-topk")
            .trades("More branches are guessed, and checked."),
        tuned("speculative_num_draft_tokens", "--speculative-num-draft-tokens")
            .trades("More tokens are guessed in a step: gaps shrink where guesses are right and batches small, else steps are wasted."),
        knob("speculative_adaptive", "--speculative-adaptive", SWITCH)
            .since(0, 5, 12)
            .default("false")
            .trades("The number of guesses follows how many are right."),
        knob(
            "speculative_accept_threshold_single",
            "--speculative-accept-threshold-single",
            KnobType::Number {
                min: 0.0,
                max: 1.0,
                open: (false, false),
            },
        )
        .default("1")
        .live()
        .changes_answers()
        .trades("Guesses are taken only when the model agrees more."),
    ]
}

fn host_and_tiers() -> Vec<Knob> {
    vec![
        knob("tokenizer_worker_num", "--tokenizer-worker-num", ONE_UP)
            .since(0, 5, 2)
            .default("1")
            .trades("More processes take prompts apart."),
        knob("decode_log_interval", "--decode-log-interval", ONE_UP)
            .default("40")
            .trades("Metrics are written less often."),
        knob(
            "enable_hierarchical_cache",
            "--enable-hierarchical-cache",
            SWITCH,
        )
        .or(&["--enable-hicache"])
        .default("false")
        .trades("Prefixes that leave the GPU stay in the host's memory, and are fetched back."),
        knob("hicache_ratio", "--hicache-ratio", POSITIVE)
            .default("2")
            .trades("The host keeps more of them, and gives more of its memory."),
        knob("hicache_size", "--hicache-size", ZERO_UP)
            .default("0")
            .trades(
                "The host keeps more of them, and gives that many gigabytes; 0 goes by the ratio.",
            ),
        knob(
            "hicache_write_policy",
            "--hicache-write-policy",
            KnobType::Choice(&["write_back", "write_through", "write_through_selective"]),
        )
        .tiered(&["write_through", "write_through_selective"], "by version")
        .trades("Another choice of when prefixes are copied to the host."),
        knob("attention_backend", "--attention-backend", KnobType::Text)
            .chosen("by the GPU and the model"),
        knob("max_loras_per_batch", "--max-loras-per-batch", ONE_UP)
            .default("8")
            .trades(
                "Requests of more adapters run in one batch; each takes memory from the KV cache.",
            ),
        knob(
            "swa_full_tokens_ratio",
            "--swa-full-tokens-ratio",
            KnobType::SHARE,
        )
        .since(0, 5, 2)
        .default("0.8")
        .trades("Layers with a window get more of the KV cache, the others less."),
    ]
}

fn sizes() -> Vec<Knob> {
    vec![
        // null among the arguments where it was left to the engine; the load endpoint tells what it chose
        in_server_info(
            Knob::new("max_running_requests", "--max-running-requests", ONE_UP)
                .json(LOADS, "/loads/0/max_running_requests"),
        )
        .called(&["max_batch_size", "max_num_seqs"])
        .chosen("from the size of the KV cache, at least 2048 and at most 4096")
        .trades("More requests run at once and fewer wait; each token takes longer, and a small KV cache retracts."),
        knob("max_total_num_tokens", "--max-total-tokens", ZERO_UP)
            .gauge("sglang:max_total_num_tokens")
            .derived(),
        knob("max_total_tokens", "--max-total-tokens", TOKENS)
            .chosen("from --mem-fraction-static")
            .trades("The KV cache holds that many tokens; more than fits does not start."),
        Knob::new("page_size", "--page-size", ONE_UP)
            .gauge("sglang:page_size")
            .chosen("1, or what the attention backend needs")
            .trades("Prefixes match more coarsely, and the last page wastes more."),
        Knob::new("context_length", "--context-length", TOKENS)
            .gauge("sglang:context_len")
            .chosen("the model's own length")
            .trades("Longer requests are accepted."),
    ]
}
