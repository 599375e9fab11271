//! HOST_BOUND, GRAPH_CEILING: steps that take longer than they need to.

use crate::analysis::check::{
    Answer, found, percent, seconds, severity_of_gap, unclear, unknown_setting,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{Cause, Comparison, CostKind, Severity, Treatment};
use crate::analysis::queue::queue;
use crate::engine::Quantity as Q;

pub(super) fn check(facts: &Facts<'_>) -> Vec<Answer> {
    let Some(gap) = facts.gap_seconds() else {
        return Vec::new();
    };
    let target = facts.targets.itl_p99_seconds;
    // where steps are within what was promised and nobody waits, it costs nobody anything
    let felt = gap > target || queue(facts).is_some();
    let mut answers = host(facts, gap, felt);
    answers.extend(graphs(facts, gap, felt));
    answers
}

fn host(facts: &Facts<'_>, gap: f64, felt: bool) -> Vec<Answer> {
    let Some((share, source)) = host_share(facts) else {
        return vec![unclear(facts, Cause::HostBound, Q::ForwardSeconds)];
    };
    let threshold = facts.thresholds.host_share_ratio;
    let busy = facts
        .gauge(Q::RequestsRunning)
        .is_some_and(|running| running.mean >= 1.0);
    // a quarter of the promised gap is more than a step should take for the host alone
    if share < threshold || !busy || !(felt || gap * share > facts.targets.itl_p99_seconds / 4.0) {
        return Vec::new();
    }
    let description = format!(
        "the accelerator waits for the host {} of the time: of {} a token takes, {} are the host's",
        percent(share),
        seconds(gap),
        seconds(gap * share),
    );
    let evidence = facts
        .evidence()
        .derived("host_share_ratio", share, source)
        .against(Comparison::AtLeast, threshold, "host_share_ratio")
        .mean(Q::InterTokenLatency)
        .mean(Q::DecodeStepTime)
        .gauge_mean(Q::RequestsRunning)
        .done();
    let flag = match facts.engine() {
        "sglang" => {
            "drop --disable-overlap-schedule, raise --num-continuous-decode-steps or --stream-interval"
        }
        "vllm" => "--async-scheduling, a higher --stream-interval",
        _ => "a newer version",
    };
    found(Cause::HostBound, description, evidence)
        .severe(severity_of_gap(facts, gap).max(Severity::Medium))
        .sure(0.85)
        .costs(CostKind::ItlSeconds, gap * share)
        .treat(
            &format!("Give the engine faster and unshared CPU cores; {flag}."),
            &[Treatment::Scheduling, Treatment::Parallelism],
        )
        .answer()
}

/// Share of a step that is not the accelerator's, and where it is told.
fn host_share(facts: &Facts<'_>) -> Option<(f64, &'static str)> {
    if let Some((forward, whole)) = facts
        .mean(Q::DecodeStepTime)
        .zip(facts.mean(Q::DecodeStepTotalTime))
    {
        return (whole > 0.0).then(|| (1.0 - forward / whole, "1 - forward / whole decode step"));
    }
    let forward = facts.per_second(Q::ForwardSeconds)?;
    // where it is not told: with requests at each scrape it was hardly ever idle
    let always = facts
        .gauge(Q::RequestsRunning)
        .is_some_and(|running| running.min >= 1.0);
    let idle = facts
        .per_second(Q::SchedulerIdleSeconds)
        .or(always.then_some(0.0))?;
    let busy = 1.0 - idle;
    // hardly anything to do: shares of little are noise
    (busy > 0.05).then(|| (1.0 - (forward / busy).min(1.0), "1 - forward / (1 - idle)"))
}

fn graphs(facts: &Facts<'_>, gap: f64, felt: bool) -> Vec<Answer> {
    let Some(captured) = facts.value("graph_decode_pass_ratio") else {
        return vec![unclear(facts, Cause::GraphCeiling, Q::GraphDecodePasses)];
    };
    let eager = 1.0 - captured;
    if eager < facts.thresholds.eager_pass_ratio {
        return Vec::new();
    }
    let running = facts.gauge(Q::RequestsRunning);
    let off = facts
        .setting(&["disable_cuda_graph"])
        .is_some_and(|(_, value)| value == "true");
    let largest = facts.setting_number(&["cuda_graph_max_bs_decode"]);
    let beyond = running
        .zip(largest)
        .map(|(running, (_, largest))| running.max > largest);
    // none at all may be a switch as well
    if off || beyond == Some(false) || (captured == 0.0 && beyond.is_none()) {
        return match felt && !off && beyond.is_none() {
            true => vec![unknown_setting(
                Cause::GraphCeiling,
                "cuda_graph_max_bs_decode",
                "no decode pass ran from a captured graph, and the engine does not tell whether graphs are on",
                "let the agent read the settings, or declare the launch arguments",
            )],
            false => Vec::new(),
        };
    }
    let batch = running.map_or(0.0, |running| running.max);
    let description = format!(
        "{} of decode passes ran kernel by kernel: batches of up to {batch:.0} are beyond the captured graphs, and a token takes {}",
        percent(eager),
        seconds(gap),
    );
    let evidence = facts
        .evidence()
        .derived(
            "eager_decode_pass_ratio",
            eager,
            "eager / all decode passes",
        )
        .against(
            Comparison::AtLeast,
            facts.thresholds.eager_pass_ratio,
            "eager_pass_ratio",
        )
        .gauge_max(Q::RequestsRunning)
        .mean(Q::InterTokenLatency)
        .done();
    found(Cause::GraphCeiling, description, evidence)
        .severe(severity_of_gap(facts, gap).max(Severity::Medium))
        .sure(0.85)
        .costs(CostKind::ItlSeconds, (gap - facts.targets.itl_p99_seconds).max(0.0))
        .treat(
            "Raise --cuda-graph-max-bs-decode above the batch (2 MB of memory a request, lower --mem-fraction-static if it is short), or hold --max-running-requests to what is captured.",
            &[Treatment::Batching],
        )
        .answer()
}
