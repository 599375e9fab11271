//! What holds of launch arguments.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::engine::Registry;
use crate::optimization::strategies;

fn profile(engine: &str) -> Arc<EngineProfile> {
    Registry::builtin().get(engine).unwrap().clone()
}

fn settings(engine: &str, line: &str) -> Vec<(String, String)> {
    let arguments = LaunchArguments::parse_line(&profile(engine), line).unwrap();
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    arguments.settings().map(owned).collect()
}

/// Makes changes, `name value`, where no value takes the flag away.
fn changed(engine: &str, line: &str, changes: &[&str]) -> ChangedArguments {
    let profile = profile(engine);
    let changes: Vec<KnobChange> = changes
        .iter()
        .map(|change| {
            let (name, value) = change
                .split_once(' ')
                .map_or((*change, None), |(name, value)| (name, Some(value)));
            KnobChange {
                name: name.to_owned(),
                flag: profile.knob(name).unwrap().flag.to_string(),
                from: None,
                to: value.map(str::to_owned),
            }
        })
        .collect();
    let arguments = LaunchArguments::parse_line(&profile, line).unwrap();
    arguments.apply(&profile, &changes)
}

#[test]
fn arguments_are_read_as_the_engine_reads_them() {
    for (engine, line, expected) in [
        (
            "vllm",
            "vllm serve /models/x --max-num-seqs 4 --max_num_batched_tokens=2048 -tp 2 --api-key secret --port 8000",
            &[
                ("max_num_seqs", "4"),
                ("max_num_batched_tokens", "2048"),
                ("tensor_parallel_size", "2"),
            ][..],
        ),
        (
            "vllm",
            "--no-enable-prefix-caching --enforce-eager --enable-chunked-prefill False",
            &[
                ("enable_prefix_caching", "false"),
                ("enforce_eager", "true"),
                ("enable_chunked_prefill", "false"),
            ],
        ),
        (
            "vllm",
            r#"--speculative-config '{"method": "ngram", "num_speculative_tokens": 3}' --cuda-graph-sizes 1 2 4 x"#,
            &[
                ("num_speculative_tokens", "3"),
                ("speculative_method", "ngram"),
                ("cuda_graph_sizes", "1 2 4"),
            ],
        ),
        (
            "vllm",
            "--speculative-config.method ngram --max-num-seqs",
            &[("speculative_method", "ngram")],
        ),
        (
            "sglang",
            "python -m sglang.launch_server --tp 2 --chunked-prefill-size -1 --disable-radix-cache",
            &[
                ("tp_size", "2"),
                ("chunked_prefill_size", "-1"),
                ("disable_radix_cache", "true"),
            ],
        ),
        (
            "tgi",
            "MAX_BATCH_PREFILL_TOKENS=4096 text-generation-launcher --sharded true --cuda-graphs 1,2 --max-input-length 99",
            &[
                ("max_batch_prefill_tokens", "4096"),
                ("sharded", "true"),
                ("cuda_graphs", "1,2"),
                ("max_input_tokens", "99"),
            ],
        ),
        // what stands behind `--` is not for the parser
        ("vllm", "-- --max-num-seqs 4", &[]),
    ] {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(settings(engine, line), expected, "{line}");
    }
}

#[test]
fn values_are_changed_where_they_stand() {
    for (engine, line, changes, expected) in [
        (
            "vllm",
            "vllm serve m --max-num-seqs 4 --port 1",
            &["max_num_seqs 32"][..],
            "vllm serve m --max-num-seqs 32 --port 1",
        ),
        (
            "vllm",
            "--max_num_seqs=4",
            &["max_num_seqs 32"],
            "--max_num_seqs=32",
        ),
        (
            "vllm",
            "-tp 2 -dp 2",
            &["tensor_parallel_size 4", "data_parallel_size"],
            "-tp 4",
        ),
        (
            "vllm",
            "--max-num-seqs 4 --max-num-seqs 8",
            &["max_num_seqs 9"],
            "--max-num-seqs 9",
        ),
        (
            "vllm",
            "--no-enable-prefix-caching",
            &["enable_prefix_caching true"],
            "--enable-prefix-caching",
        ),
        (
            "vllm",
            "--enable-prefix-caching",
            &["enable_prefix_caching false"],
            "--no-enable-prefix-caching",
        ),
        (
            "vllm",
            "m",
            &["watermark 0.01", "async_scheduling false"],
            "m --watermark 0.01 --no-async-scheduling",
        ),
        (
            "vllm",
            "m -- x",
            &["max_num_seqs 4"],
            "m --max-num-seqs 4 -- x",
        ),
        (
            "vllm",
            "--cuda-graph-sizes 1 2 --port 1",
            &["cuda_graph_sizes 512"],
            "--cuda-graph-sizes 512 --port 1",
        ),
        (
            "sglang",
            "--disable-radix-cache --tp 2",
            &["disable_radix_cache false"],
            "--tp 2",
        ),
        (
            "sglang",
            "--tp 2",
            &["enable_mixed_chunk true"],
            "--tp 2 --enable-mixed-chunk",
        ),
        (
            "tgi",
            "MAX_BATCH_SIZE=4 launcher",
            &["max_batch_size 8"],
            "MAX_BATCH_SIZE=8 launcher",
        ),
        (
            "tgi",
            "launcher",
            &["sharded false", "cuda_graphs 1,2"],
            "launcher --sharded false --cuda-graphs 1,2",
        ),
        (
            "vllm",
            r#"--speculative-config '{"method":"ngram","prompt_lookup_max":4,"num_speculative_tokens":5}' --port 1"#,
            &["num_speculative_tokens 2"],
            r#"--speculative-config '{"method":"ngram","prompt_lookup_max":4,"num_speculative_tokens":2}' --port 1"#,
        ),
        (
            "vllm",
            r#"--speculative-config '{"method":"ngram","prompt_lookup_max":4,"num_speculative_tokens":5}' --port 1"#,
            &["num_speculative_tokens", "speculative_method"],
            "--port 1",
        ),
        (
            "vllm",
            "--speculative-config.method ngram",
            &["num_speculative_tokens 2"],
            "--speculative-config.method ngram --speculative-config.num_speculative_tokens 2",
        ),
        // a word that stands alone is not taken for the value of what then comes before it
        (
            "vllm",
            "--gpu-memory-utilization --max-num-seqs=0 ''",
            &["max_num_seqs", "gpu_memory_utilization"],
            "'' --gpu-memory-utilization",
        ),
        (
            "vllm",
            "--cuda-graph-sizes 1 2 --max-num-seqs 4 8 --port 1",
            &["max_num_seqs"],
            "8 --port 1 --cuda-graph-sizes 1 2",
        ),
        (
            "vllm",
            "--gpu-memory-utilization -- 1",
            &["max_num_seqs 4"],
            "--gpu-memory-utilization --max-num-seqs 4 -- 1",
        ),
        // nothing was declared
        (
            "vllm",
            "",
            &["speculative_method ngram", "num_speculative_tokens 2"],
            r#"--speculative-config '{"method":"ngram","num_speculative_tokens":2}'"#,
        ),
    ] {
        let changed = changed(engine, line, changes);
        assert_eq!(changed.arguments.line(), expected, "{line}");
        let left = changed
            .parts
            .iter()
            .filter(|part| part.change != ArgumentChange::Removed);
        let text: Vec<&str> = left.map(|part| part.text.as_str()).collect();
        assert_eq!(text.join(" "), expected);
    }
}

#[test]
fn changes_are_marked() {
    let changed = changed(
        "vllm",
        "m --max-num-seqs 4 --stream-interval 2",
        &["max_num_seqs 32", "stream_interval", "watermark 0.01"],
    );
    let parts: Vec<_> = changed
        .parts
        .iter()
        .map(|part| (part.text.as_str(), part.change.clone()))
        .collect();
    assert_eq!(
        parts,
        [
            ("m", ArgumentChange::Unchanged),
            (
                "--max-num-seqs 32",
                ArgumentChange::Changed {
                    from: "--max-num-seqs 4".to_owned()
                }
            ),
            ("--stream-interval 2", ArgumentChange::Removed),
            ("--watermark 0.01", ArgumentChange::Added),
        ]
    );
}

#[test]
fn flags_that_are_not_understood_are_named_without_their_values() {
    let arguments = LaunchArguments::parse_line(
        &profile("vllm"),
        "m --config x.yaml --api-key=secret --max-num-seqs 4",
    )
    .unwrap();
    assert_eq!(
        arguments.unknown_flags().collect::<Vec<_>>(),
        ["--config", "--api-key"]
    );
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(
        engine in prop::sample::select(vec!["vllm", "sglang", "tgi"]),
        words in prop::collection::vec(strategies::word(), 0..12),
    ) {
        let profile = profile(engine);
        let arguments = LaunchArguments::parse(&profile, &words);
        prop_assert_eq!(arguments.words().collect::<Vec<_>>(), words);
        prop_assert_eq!(LaunchArguments::parse_line(&profile, &arguments.line()), Ok(arguments));
    }

    #[test]
    fn changes_are_in_force_after_them(
        (engine, changes) in strategies::changes(),
        words in prop::collection::vec(strategies::word(), 0..8),
    ) {
        let profile = profile(engine);
        for before in [LaunchArguments::parse(&profile, &words), LaunchArguments::default()] {
            let after = before.apply(&profile, &changes).arguments;
            for change in &changes {
                let last = after.settings().filter(|(name, _)| *name == change.name).last();
                let knob = profile.knob(&change.name).unwrap();
                match &change.to {
                    None => prop_assert_eq!(last, None),
                    Some(to) if knob.kind == KnobType::Switch(SwitchForm::OnOnly) && to == "false" => {
                        prop_assert_eq!(last, None);
                    }
                    Some(to) => {
                        let value = last.and_then(|(_, value)| knob.check(value).ok());
                        prop_assert_eq!(value.as_ref(), Some(to));
                    }
                }
            }
        }
    }
}
