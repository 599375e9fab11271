//! IMBALANCE, SLOW_REPLICA: one replica is not like the others.

use crate::analysis::check::{
    Answer, found, number, seconds, severity_of_gap, severity_of_ttft, unclear,
};
use crate::analysis::facts::Facts;
use crate::analysis::finding::{
    Cause, Comparison, CostKind, Evidence, Finding, Severity, Treatment,
};
use crate::analysis::queue::queue;
use crate::engine::Quantity as Q;

/// A replica's numbers with its URL.
#[derive(Debug, Clone, Copy)]
pub(in crate::analysis) struct Member<'m> {
    pub(in crate::analysis) url: &'m str,
    pub(in crate::analysis) facts: Facts<'m>,
}

impl Member<'_> {
    /// Seconds of a step, as far as the engine tells it.
    fn step(&self) -> Option<f64> {
        self.facts.gap_seconds()
    }

    /// Requests that it holds.
    fn held(&self) -> Option<f64> {
        let running = self.facts.gauge(Q::RequestsRunning)?.mean;
        Some(running + self.facts.gauge(Q::RequestsWaiting)?.mean)
    }
}

/// More requests than this on average, for shares of them to mean something.
const FEWEST_HELD: f64 = 2.0;
pub(in crate::analysis) fn check(members: &[Member<'_>]) -> Vec<Answer> {
    if members.len() < 2 {
        return Vec::new();
    }
    let mut answers = Vec::new();
    if let Some(mute) = members
        .iter()
        .find(|member| member.step().is_none() && member.facts.moves())
    {
        answers.push(unclear(
            &mute.facts,
            Cause::SlowReplica,
            Q::InterTokenLatency,
        ));
    }
    for (at, member) in members.iter().enumerate() {
        let others = |of: fn(&Member<'_>) -> Option<f64>| {
            let values = members.iter().enumerate().filter(|(other, _)| *other != at);
            median(values.filter_map(|(_, other)| of(other)).collect())
        };
        answers.extend(slow(member, &others).map(Answer::Found));
        answers.extend(imbalance(member, &others).map(Answer::Found));
    }
    answers
}

type Others<'o> = dyn Fn(fn(&Member<'_>) -> Option<f64>) -> Option<f64> + 'o;

/// How many times as many requests it serves as the others; 1 where that is not told.
fn serves(member: &Member<'_>, others: &Others<'_>) -> f64 {
    let served = |member: &Member<'_>| member.facts.served_per_second();
    match served(member).zip(others(served)) {
        Some((mine, theirs)) if theirs > 0.0 => mine / theirs,
        _ => 1.0,
    }
}

fn slow(member: &Member<'_>, others: &Others<'_>) -> Option<Finding> {
    let (mine, theirs) = (member.step()?, others(|one| one.step())?);
    let ratio = mine / theirs;
    let threshold = member.facts.thresholds.slow_replica_ratio;
    // with more to do, steps take longer by right
    if ratio.is_nan()
        || ratio < threshold
        || serves(member, others) > member.facts.thresholds.serves_more_ratio
    {
        return None;
    }
    let description = format!(
        "a token takes {} on {}, and {} on the others: it is {ratio:.1} times as slow at the same work",
        seconds(mine),
        member.url,
        seconds(theirs),
    );
    let evidence = member
        .facts
        .evidence()
        .derived(
            "slow_replica_ratio",
            ratio,
            "step time / median of the others",
        )
        .against(Comparison::AtLeast, threshold, "slow_replica_ratio")
        .mean(Q::InterTokenLatency)
        .mean(Q::DecodeStepTime)
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::RequestsWaiting)
        .done();
    let wait = queue(&member.facts).map_or(0.0, |queue| queue.seconds);
    let severity = severity_of_gap(&member.facts, mine)
        .max(severity_of_ttft(&member.facts, wait))
        .max(if ratio >= 2.0 {
            Severity::Medium
        } else {
            Severity::Low
        });
    Some(one_of(member, Cause::SlowReplica, description, evidence)
        .severe(severity)
        .sure((0.6 + 0.35 * (ratio / threshold - 1.0)).min(0.95))
        .costs(CostKind::ItlSeconds, mine - theirs)
        .costs(CostKind::TtftSeconds, wait)
        .treat(
            "Take it out of traffic and look at its accelerator (clocks, temperature, errors), its host's load and its settings; replace it if it stays slow.",
            &[Treatment::Scaling],
        ))
}

fn imbalance(member: &Member<'_>, others: &Others<'_>) -> Option<Finding> {
    let (mine, theirs) = (member.held()?, others(|one| one.held())?);
    let threshold = member.facts.thresholds.imbalance_ratio;
    let ratio = mine / theirs.max(0.5);
    let step = member.step().zip(others(|one| one.step()));
    let slow = step
        .is_some_and(|(mine, theirs)| mine / theirs >= member.facts.thresholds.slow_replica_ratio);
    let more = serves(member, others) > member.facts.thresholds.serves_more_ratio;
    let wait = queue(&member.facts);
    let felt = wait.is_some() || member.facts.first_token_is_late() == Some(true);
    if ratio < threshold || mine < FEWEST_HELD || (slow && !more) || !felt {
        return None;
    }
    let description = format!(
        "{} holds {} requests, each of the others {}: the load is uneven",
        member.url,
        number(mine),
        number(theirs),
    );
    let evidence = member
        .facts
        .evidence()
        .derived(
            "imbalance_ratio",
            ratio,
            "requests held / median of the others",
        )
        .against(Comparison::AtLeast, threshold, "imbalance_ratio")
        .gauge_mean(Q::RequestsRunning)
        .gauge_mean(Q::RequestsWaiting)
        .mean(Q::TimeToFirstToken)
        .done();
    let delay = wait.map_or_else(
        || member.facts.mean(Q::TimeToFirstToken).unwrap_or(0.0),
        |queue| queue.seconds,
    );
    Some(one_of(member, Cause::Imbalance, description, evidence)
        .severe(severity_of_ttft(&member.facts, delay))
        .sure((0.6 + 0.3 * (ratio / threshold - 1.0)).min(0.95))
        .costs(CostKind::TtftSeconds, delay)
        .treat(
            "Look at the load balancer: weights, sticky sessions, long-lived connections; balance by requests held (least-loaded) and not by connection.",
            &[Treatment::Scheduling],
        ))
}

fn one_of(
    member: &Member<'_>,
    cause: Cause,
    description: String,
    evidence: Vec<Evidence>,
) -> Finding {
    let mut finding = found(cause, description, evidence);
    finding.replicas = vec![member.url.to_owned()];
    finding
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    match values.len() % 2 {
        1 => Some(upper),
        _ => Some((values.get(middle - 1)? + upper) / 2.0),
    }
}
