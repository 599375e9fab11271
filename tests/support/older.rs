//! A page of metrics of a new engine as an older version would have written it: names, labels and what is missing.
//!
//! Sources: the history of names in vLLM's and SGLang's own code, as the engine profiles have it, and recorded scrapes.
//! vLLM 0.8.5 and 0.10.1 are those of the V1 engine, whose scheduler is simulated.

use perfagent::engine::Version;

/// A family that came with a version; `prefix*` stands for all that begin so.
type Since = (&'static str, (u32, u32, u32));

const VLLM: &[Since] = &[
    ("vllm:num_requests_waiting_by_reason", (0, 20, 0)),
    ("vllm:engine_sleep_state", (0, 11, 1)),
    ("vllm:mm_cache_*", (0, 11, 1)),
    ("vllm:external_prefix_cache_*", (0, 11, 1)),
    ("vllm:prompt_tokens_by_source", (0, 16, 0)),
    ("vllm:prompt_tokens_cached", (0, 16, 0)),
    ("vllm:prompt_tokens_cached_by_source", (0, 32, 0)),
    ("vllm:admission_rejections", (0, 32, 0)),
    ("vllm:request_num_preemptions", (0, 30, 0)),
    ("vllm:request_prefill_kv_computed_tokens", (0, 13, 0)),
    ("vllm:request_time_per_output_token_seconds", (0, 11, 0)),
    ("vllm:inter_token_latency_seconds", (0, 10, 2)),
    ("vllm:kv_cache_usage_perc", (0, 9, 2)),
    ("vllm:prefix_cache_*", (0, 9, 2)),
    // of 0.8.5 only V0 was recorded, which has none of these
    ("http_*", (0, 9, 2)),
    ("process_*", (0, 9, 2)),
    ("python_*", (0, 9, 2)),
];

/// Old names: what they are called now, what they were called, and the last version that has them.
const VLLM_OLD: &[(&str, &str, (u32, u32, u32))] = &[
    (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        (0, 10, 2),
    ),
    (
        "vllm:prefix_cache_queries",
        "vllm:gpu_prefix_cache_queries",
        (0, 10, 2),
    ),
    (
        "vllm:prefix_cache_hits",
        "vllm:gpu_prefix_cache_hits",
        (0, 10, 2),
    ),
    (
        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        (0, 11, 2),
    ),
];

/// Labels of `vllm:cache_config_info` that every recorded version has.
const CACHE_LABELS: &[&str] = &[
    "block_size",
    "cache_dtype",
    "enable_prefix_caching",
    "engine",
    "gpu_memory_utilization",
    "is_attention_free",
    "num_cpu_blocks",
    "num_gpu_blocks",
    "num_gpu_blocks_override",
    "prefix_caching_hash_algo",
    "sliding_window",
];

const SGLANG: &[Since] = &[
    ("sglang:max_total_num_tokens", (0, 5, 6)),
    ("sglang:page_size", (0, 5, 11)),
    ("sglang:num_pages", (0, 5, 11)),
    ("sglang:context_len", (0, 5, 11)),
    ("sglang:num_grammar_queue_reqs", (0, 4, 7)),
    ("sglang:full_token_usage", (0, 5, 10)),
    ("sglang:swa_token_usage", (0, 5, 2)),
    ("sglang:mamba_usage", (0, 5, 5)),
    ("sglang:kv_used_tokens", (0, 5, 11)),
    ("sglang:spec_accept_rate", (0, 5, 4)),
    ("sglang:num_prefill_bootstrap_queue_reqs", (0, 5, 12)),
    ("sglang:num_decode_prealloc_queue_reqs", (0, 4, 7)),
    ("sglang:num_decode_transfer_queue_reqs", (0, 4, 7)),
    ("sglang:new_token_ratio", (0, 5, 6)),
    ("sglang:http_requests", (0, 5, 8)),
    ("sglang:http_responses", (0, 5, 8)),
    ("sglang:num_aborted_requests", (0, 4, 7)),
    ("sglang:prompt_tokens_histogram", (0, 4, 7)),
    ("sglang:uncached_prompt_tokens_histogram", (0, 5, 12)),
    ("sglang:generation_tokens_histogram", (0, 4, 7)),
    ("sglang:request_time_per_output_token_seconds", (0, 5, 22)),
    ("sglang:queue_time_seconds", (0, 5, 3)),
    ("sglang:per_stage_req_latency_seconds", (0, 5, 3)),
    ("sglang:prefill_effective_tokens", (0, 5, 18)),
    ("sglang:num_retracted_requests", (0, 5, 7)),
    ("sglang:scheduler_idle_seconds", (0, 5, 20)),
    ("sglang:cuda_graph_passes", (0, 5, 7)),
    ("sglang:realtime_tokens", (0, 5, 7)),
    ("sglang:forward_execution_seconds", (0, 5, 11)),
];

const SGLANG_OLD: &[(&str, &str, (u32, u32, u32))] = &[
    (
        "sglang:num_prefill_bootstrap_queue_reqs",
        "sglang:num_prefill_prealloc_queue_reqs",
        (0, 5, 11),
    ),
    (
        "sglang:forward_execution_seconds",
        "sglang:gpu_execution_seconds",
        (0, 5, 10),
    ),
];

/// The page of this version. TGI's names have not changed since 2.
pub(crate) fn as_version(engine: &str, version: Version, page: &str) -> String {
    let (since, renamed): (&[Since], &[_]) = match engine {
        "vllm" => (VLLM, VLLM_OLD),
        "sglang" => (SGLANG, SGLANG_OLD),
        _ => return page.to_owned(),
    };
    let then = Then::of(page, engine, version);
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        let Some((name, family)) = names_in(line) else {
            out += line;
            out.push('\n');
            continue;
        };
        let came = since
            .iter()
            .find(|(pattern, _)| matches(pattern, family))
            .is_none_or(|(_, (major, minor, patch))| {
                version >= Version::new(*major, *minor, *patch)
            });
        if came && let Some(line) = then.line(family, line) {
            out += &line;
            out.push('\n');
        }
        for (now, old, (major, minor, patch)) in renamed {
            let had = version <= Version::new(*major, *minor, *patch)
                // what was not there under any name
                && (*old != "sglang:num_prefill_prealloc_queue_reqs"
                    || version >= Version::new(0, 4, 7))
                && (*old != "sglang:gpu_execution_seconds" || version >= Version::new(0, 5, 7));
            if had
                && family == *now
                && let Some(line) =
                    then.line(family, &line.replacen(name, &name.replacen(now, old, 1), 1))
            {
                out += &line;
                out.push('\n');
            }
        }
    }
    out
}

/// The name of a series or a comment's family, and the family without what a type adds to it.
fn names_in(line: &str) -> Option<(&str, &str)> {
    let rest = line
        .strip_prefix("# HELP ")
        .or_else(|| line.strip_prefix("# TYPE "))
        .unwrap_or(line);
    let name = rest
        .split(['{', ' '])
        .next()
        .filter(|name| !name.is_empty())?;
    let mut family = name;
    for suffix in ["_bucket", "_sum", "_count", "_created", "_total"] {
        family = family.strip_suffix(suffix).unwrap_or(family);
    }
    Some((name, family))
}

fn matches(pattern: &str, family: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => family.starts_with(prefix),
        None => pattern == family,
    }
}

/// How a version wrote lines of a page.
struct Then {
    sglang: bool,
    version: Version,
    /// What the queue of vLLM held without those put off, which it did not count up to 0.19.
    waiting: Option<String>,
    /// vLLM counted its cache in blocks up to 0.8.
    block_size: f64,
}

impl Then {
    fn of(page: &str, engine: &str, version: Version) -> Self {
        let within = |line: &str, part: &str| {
            line.starts_with("vllm:num_requests_waiting_by_reason{") && line.contains(part)
        };
        let capacity = page
            .lines()
            .find(|line| within(line, "reason=\"capacity\""))
            .filter(|_| version < Version::new(0, 20, 0));
        let block_size = page
            .split(",block_size=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .filter(|_| version < Version::new(0, 9, 0));
        Self {
            sglang: engine == "sglang",
            version,
            waiting: capacity
                .and_then(|line| line.rsplit(' ').next())
                .map(str::to_owned),
            block_size: block_size.and_then(|size| size.parse().ok()).unwrap_or(1.0),
        }
    }

    /// The line with the labels and the value that it had then; none where the series was not there.
    fn line(&self, family: &str, line: &str) -> Option<String> {
        let version = self.version;
        if self.sglang {
            let unlabelled = family == "sglang:cached_tokens" && version < Version::new(0, 5, 10);
            return Some(match unlabelled {
                true => without_labels(line, |label| label != "cache_source"),
                false => line.to_owned(),
            });
        }
        if version < Version::new(0, 9, 2) && names_in(line)?.0.ends_with("_created") {
            return None;
        }
        let missing = [
            ("finished_reason=\"error\"", Version::new(0, 13, 0)),
            ("finished_reason=\"repetition\"", Version::new(0, 22, 0)),
        ];
        if missing
            .iter()
            .any(|(label, since)| version < *since && line.contains(label))
        {
            return None;
        }
        Some(match (family, line.rsplit_once(' ')) {
            ("vllm:cache_config_info", _) if version < Version::new(0, 32, 0) => {
                without_labels(line, |label| CACHE_LABELS.contains(&label))
            }
            ("vllm:num_requests_waiting", Some((series, _))) if !line.starts_with('#') => {
                match &self.waiting {
                    Some(waiting) => format!("{series} {waiting}"),
                    None => line.to_owned(),
                }
            }
            ("vllm:prefix_cache_queries" | "vllm:prefix_cache_hits", Some((series, value)))
                if !line.starts_with('#') =>
            {
                let tokens: f64 = value.parse().unwrap_or(f64::NAN);
                format!("{series} {:?}", (tokens / self.block_size).floor())
            }
            _ => line.to_owned(),
        })
    }
}

/// A series with those labels only. Values that hold a comma are not met here.
fn without_labels(line: &str, keep: impl Fn(&str) -> bool) -> String {
    let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) else {
        return line.to_owned();
    };
    let Some((labels, value)) = rest.rsplit_once('}') else {
        return line.to_owned();
    };
    let kept: Vec<&str> = labels
        .split(',')
        .filter(|label| label.split('=').next().is_some_and(&keep))
        .collect();
    match kept.is_empty() {
        true => format!("{name}{value}"),
        false => format!("{name}{{{}}}{value}", kept.join(",")),
    }
}

/// The page without the series of a family.
pub(crate) fn without(page: &str, family: &str) -> String {
    let family = names_in(family).map_or(family, |(_, family)| family);
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        if names_in(line).is_none_or(|(_, of)| of != family) {
            out += line;
            out.push('\n');
        }
    }
    out
}
