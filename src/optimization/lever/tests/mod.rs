//! What levers propose, and what none may do.

mod property;
mod table;

use crate::analysis::{Cause, Treatment};
use crate::engine::Quantity as Q;
use crate::measure::NoteCode;
use crate::optimization::{Expectation, KnobChange, ModelChange, Proposal};

use super::example::Case;

/// What was seen to guess, or may bound the KV cache, is taken away though nobody told its flags.
fn changes_something(change: &KnobChange) -> bool {
    let unseen = [
        "max_total_tokens",
        "max_batch_total_tokens",
        "max_batch_size",
    ]
    .contains(&change.name.as_str());
    change.from != change.to || unseen || change.name.contains("specul")
}

fn saturated() -> Case {
    Case::new("vllm", "0.33.0", &[Cause::SequenceCap])
        .set("max_num_seqs", "4")
        .set("max_num_batched_tokens", "2048")
        .measured()
        .gauge(Q::RequestsRunning, 4.0, 4.0)
        .gauge(Q::RequestsWaiting, 20.0, 24.0)
        .value("requests_finished_increase", 200.0)
}

#[test]
fn a_cap_is_raised_with_numbers_and_no_further_than_what_asks() {
    let families = saturated()
        .gauge(Q::KvCacheUsage, 0.05, 0.08)
        .of("sequence_cap");
    let family = &families[0];
    let to: Vec<_> = family
        .alternatives
        .iter()
        .map(|one| one.changes[0].to.clone().unwrap())
        .collect();
    assert_eq!(to, ["6", "8", "12", "16", "24", "32", "48"]);
    let guide = &family.alternatives[family.without_prediction];
    assert_eq!(guide.title, "Raise --max-num-seqs from 4 to 24");
    assert_eq!(
        guide.expectation,
        Expectation::Modelled(vec![ModelChange::MaxNumSeqs(24)])
    );
    assert_eq!(guide.kind, Treatment::Batching);
    assert!(
        guide
            .reason
            .contains("5.0 % full on average, 8.0 % at its peak"),
        "{}",
        guide.reason
    );
    assert_eq!(guide.undo, "Set --max-num-seqs back to 4, and restart.");
}

#[test]
fn a_cap_above_the_token_budget_takes_the_budget_with_it() {
    let case = Case::new("vllm", "0.33.0", &[Cause::SequenceCap])
        .set("max_num_seqs", "128")
        .set("max_num_batched_tokens", "256");
    let families = case.of("sequence_cap");
    let last = families[0].alternatives.last().unwrap();
    let flags: Vec<_> = last.changes.iter().map(|one| one.flag.as_str()).collect();
    assert_eq!(flags, ["--max-num-batched-tokens", "--max-num-seqs"]);
    assert_eq!(last.changes[0].to, last.changes[1].to);
}

#[test]
fn a_bigger_batch_never_goes_into_a_full_cache() {
    for full in [
        saturated().gauge(Q::KvCacheUsage, 0.6, 0.86),
        saturated().value("preemptions_increase", 5.0),
    ] {
        assert!(
            full.why_not("sequence_cap")
                .contains("would only be preempted")
        );
    }
    let budget = |case: Case| {
        case.set("max_num_batched_tokens", "512")
            .measured()
            .value("requests_finished_increase", 99.0)
    };
    let case = budget(Case::new("vllm", "0.33.0", &[Cause::TokenBudget]));
    assert_eq!(case.of("token_budget").len(), 1);
    let case =
        budget(Case::new("vllm", "0.33.0", &[Cause::TokenBudget])).gauge(Q::KvCacheUsage, 0.7, 0.9);
    assert!(case.why_not("token_budget").contains("90 % full"));
    let case = Case::new("vllm", "0.33.0", &[Cause::SequenceCap, Cause::KvCapacity])
        .set("max_num_seqs", "4");
    for family in case.of("sequence_cap") {
        let lower = |one: &Proposal| one.title.starts_with("Lower");
        assert!(family.alternatives.iter().all(lower), "{family:?}");
    }
}

#[test]
fn preemptions_lower_the_cap_below_what_ran() {
    let case = Case::new("vllm", "0.33.0", &[Cause::KvCapacity])
        .set("max_num_seqs", "256")
        .measured()
        .gauge(Q::RequestsRunning, 20.0, 24.0)
        .gauge(Q::KvCacheUsage, 0.9, 1.0)
        .value("preemptions_increase", 40.0)
        .value("requests_finished_increase", 100.0);
    for one in &case.of("sequence_cap")[0].alternatives {
        let Expectation::Modelled(changes) = &one.expectation else {
            panic!("{one:?}");
        };
        assert!(
            matches!(changes[..], [ModelChange::MaxNumSeqs(to)] if to < 24),
            "{changes:?}"
        );
    }
}

#[test]
fn nothing_is_tuned_on_an_idle_or_restarted_engine() {
    let few = Case::new("vllm", "0.33.0", &[Cause::SequenceCap])
        .set("max_num_seqs", "4")
        .measured()
        .value("requests_finished_increase", 3.0);
    for (case, why) in [
        (saturated().noted(NoteCode::Restarted), "restarted"),
        (saturated().noted(NoteCode::Idle), "idle"),
        (few, "only 3 requests"),
    ] {
        let (families, left_out) = case.families();
        assert_eq!(families, []);
        assert!(left_out[0].reason.contains(why), "{left_out:?}");
    }
    assert!(!saturated().families().0.is_empty());
}

#[test]
fn the_prefix_cache_is_left_where_it_cannot_help() {
    let off = |case: Case| case.set("enable_prefix_caching", "false");
    let hybrid =
        off(Case::new("vllm", "0.33.0", &[Cause::PrefixCacheOff])).set("block_size", "784");
    assert!(hybrid.why_not("prefix_cache").contains("784 tokens"));
    let short = off(Case::new("vllm", "0.33.0", &[Cause::PrefixCacheOff]))
        .set("block_size", "128")
        .measured()
        .mean(Q::PromptLength, 90.0)
        .value("requests_finished_increase", 100.0);
    assert!(
        short
            .why_not("prefix_cache")
            .contains("nothing can be shared")
    );
    let on =
        Case::new("vllm", "0.33.0", &[Cause::PrefixCacheOff]).set("enable_prefix_caching", "true");
    assert!(on.why_not("prefix_cache").contains("on already"));
    let tgi = Case::new("tgi", "3.3.6", &[Cause::PrefixCacheOff]);
    assert!(
        tgi.why_not("prefix_cache")
            .contains("paged attention has none")
    );
}

#[test]
fn what_changes_answers_comes_last_with_its_risk_and_check() {
    let case = Case::new("vllm", "0.33.0", &[Cause::KvCapacity])
        .set("kv_cache_dtype", "auto")
        .set("quantization", "")
        .set("gpu_memory_utilization", "0.9")
        .set("tensor_parallel_size", "1")
        .set("max_num_seqs", "64");
    let (families, _) = case.families();
    let changes: Vec<bool> = families
        .iter()
        .map(|one| one.alternatives[0].changes_answers)
        .collect();
    assert!(
        changes.is_sorted() && changes.iter().filter(|one| **one).count() == 2,
        "{changes:?}"
    );
    for one in families
        .iter()
        .flat_map(|one| &one.alternatives)
        .filter(|one| one.changes_answers)
    {
        assert!(
            one.risks
                .iter()
                .any(|risk| risk.contains("Answers may become others"))
        );
        assert!(
            one.prerequisites
                .iter()
                .any(|needed| needed.contains("quality check"))
        );
    }
}

#[test]
fn a_flag_that_the_version_lacks_is_not_proposed() {
    for (version, cause, lever, why) in [
        (
            "0.23.0",
            Cause::PrefillInterference,
            "prefill_pacing",
            "came with 0.24.0",
        ),
        (
            "none",
            Cause::PrefillInterference,
            "prefill_pacing",
            "version is not known",
        ),
        ("0.9.2", Cause::HostBound, "scheduling", "came with 0.10.0"),
        ("0.33.0", Cause::HostBound, "scheduling", "by itself"),
    ] {
        let case = Case::new("vllm", version, &[cause]);
        let (_, left_out) = case.families();
        let said = left_out
            .iter()
            .any(|one| one.lever == lever && one.reason.contains(why));
        assert!(said, "{version} {cause:?}: {left_out:?}");
    }
    let case = Case::new("sglang", "0.5.10", &[Cause::HeadOfLine]);
    assert!(case.why_not("long_prefill").contains("0.5.23"));
}

#[test]
fn an_unknown_setting_is_said_and_not_guessed() {
    let case = Case::new("vllm", "0.33.0", &[Cause::SequenceCap]);
    assert!(
        case.why_not("sequence_cap")
            .contains("--max-num-seqs in force is not known")
    );
    let case = Case::new("vllm", "0.33.0", &[Cause::KvCapacity]);
    assert!(
        case.why_not("kv_capacity")
            .contains("--gpu-memory-utilization in force is not known")
    );
    assert!(case.why_not("quantization").contains("not known"));
}

#[test]
fn a_share_of_memory_that_nobody_tells_is_set_to_the_usual_one() {
    for (engine, version, flag, to, away) in [
        (
            "tgi",
            "3.3.6",
            "--cuda-memory-fraction",
            "1",
            &["--max-batch-total-tokens", "--max-batch-size"][..],
        ),
        (
            "sglang",
            "0.5.23",
            "--mem-fraction-static",
            "0.9",
            &["--max-total-tokens"][..],
        ),
    ] {
        let case = Case::new(engine, version, &[Cause::KvCapacity]);
        let family = &case.of("kv_capacity")[0];
        let one = &family.alternatives[0];
        assert_eq!(
            (&*one.changes[0].flag, one.changes[0].to.as_deref()),
            (flag, Some(to))
        );
        let taken: Vec<&str> = one.changes[1..].iter().map(|one| &*one.flag).collect();
        assert_eq!(taken, away);
        assert!(
            one.changes.iter().all(|one| one.from.is_none()),
            "nothing in force is made up"
        );
        let Expectation::Assumed { unknown, .. } = &one.expectation else {
            panic!("{one:?}");
        };
        assert!(unknown.contains("is not known"), "{unknown}");
        assert!(
            one.title.contains("unless it is that already"),
            "{}",
            one.title
        );
        // what the engine chose by itself is left alone
        let name = family.alternatives[0].changes[0].name.clone();
        let chosen = Case::new(engine, version, &[Cause::KvCapacity]).set(&name, "");
        assert!(chosen.why_not("kv_capacity").contains("left to the engine"));
    }
}

#[test]
fn a_bound_on_the_cache_may_be_taken_away() {
    let case =
        Case::new("vllm", "0.33.0", &[Cause::KvCapacity]).set("num_gpu_blocks_override", "64");
    let families = case.of("kv_capacity");
    let last = families[0].alternatives.last().unwrap();
    assert_eq!(last.title, "Take --num-gpu-blocks-override away");
    assert!(matches!(last.expectation, Expectation::Assumed { .. }));
    // bytes are a part of the memory that somebody set aside
    let case = Case::new("vllm", "0.33.0", &[Cause::KvCapacity])
        .set("kv_cache_memory_bytes", "1073741824");
    let kept = |one: &Proposal| one.changes.iter().all(|change| change.to.is_some());
    assert!(case.of("kv_capacity")[0].alternatives.iter().all(kept));
}

#[test]
fn who_is_refused_is_refused_at_a_bound_though_nobody_tells_it() {
    let refused = |engine: &str, version: &str| {
        Case::new(engine, version, &[Cause::AdmissionLimit])
            .measured()
            .gauge(Q::RequestsRunning, 40.0, 60.0)
            .gauge(Q::RequestsWaiting, 1.0, 4.0)
            .value("requests_finished_increase", 500.0)
    };
    let least = |case: Case| {
        case.of("admission")[0].alternatives[0].changes[0]
            .to
            .clone()
    };
    assert_eq!(least(refused("vllm", "0.33.0")).as_deref(), Some("48"));
    // with those that run
    assert_eq!(least(refused("tgi", "3.3.6")).as_deref(), Some("96"));
    let unset = refused("vllm", "0.33.0").set("max_num_queued_reqs", "");
    assert!(unset.why_not("admission").contains("left to the engine"));
    let unseen = Case::new("vllm", "0.33.0", &[Cause::AdmissionLimit]);
    assert!(unseen.why_not("admission").contains("not known"));
}

#[test]
fn fewer_at_once_where_prompts_interrupt_and_nobody_waits() {
    let case = |waiting: f64, gap: f64| {
        Case::new("sglang", "0.5.23", &[Cause::PrefillInterference])
            .set("max_running_requests", "256")
            .measured()
            .gauge(Q::RequestsRunning, 30.0, 48.0)
            .gauge(Q::RequestsWaiting, waiting, waiting)
            .mean(Q::InterTokenLatency, gap)
            .value("requests_finished_increase", 500.0)
    };
    let families = case(0.0, 0.2).of("sequence_cap");
    assert!(
        families[0].alternatives[0]
            .title
            .starts_with("Lower --max-running-requests")
    );
    assert_eq!(case(5.0, 0.2).of("sequence_cap"), []);
    assert_eq!(case(0.0, 0.05).of("sequence_cap"), []);
}

#[test]
fn the_requests_limits_hold() {
    let case = || {
        let measured = saturated()
            .gauge(Q::KvCacheUsage, 0.9, 0.99)
            .set("kv_cache_dtype", "auto");
        let mut case = measured
            .set("gpu_memory_utilization", "0.9")
            .set("tensor_parallel_size", "1");
        case.findings = vec![super::example::finding(Cause::KvCapacity)];
        case
    };
    let lever = |case: &Case, name: &str| case.of(name).len();
    assert_eq!(
        (
            lever(&case(), "kv_dtype"),
            lever(&case(), "replicas"),
            lever(&case(), "parallelism")
        ),
        (1, 1, 1)
    );
    let no_restart = case().limited(|limits| limits.no_restart = true);
    let (families, _) = no_restart.families();
    assert!(
        families.iter().all(|one| one.lever == "replicas"),
        "{families:?}"
    );
    assert!(
        no_restart
            .why_not("kv_capacity")
            .contains("needs a restart")
    );
    let same = case().limited(|limits| limits.no_answer_change = true);
    assert!(
        same.why_not("kv_dtype")
            .contains("answers may become others")
    );
    let fixed = case().limited(|limits| limits.fixed_gpu_count = true);
    for name in ["replicas", "parallelism"] {
        assert!(fixed.why_not(name).contains("another number of GPUs"));
    }
}

#[test]
fn the_queue_is_bounded_by_littles_law() {
    let case = Case::new("vllm", "0.33.0", &[Cause::Capacity])
        .measured()
        .value("requests_finished_per_second", 20.0)
        .value("requests_finished_increase", 1_200.0);
    let family = &case.of("admission")[0];
    // 20 a second for 0.5 s
    let guide = &family.alternatives[family.without_prediction];
    assert_eq!(
        guide.expectation,
        Expectation::Modelled(vec![ModelChange::QueueBound(Some(10))])
    );
    let old = Case::new("vllm", "0.28.0", &[Cause::Capacity])
        .measured()
        .value("requests_finished_increase", 1_200.0);
    assert!(old.why_not("admission").contains("came with 0.29.0"));
}

#[test]
fn a_refusal_with_no_room_asks_for_replicas() {
    let case = Case::new("vllm", "0.33.0", &[Cause::AdmissionLimit])
        .set("max_num_queued_reqs", "8")
        .set("max_num_seqs", "32")
        .measured()
        .gauge(Q::RequestsRunning, 31.0, 32.0)
        .gauge(Q::RequestsWaiting, 8.0, 8.0)
        .value("requests_finished_increase", 100.0);
    // the batch is full, and the cache is not known to be
    assert_eq!(case.of("sequence_cap").len(), 1);
    let case = case.gauge(Q::KvCacheUsage, 0.97, 1.0);
    assert!(case.why_not("admission").contains("no room"));
    assert_eq!(
        case.of("replicas")[0].alternatives[0].replicas,
        Some((1, 2))
    );
}

#[test]
fn conservativeness_goes_by_retractions() {
    let case = |count: f64, usage: f64| {
        Case::new("sglang", "0.5.23", &[Cause::KvCapacity])
            .set("schedule_conservativeness", "1.0")
            .measured()
            .gauge(Q::KvCacheUsage, usage, usage)
            .gauge(Q::RequestsWaiting, 5.0, 9.0)
            .value("preemptions_increase", count)
            .value("requests_finished_increase", 100.0)
    };
    let titles = |case: Case| -> Vec<String> {
        case.of("conservativeness")[0]
            .alternatives
            .iter()
            .map(|one| one.title.clone())
            .collect()
    };
    assert!(
        titles(case(30.0, 0.99))
            .iter()
            .all(|title| title.starts_with("Raise"))
    );
    assert!(
        titles(case(0.0, 0.7))
            .iter()
            .all(|title| title.starts_with("Lower"))
    );
    assert!(
        case(0.0, 0.95)
            .why_not("conservativeness")
            .contains("95 % full")
    );
}
