//! The flags of each engine, and what it has without them.

use serde_json::Value;

use crate::model::{Policy, Settings, Speculation};

use super::Flag;

const V: Policy = Policy::Vllm;
const S: Policy = Policy::Sglang;
const T: Policy = Policy::Tgi;

/// Every flag that is simulated. Those that others are counted in come first.
pub const FLAGS: &[Flag] = &[
    flag(
        V,
        "max-num-seqs",
        "N",
        "requests that run at once [256]",
        |settings, text| whole(text, &mut settings.max_num_seqs),
    ),
    flag(
        V,
        "max-num-batched-tokens",
        "N",
        "tokens of one step [2048]",
        |settings, text| whole(text, &mut settings.max_num_batched_tokens),
    ),
    flag(
        V,
        "block-size",
        "N",
        "tokens of a block of the KV cache [16]",
        |settings, text| whole(text, &mut settings.block_size),
    ),
    flag(
        V,
        "num-gpu-blocks-override",
        "N",
        "blocks of the KV cache, one of which is kept back [16385]",
        |settings, text| {
            whole(text, &mut settings.kv_blocks)?;
            settings.kv_blocks = settings.kv_blocks.saturating_sub(1);
            Ok(())
        },
    ),
    flag(
        V,
        "gpu-memory-utilization",
        "X",
        "share of the scenario's memory that it takes [0.92]",
        share,
    ),
    flag(
        V,
        "max-model-len",
        "N",
        "most tokens of prompt and output together [8192]",
        |settings, text| whole(text, &mut settings.max_model_len),
    ),
    flag(
        V,
        "long-prefill-token-threshold",
        "N",
        "most tokens of one prompt in a step; 0 for no bound",
        |settings, text| {
            let mut tokens = 0;
            whole(text, &mut tokens)?;
            settings.long_prefill_token_threshold = (tokens > 0).then_some(tokens);
            Ok(())
        },
    ),
    flag(
        V,
        "max-num-queued-reqs",
        "N",
        "requests that may wait; others are refused with 503",
        |settings, text| optional(text, &mut settings.max_num_queued_reqs),
    ),
    flag(
        V,
        "speculative-config",
        "JSON",
        "guesses tokens ahead: {\"num_speculative_tokens\": 4}",
        speculative_config,
    ),
    switch(
        V,
        "no-enable-prefix-caching",
        "computes every prompt anew",
        |settings, text| negated(text, &mut settings.prefix_caching),
    ),
    switch(
        V,
        "no-enable-chunked-prefill",
        "computes each prompt in one step",
        |settings, text| negated(text, &mut settings.chunked_prefill),
    ),
    switch(
        V,
        "no-scheduler-reserve-full-isl",
        "lets a request begin before its whole prompt has room",
        |settings, text| negated(text, &mut settings.reserve_full_prompt),
    ),
    flag(
        S,
        "max-running-requests",
        "N",
        "requests that run at once [2048]",
        |settings, text| whole(text, &mut settings.max_num_seqs),
    ),
    flag(
        S,
        "page-size",
        "N",
        "tokens of a page of the KV cache [1]",
        |settings, text| {
            let tokens = settings.kv_tokens();
            whole(text, &mut settings.block_size)?;
            settings.kv_blocks = blocks(tokens, settings.block_size);
            Ok(())
        },
    ),
    flag(
        S,
        "max-total-tokens",
        "N",
        "tokens of the KV cache [262144]",
        |settings, text| {
            let mut tokens = 0;
            whole(text, &mut tokens)?;
            settings.kv_blocks = blocks(tokens.into(), settings.block_size);
            Ok(())
        },
    ),
    flag(
        S,
        "mem-fraction-static",
        "X",
        "share of the scenario's memory that it takes [0.88]",
        share,
    ),
    flag(
        S,
        "context-length",
        "N",
        "most tokens of prompt and output together [8192]",
        |settings, text| whole(text, &mut settings.max_model_len),
    ),
    flag(
        S,
        "chunked-prefill-size",
        "N",
        "tokens of one prefill [8192]",
        |settings, text| whole(text, &mut settings.max_num_batched_tokens),
    ),
    flag(
        S,
        "schedule-conservativeness",
        "X",
        "how much room is set aside for outputs [1.0]",
        |settings, text| {
            settings.schedule_conservativeness =
                text.parse().map_err(|_| "a number is meant".to_owned())?;
            Ok(())
        },
    ),
    flag(
        S,
        "max-queued-requests",
        "N",
        "requests that may wait; others are refused with 503",
        |settings, text| optional(text, &mut settings.max_num_queued_reqs),
    ),
    switch(
        S,
        "disable-radix-cache",
        "computes every prompt anew",
        |settings, text| negated(text, &mut settings.prefix_caching),
    ),
    flag(
        T,
        "max-batch-prefill-tokens",
        "N",
        "tokens of one prefill [4096]",
        |settings, text| whole(text, &mut settings.max_num_batched_tokens),
    ),
    flag(
        T,
        "max-batch-total-tokens",
        "N",
        "tokens of the KV cache [65536]",
        |settings, text| {
            let mut tokens = 0;
            whole(text, &mut tokens)?;
            settings.kv_blocks = blocks(tokens.into(), settings.block_size);
            Ok(())
        },
    ),
    flag(
        T,
        "cuda-memory-fraction",
        "X",
        "share of the scenario's memory that it takes [1.0]",
        share,
    ),
    flag(
        T,
        "max-total-tokens",
        "N",
        "most tokens of prompt and output together [4096]",
        |settings, text| whole(text, &mut settings.max_model_len),
    ),
    flag(
        T,
        "max-batch-size",
        "N",
        "requests that run at once [1024]",
        |settings, text| whole(text, &mut settings.max_num_seqs),
    ),
    flag(
        T,
        "max-concurrent-requests",
        "N",
        "requests inside, waiting or running; others are refused with 429 [128]",
        |settings, text| optional(text, &mut settings.max_num_queued_reqs),
    ),
];

const fn flag(
    engine: Policy,
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        name,
        engine,
        value: Some(value),
        help,
        set,
    }
}

const fn switch(
    engine: Policy,
    name: &'static str,
    help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> Flag {
    Flag {
        name,
        engine,
        value: None,
        help,
        set,
    }
}

fn whole(text: &str, into: &mut u32) -> Result<(), String> {
    *into = text
        .parse()
        .map_err(|_| "a whole number is meant".to_owned())?;
    Ok(())
}

fn optional(text: &str, into: &mut Option<u32>) -> Result<(), String> {
    let mut number = 0;
    whole(text, &mut number)?;
    *into = Some(number);
    Ok(())
}

/// What it means is counted from the memory, which a deployment has.
fn share(_: &mut Settings, text: &str) -> Result<(), String> {
    let sound = text
        .parse::<f64>()
        .is_ok_and(|share| share > 0.0 && share <= 1.0);
    sound
        .then_some(())
        .ok_or_else(|| "a share above 0 and up to 1 is meant".to_owned())
}

fn negated(text: &str, into: &mut bool) -> Result<(), String> {
    let on: bool = text
        .parse()
        .map_err(|_| "true or false is meant".to_owned())?;
    *into = !on;
    Ok(())
}

fn blocks(tokens: u64, block_size: u32) -> u32 {
    u32::try_from(tokens / u64::from(block_size.max(1))).unwrap_or(u32::MAX)
}

fn speculative_config(settings: &mut Settings, text: &str) -> Result<(), String> {
    let config: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let tokens = config.get("num_speculative_tokens").and_then(Value::as_u64);
    let tokens = tokens
        .and_then(|tokens| u32::try_from(tokens).ok())
        .filter(|tokens| (1..=64).contains(tokens));
    let tokens = tokens.ok_or("num_speculative_tokens is a number from 1 to 64")?;
    settings.speculation = Some(Speculation {
        tokens,
        acceptance_ratio: 0.7,
    });
    Ok(())
}

/// Settings that an engine has without flags.
pub(super) fn defaults(engine: Policy) -> Settings {
    let vllm = Settings::default();
    match engine {
        Policy::Vllm => vllm,
        Policy::Sglang => Settings {
            policy: Policy::Sglang,
            max_num_seqs: 2_048,
            max_num_batched_tokens: 8_192,
            kv_blocks: 262_144,
            block_size: 1,
            ..vllm
        },
        Policy::Tgi => Settings {
            policy: Policy::Tgi,
            max_num_seqs: 1_024,
            max_num_batched_tokens: 4_096,
            kv_blocks: 65_536,
            block_size: 1,
            max_model_len: 4_096,
            max_num_queued_reqs: Some(128),
            ..vllm
        },
    }
}
