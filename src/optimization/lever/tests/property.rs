//! What holds of whatever is found, measured and set.

use proptest::prelude::*;

use crate::analysis::Cause;
use crate::engine::Quantity as Q;
use crate::optimization::lever::example::Case;
use crate::optimization::lever::grid;

use super::changes_something;

proptest! {
    #[test]
    fn no_situation_breaks_the_rules(
        engine in prop::sample::select(vec!["vllm", "sglang", "tgi"]),
        version in prop::sample::select(vec!["0.8.5", "0.33.0", "0.5.23", "3.3.6", "?"]),
        causes in prop::sample::subsequence(Cause::ALL.to_vec(), 0..6),
        numbers in prop::collection::vec((0usize..12, -1.0f64..1e7), 0..8),
        usage in 0.0f64..1.2, running in 0.0f64..5e3, waiting in 0.0f64..5e3, count in 0.0f64..1e4,
        measured: bool, no_restart: bool, no_answer_change: bool, fixed_gpu_count: bool,
    ) {
        const NAMES: [&str; 12] = [
            "max_num_seqs", "max_num_batched_tokens", "max_running_requests", "chunked_prefill_size", "max_batch_size",
            "gpu_memory_utilization", "mem_fraction_static", "num_gpu_blocks_override", "kv_cache_memory_bytes",
            "max_num_queued_reqs", "num_speculative_tokens", "schedule_conservativeness",
        ];
        let mut case = Case::new(engine, version, &causes);
        for (at, value) in numbers {
            let value = if at % 3 == 0 { value.round() } else { value / 1e7 };
            case = case.set(NAMES[at], &value.to_string());
        }
        if measured {
            case = case.measured()
                .gauge(Q::KvCacheUsage, usage, usage)
                .gauge(Q::RequestsRunning, running, running * 1.2)
                .gauge(Q::RequestsWaiting, waiting, waiting)
                .value("requests_finished_increase", count)
                .value("requests_finished_per_second", count / 60.0);
        }
        case.limits.no_restart = no_restart;
        case.limits.no_answer_change = no_answer_change;
        case.limits.fixed_gpu_count = fixed_gpu_count;
        let (families, _) = case.families();
        for family in &families {
            prop_assert!(family.without_prediction < family.alternatives.len());
            prop_assert!(family.alternatives.len() <= grid::MOST);
            for one in &family.alternatives {
                prop_assert!(!(no_restart && one.needs_restart));
                prop_assert!(!(no_answer_change && one.changes_answers));
                prop_assert!(!(fixed_gpu_count && one.replicas.is_some()));
                prop_assert!(!one.title.is_empty() && !one.treats.is_empty());
                prop_assert!(one.treats.iter().all(|cause| causes.contains(cause)));
                for change in &one.changes {
                    prop_assert!(changes_something(change), "{}", one.title);
                }
                if measured && usage >= case.thresholds.kv_full_ratio {
                    prop_assert!(!one.title.starts_with("Raise --max-num-seqs"), "{}", one.title);
                    prop_assert!(!one.title.starts_with("Raise --max-running-requests"), "{}", one.title);
                }
            }
        }
    }
}
