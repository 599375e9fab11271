//! Pitfalls of real engines, one by one.

use super::*;
use crate::engine::{EngineProfile, Quantity, Registry};
use crate::exposition::{Mode, Options};

fn profile(name: &str) -> std::sync::Arc<EngineProfile> {
    Registry::builtin().get(name).unwrap().clone()
}

fn sample(engine: &str, body: &str) -> Sample {
    let options = Options {
        mode: Mode::Strict,
        ..Options::default()
    };
    let read = Sample::read(&profile(engine), body.as_bytes(), 100.0, &options);
    read.unwrap().0
}

fn view(engine: &str, bodies: &[&str]) -> View {
    let samples: Vec<Sample> = bodies
        .iter()
        .enumerate()
        .map(|(at, body)| {
            let mut sample = sample(engine, body);
            sample.at_unix_seconds += at as f64;
            sample.tick = at as u32;
            sample
        })
        .collect();
    View::over(&profile(engine), &samples, Knowledge::default())
}

fn instant(engine: &str, body: &str, quantity: Quantity) -> Option<f64> {
    let view = view(engine, &[body]);
    let track = view.gauges.get(&quantity)?;
    Some(track.values[0].1)
}

#[test]
fn data_parallel_engines_add_up_and_ratios_are_averaged() {
    let body = "# TYPE vllm:num_requests_running gauge\n\
                vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3\n\
                vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 5\n\
                # TYPE vllm:kv_cache_usage_perc gauge\n\
                vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.2\n\
                vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.6\n\
                # TYPE vllm:cache_config_info gauge\n\
                vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"100\"} 1\n\
                vllm:cache_config_info{block_size=\"16\",engine=\"1\",num_gpu_blocks=\"200\"} 1\n";
    assert_eq!(instant("vllm", body, Quantity::RequestsRunning), Some(8.0));
    assert_eq!(instant("vllm", body, Quantity::KvCacheUsage), Some(0.4));
    // block by block of its own engine: not 32 times 300
    assert_eq!(
        instant("vllm", body, Quantity::KvCapacityTokens),
        Some(4_800.0)
    );
}

#[test]
fn copies_of_a_gauge_by_process_are_not_added() {
    // vLLM 0.9.2 to 0.11.0 with several API servers: one series a process, one of them alive
    let body = "# TYPE vllm:kv_cache_usage_perc gauge\n\
                vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\",pid=\"11\"} 0\n\
                vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\",pid=\"12\"} 0.7\n";
    assert_eq!(instant("vllm", body, Quantity::KvCacheUsage), Some(0.7));
}

#[test]
fn ranks_that_repeat_each_other_count_once() {
    // --enable-metrics-for-all-schedulers, in an order that is not that of the ranks
    let body = "# TYPE sglang:num_running_reqs gauge\n\
                sglang:num_running_reqs{dp_rank=\"0\",pp_rank=\"0\",tp_rank=\"1\"} 4\n\
                sglang:num_running_reqs{dp_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\"} 4\n\
                sglang:num_running_reqs{dp_rank=\"0\",pp_rank=\"1\",tp_rank=\"0\"} 4\n";
    assert_eq!(
        instant("sglang", body, Quantity::RequestsRunning),
        Some(4.0)
    );
}

#[test]
fn ranks_of_dp_attention_are_all_counted() {
    // there `tp_rank` is global: the second data-parallel rank has no tp_rank 0
    let body = "# TYPE sglang:num_running_reqs gauge\n\
                sglang:num_running_reqs{dp_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\"} 4\n\
                sglang:num_running_reqs{dp_rank=\"1\",pp_rank=\"0\",tp_rank=\"1\"} 6\n";
    assert_eq!(
        instant("sglang", body, Quantity::RequestsRunning),
        Some(10.0)
    );
}

#[test]
fn shares_by_priority_are_not_added_to_their_total() {
    let body = "# TYPE sglang:num_queue_reqs gauge\n\
                sglang:num_queue_reqs{priority=\"\",tp_rank=\"0\"} 7\n\
                sglang:num_queue_reqs{priority=\"1\",tp_rank=\"0\"} 3\n\
                sglang:num_queue_reqs{priority=\"2\",tp_rank=\"0\"} 4\n\
                # TYPE sglang:num_requests_total counter\n\
                sglang:num_requests_total{is_streaming=\"true\",priority=\"1\"} 10\n\
                sglang:num_requests_total{is_streaming=\"false\",priority=\"2\"} 20\n";
    assert_eq!(
        instant("sglang", body, Quantity::RequestsWaiting),
        Some(7.0)
    );
    // counters have no total beside them: each request is in one series
    let finished = &view("sglang", &[body]).counters[&Quantity::RequestsFinished];
    assert_eq!(finished.total, 30.0);
}

#[test]
fn histograms_of_several_series_are_summed_bucket_by_bucket() {
    let series = |streaming: &str, fast: u32, all: u32| {
        format!(
            "sglang:time_to_first_token_seconds_bucket{{is_streaming=\"{streaming}\",le=\"0.1\"}} {fast}\n\
             sglang:time_to_first_token_seconds_bucket{{is_streaming=\"{streaming}\",le=\"+Inf\"}} {all}\n\
             sglang:time_to_first_token_seconds_sum{{is_streaming=\"{streaming}\"}} {all}\n\
             sglang:time_to_first_token_seconds_count{{is_streaming=\"{streaming}\"}} {all}\n"
        )
    };
    let head = "# TYPE sglang:time_to_first_token_seconds histogram\n";
    let both = format!("{head}{}{}", series("true", 2, 5), series("false", 1, 4));
    let increase = &view("sglang", &[&both]).distributions[&Quantity::TimeToFirstToken];
    assert_eq!((increase.count, increase.sum), (9.0, Some(9.0)));
    let buckets = increase.buckets.as_ref().unwrap();
    assert_eq!(buckets.counts, [3.0, 6.0]);

    // of different bounds the buckets mean nothing together, count and sum still do
    let other = series("false", 1, 4).replace("0.1", "0.2");
    let uneven = format!("{head}{}{other}", series("true", 2, 5));
    let increase = &view("sglang", &[&uneven]).distributions[&Quantity::TimeToFirstToken];
    assert_eq!((increase.count, increase.buckets.as_ref()), (9.0, None));
    let shorter = series("false", 1, 4)
        .lines()
        .skip(1)
        .collect::<Vec<_>>()
        .join("\n");
    let uneven = format!("{head}{}{shorter}\n", series("true", 2, 5));
    let increase = &view("sglang", &[&uneven]).distributions[&Quantity::TimeToFirstToken];
    assert_eq!((increase.count, increase.buckets.as_ref()), (9.0, None));
}

#[test]
fn values_that_cannot_be_are_absent_and_told() {
    let of = |value: &str| {
        format!(
            "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{engine=\"0\"}} {value}\n"
        )
    };
    for bad in ["-0.39", "42"] {
        let view = view("vllm", &[&of(bad)]);
        assert!(!view.gauges.contains_key(&Quantity::KvCacheUsage));
        let absence = view
            .absent
            .iter()
            .find(|absence| absence.quantity == Quantity::KvCacheUsage)
            .unwrap();
        assert!(absence.reason.contains(bad), "{}", absence.reason);
    }
    assert_eq!(instant("vllm", &of("NaN"), Quantity::KvCacheUsage), None);
    assert_eq!(instant("vllm", &of("1"), Quantity::KvCacheUsage), Some(1.0));
}

#[test]
fn the_type_decides_what_a_family_can_be() {
    // a counter of that name is another thing than the gauge that is meant
    let body = "# TYPE vllm:num_requests_running counter\nvllm:num_requests_running 3\n";
    assert_eq!(instant("vllm", body, Quantity::RequestsRunning), None);
    // without any TYPE the name must do
    let untyped = "vllm:num_requests_running 3\nvllm:generation_tokens_total 5\n";
    assert_eq!(
        instant("vllm", untyped, Quantity::RequestsRunning),
        Some(3.0)
    );
    let tokens = &view("vllm", &[untyped]).counters[&Quantity::GenerationTokens];
    assert_eq!(tokens.total, 5.0);
    // OpenMetrics declares counters without the suffix
    let open = "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total 5\nvllm:generation_tokens_created 7\n# EOF\n";
    let read = sample("vllm", open);
    assert_eq!(read.incarnation.created_unix_seconds, Some(7.0));
    assert_eq!(
        view("vllm", &[open]).counters[&Quantity::GenerationTokens].total,
        5.0
    );
}

#[test]
fn an_exposition_with_its_own_time_is_believed() {
    let at = |tokens: u32, millis: u64| {
        format!(
            "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total {tokens} {millis}\n"
        )
    };
    let (first, second) = (at(100, 1_700_000_000_000), at(200, 1_700_000_004_000));
    let read = [sample("vllm", &first), sample("vllm", &second)];
    assert_eq!(read[0].at_unix_seconds, 1_700_000_000.0);
    // a clock that is far off is not believed
    let absurd = at(100, 9_223_372_036_854_775_807);
    assert_eq!(sample("vllm", &absurd).at_unix_seconds, 100.0);
    let window = |samples: &[Sample]| View::over(&profile("vllm"), samples, Knowledge::default());
    let rise = window(&read).counters[&Quantity::GenerationTokens]
        .increase
        .unwrap();
    assert_eq!((rise.amount, rise.per_second), (100.0, 25.0));
    // standing still is not the same as nothing happening
    let still = window(&[read[0].clone(), read[0].clone()]);
    assert_eq!(still.dropped[0].cause, DropCause::NotAdvanced);
    assert_eq!(still.counters[&Quantity::GenerationTokens].increase, None);
}

#[test]
fn a_family_that_appears_in_mid_window_began_at_zero() {
    let idle = "# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n";
    let busy = "# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n\
                # TYPE tgi_request_success counter\ntgi_request_success 3\n\
                # TYPE tgi_request_duration histogram\n\
                tgi_request_duration_bucket{le=\"1\"} 3\ntgi_request_duration_bucket{le=\"+Inf\"} 3\n\
                tgi_request_duration_sum 1.5\ntgi_request_duration_count 3\n";
    let view = view("tgi", &[idle, busy, busy]);
    let succeeded = view.counters[&Quantity::RequestsSucceeded]
        .increase
        .unwrap();
    assert_eq!((succeeded.amount, succeeded.per_second), (3.0, 1.5));
    let duration = &view.distributions[&Quantity::EndToEndLatency];
    assert_eq!((duration.count, duration.sum), (3.0, Some(1.5)));
}

#[test]
fn a_lazy_family_is_zero_only_where_the_version_is_known_to_have_it() {
    let retractions = |body: &str| {
        view("sglang", &[body, body])
            .counters
            .get(&Quantity::Preemptions)
            .cloned()
    };
    // 0.4.10 has these families, and no retraction counter: absent
    let old = "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{tp_rank=\"0\"} 0\n";
    assert_eq!(retractions(old), None);
    // a family of 0.5.18 beside it proves that the counter is only unused
    let new = format!(
        "{old}# TYPE sglang:startup_time_seconds gauge\nsglang:startup_time_seconds{{phase=\"load\"}} 1\n"
    );
    let implied = retractions(&new).unwrap();
    assert_eq!((implied.total, implied.basis), (0.0, Basis::ImpliedZero));
}

#[test]
fn a_simulated_endpoint_says_so() {
    let body =
        "# TYPE perfagent_simulated gauge\nperfagent_simulated 1\nvllm:num_requests_running 1\n";
    assert!(sample("vllm", body).simulated);
    assert!(!sample("vllm", "vllm:num_requests_running 1\n").simulated);
}

#[test]
fn what_is_missing_or_no_number_is_never_zero() {
    let tokens = |value: &str| {
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n\
             # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total {value}\n"
        )
    };
    let of = |bodies: &[&str]| {
        view("vllm", bodies)
            .counters
            .get(&Quantity::GenerationTokens)
            .cloned()
    };
    for bad in ["NaN", "+Inf", "-5", "1e300"] {
        assert_eq!(of(&[&tokens(bad), &tokens(bad)]), None, "{bad}");
        // nor is what follows a rise from zero, or what precedes a restart
        let after = of(&[&tokens(bad), &tokens("3701")]).unwrap();
        assert_eq!(after.increase, None, "{bad}");
        let before = view("vllm", &[&tokens("5"), &tokens(bad)]);
        assert_eq!(before.dropped, [], "{bad}");
    }
    // declared as something else
    let gauge = tokens("100").replace(
        "generation_tokens_total counter",
        "generation_tokens_total gauge",
    );
    assert_eq!(of(&[&gauge, &gauge]), None);
    // V1 creates its series at the start: one that is missing was cut off
    let created = "# TYPE vllm:prompt_tokens_created gauge\nvllm:prompt_tokens_created 1.7e+09\n";
    let cut =
        format!("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n{created}");
    let whole = format!("{}{created}", tokens("3701"));
    assert_eq!(of(&[&cut, &whole]).unwrap().increase, None);
}

#[test]
fn buckets_that_contradict_the_count_give_no_quantile() {
    let body = |buckets: &str, count: u32| {
        format!(
            "# TYPE vllm:time_to_first_token_seconds histogram\n{buckets}\
             vllm:time_to_first_token_seconds_sum 5\nvllm:time_to_first_token_seconds_count {count}\n"
        )
    };
    let bucket = |le: &str, count: u32| {
        format!("vllm:time_to_first_token_seconds_bucket{{le=\"{le}\"}} {count}\n")
    };
    let told = |buckets: String, count| {
        let view = view("vllm", &[&body(&buckets, count)]);
        view.distributions[&Quantity::TimeToFirstToken]
            .buckets
            .is_some()
    };
    assert!(told(bucket("0.5", 8) + &bucket("+Inf", 10), 10));
    assert!(!told(bucket("0.5", 8) + &bucket("+Inf", 9), 1_000));
    assert!(!told(bucket("0.5", 9), 10));
    assert!(!told(bucket("-1", 9) + &bucket("+Inf", 10), 10));
}

#[test]
fn sglang_counts_the_first_token_and_older_pools_are_not_empty() {
    let body = "# TYPE sglang:realtime_tokens_total counter\n\
                sglang:realtime_tokens_total{mode=\"decode\",tp_rank=\"0\"} 780\n\
                # TYPE sglang:time_to_first_token_seconds histogram\n\
                sglang:time_to_first_token_seconds_bucket{le=\"+Inf\"} 27\n\
                sglang:time_to_first_token_seconds_sum 1\nsglang:time_to_first_token_seconds_count 27\n\
                # TYPE sglang:token_usage gauge\nsglang:token_usage{tp_rank=\"0\"} 0.93\n\
                # TYPE sglang:swa_token_usage gauge\nsglang:swa_token_usage{tp_rank=\"0\"} 0\n";
    let view = view("sglang", &[body]);
    assert_eq!(view.counters[&Quantity::GenerationTokens].total, 807.0);
    assert_eq!(view.gauges[&Quantity::KvCacheUsage].values, [(0, 0.93)]);
    assert_eq!(instant("sglang", body, Quantity::KvCacheUsage), Some(0.93));
}

#[test]
fn a_difference_that_fell_is_no_count() {
    let body = |finished: u32, aborted: u32| {
        format!(
            "# TYPE sglang:num_requests_total counter\nsglang:num_requests_total {finished}\n\
             # TYPE sglang:num_aborted_requests_total counter\nsglang:num_aborted_requests_total {aborted}\n"
        )
    };
    let view = view("sglang", &[&body(100, 7), &body(100, 66)]);
    assert_eq!(view.counters[&Quantity::RequestsSucceeded].increase, None);
    assert_eq!(view.dropped, []);
    let reason = view
        .absent
        .iter()
        .find(|absence| absence.quantity == Quantity::RequestsSucceeded);
    assert!(reason.unwrap().reason.contains("subtracted"));
}

#[test]
fn hostile_bodies_leave_no_more_than_one_mark_an_alias() {
    // families that take turns, and a value that is no number again and again
    let mut body = String::new();
    for _ in 0..500 {
        body += "# TYPE http_requests_total counter\nhttp_requests_total{status=\"2xx\"} 1\n\
                 # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total NaN\n";
    }
    let read = sample("vllm", &body);
    let aliases = profile("vllm").aliases.len();
    assert!(
        read.unreadable.len() <= aliases,
        "{}",
        read.unreadable.len()
    );
    assert!(
        read.families_of.len() <= aliases,
        "{}",
        read.families_of.len()
    );
}

#[test]
fn a_distribution_without_a_readable_count_is_not_zero() {
    for bad in ["NaN", "-3", "+Inf"] {
        let body = format!(
            "# TYPE vllm:time_to_first_token_seconds histogram\n\
             vllm:time_to_first_token_seconds_sum 5\nvllm:time_to_first_token_seconds_count {bad}\n"
        );
        let view = view("vllm", &[&body, &body]);
        assert!(
            !view.distributions.contains_key(&Quantity::TimeToFirstToken),
            "{bad}"
        );
        let absence = view
            .absent
            .iter()
            .find(|one| one.quantity == Quantity::TimeToFirstToken);
        assert!(absence.unwrap().reason.contains("cannot have"), "{bad}");
    }
}

#[test]
fn v0_is_doubted_only_where_it_preempted() {
    let body = |preemptions: u32| {
        format!(
            "# TYPE vllm:num_preemptions_total counter\nvllm:num_preemptions_total {preemptions}\n\
             # TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total 10\n"
        )
    };
    let basis = |bodies: &[&str]| view("vllm", bodies).counters[&Quantity::PromptTokens].basis;
    assert_eq!(basis(&[&body(0)]), Basis::Exact);
    assert_eq!(basis(&[&body(2)]), Basis::Approximate);
    assert_eq!(basis(&[&body(2), &body(2)]), Basis::Exact);
    assert_eq!(basis(&[&body(2), &body(3)]), Basis::Approximate);
}

#[test]
fn an_instance_says_why_it_has_no_rate() {
    let body =
        |tokens: u32| format!("# TYPE tgi_request_success counter\ntgi_request_success {tokens}\n");
    let steady = view("tgi", &[&body(5), &body(6)]);
    let restarted = view("tgi", &[&body(5), &body(1)]);
    let merged = View::merged(&[&steady, &restarted]);
    assert_eq!(merged.counters[&Quantity::RequestsSucceeded].increase, None);
    let told = merged
        .absent
        .iter()
        .any(|one| one.quantity == Quantity::RequestsSucceeded);
    assert!(told);
}
