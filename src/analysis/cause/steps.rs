//! HOST_BOUND, GRAPH_CEILING, BATCH_TOO_LARGE: steps that take longer than they need to.

use crate::analysis::check::{
    Answer, by_count, found, percent, seconds, severity_of_gap, unclear, unknown_setting,
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
        let slow = gap > facts.targets.itl_p99_seconds;
        return match slow {
            true => vec![unclear(facts, Cause::HostBound, Q::ForwardSeconds)],
            false => Vec::new(),
        };
    };
    let threshold = facts.thresholds.host_share_ratio;
    let busy = facts
        .gauge(Q::RequestsRunning)
        .is_some_and(|running| running.mean >= 1.0);
    // half of the promised gap is what a step should not take for the host alone
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
    let lost = facts.per_second(Q::GenerationTokens).unwrap_or(0.0) * share;
    found(Cause::HostBound, description, evidence)
        .severe(severity_of_gap(facts, gap).max(Severity::Medium))
        .sure(0.85)
        .costs(CostKind::ItlSeconds, gap * share)
        .costs(CostKind::TokensPerSecond, lost)
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
    let idle = facts.per_second(Q::SchedulerIdleSeconds)?;
    let busy = 1.0 - idle;
    // hardly anything to do: shares of little are noise
    (busy > 0.05).then(|| (1.0 - (forward / busy).min(1.0), "1 - forward / (1 - idle)"))
}

fn graphs(facts: &Facts<'_>, gap: f64, felt: bool) -> Vec<Answer> {
    let Some(captured) = facts.value("graph_decode_pass_ratio") else {
        // eager steps are slow steps
        let slow = gap > facts.targets.itl_p99_seconds;
        return match slow {
            true => vec![unclear(facts, Cause::GraphCeiling, Q::GraphDecodePasses)],
            false => Vec::new(),
        };
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

/// Intervals that the window is cut into at least, to hold large batches against small ones.
const FEWEST_INTERVALS: usize = 6;

/// Throughput flat over the batch, and tokens late at the large ones: both seen in one window.
pub(super) fn batch_too_large(facts: &Facts<'_>) -> Vec<Answer> {
    let (Some(tokens), Some(gaps)) = (
        facts.series("generation_tokens_per_second"),
        facts.series("inter_token_latency_seconds"),
    ) else {
        return Vec::new();
    };
    // tokens a second times the seconds between two of a request: requests that decode (Little's law)
    let mut points: Vec<(f64, f64, f64)> = tokens
        .intervals
        .iter()
        .filter_map(|rate| {
            let gap = gaps
                .intervals
                .iter()
                .find(|gap| (gap.start_tick, gap.end_tick) == (rate.start_tick, rate.end_tick))?;
            let rate = rate.numerator / rate.denominator;
            let gap = gap.numerator / gap.denominator;
            (rate.is_finite() && gap.is_finite()).then_some((rate * gap, rate, gap))
        })
        .collect();
    if points.len() < FEWEST_INTERVALS {
        return Vec::new();
    }
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    let third = points.len() / 3;
    let mean = |points: &[(f64, f64, f64)], of: fn(&(f64, f64, f64)) -> f64| {
        points.iter().map(of).sum::<f64>() / points.len() as f64
    };
    let (Some(small), Some(large)) = (points.get(..third), points.get(points.len() - third..))
    else {
        return Vec::new();
    };
    let [batches, rates, gaps] = [
        (|one: &(f64, f64, f64)| one.0) as fn(&_) -> f64,
        |one| one.1,
        |one| one.2,
    ]
    .map(|of| (mean(small, of), mean(large, of)));
    let target = facts.targets.itl_p99_seconds;
    let spread = batches.1 / batches.0.max(f64::MIN_POSITIVE);
    let gain = rates.1 / rates.0.max(f64::MIN_POSITIVE);
    if spread < facts.thresholds.batch_spread_ratio
        || gain > facts.thresholds.flat_throughput_ratio
        || gaps.1 <= target
        || batches.0 < 2.0
    {
        return Vec::new();
    }
    let description = format!(
        "batches of {:.0} give {:.0} tokens/s, batches of {:.0} give {:.0}, and a token takes {} instead of {}",
        batches.0,
        rates.0,
        batches.1,
        rates.1,
        seconds(gaps.1),
        seconds(gaps.0),
    );
    let evidence = facts
        .evidence()
        .derived("throughput_gain_ratio", gain, &tokens.name)
        .against(
            Comparison::Below,
            facts.thresholds.flat_throughput_ratio,
            "flat_throughput_ratio",
        )
        .derived("batch_spread_ratio", spread, "tokens a second × gap")
        .against(
            Comparison::AtLeast,
            facts.thresholds.batch_spread_ratio,
            "batch_spread_ratio",
        )
        .mean(Q::InterTokenLatency)
        .done();
    let flag = match facts.engine() {
        "sglang" => "--max-running-requests",
        _ => "--max-num-seqs",
    };
    found(Cause::BatchTooLarge, description, evidence)
        .severe(severity_of_gap(facts, gaps.1))
        .sure(by_count(0.8, points.len() as f64 * 3.0))
        .costs(CostKind::ItlSeconds, gaps.1 - gaps.0)
        .treat(
            &format!("Lower {flag} towards {:.0}: throughput stays, tokens come sooner, and what waits waits in the queue.", batches.0.max(1.0)),
            &[Treatment::Batching],
        )
        .answer()
}
