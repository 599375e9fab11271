//! From what was observed to the members of the twin.

use crate::measure::Bounded;
use crate::model::{Fit, Load, Policy, StepTime, StepWindow};
use crate::optimization::in_force::InForce;

use super::draws::Draws;
use super::member::Member;
use super::observed::Observed;
use super::outcome::{Outcome, Plan, run};
use super::{incoming, settings};

/// All members, and how far they can be trusted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ensemble {
    /// The heaviest first; weights add up to 1.
    pub(super) members: Vec<Member>,
    /// How long each runs.
    pub(super) plan: Plan,
    /// By how much the members miss what was measured, in the mean: 1.1 for a tenth.
    pub(super) mismatch_ratio: f64,
    /// What was assumed.
    pub(super) assumptions: Vec<String>,
    /// Windows that the times of steps were fitted to.
    pub(super) windows: u32,
}

/// Most draws, and fewest where each costs much.
const DRAWS: (u32, u32) = (16, 72);
/// Simulations of a draw: each but the last sets the times right.
const ROUNDS: u32 = 4;
/// Tokens that all draws together may cost.
const FIT_TOKENS: u64 = 25_000_000;
/// Requests of a simulation, where the window had as many.
const REQUESTS: f64 = 220.0;
/// Members that are kept at most.
const MEMBERS: usize = 28;
/// So many members should count at least: weights are tempered until they do.
const EFFECTIVE_MEMBERS: f64 = 9.0;
/// Members beyond this do not give what was measured.
const LARGEST_MISMATCH: f64 = 1.35;

/// A queue that is so many times as long, or as short, is another one; as a logarithm.
const LARGEST_QUEUE_MISS: f64 = 1.1;

/// The members.
///
/// # Errors
/// Why there are none, as a sentence.
pub(super) fn fit(
    observed: &Observed,
    in_force: &InForce,
    windows: &[StepWindow],
) -> Result<Ensemble, String> {
    if observed.gap_mean.is_none() {
        return Err(
            "the gap between tokens is not told, and no times can be fitted without it".to_owned(),
        );
    }
    let plan = plan(observed);
    let each = (plan.warm_seconds + plan.seconds) * (observed.tokens_per_second + 64.0);
    let draws = (FIT_TOKENS as f64 / each / f64::from(ROUNDS)) as u32;
    let draws = draws.clamp(DRAWS.0, DRAWS.1);
    let mut assumptions = Vec::new();
    let mut drawn: Vec<(Member, Misses)> = Vec::new();
    let fitted = Fit::to(windows).ok().filter(|fit| fit.windows >= 4);
    for number in 0..draws {
        let mut draws = Draws::of(number);
        let settings = settings::draw(observed, in_force, &mut draws, &mut assumptions);
        let (load, closed) = incoming::load(observed, &settings, &plan, &mut draws);
        let shape = Shape::draw(observed, fitted.as_ref(), number, &mut draws);
        let Some((step_time, before)) = calibrated(observed, &settings, &load, shape, &plan) else {
            continue;
        };
        let misses = Misses::of(observed, &plan, &before, &step_time, windows);
        let member = Member {
            settings,
            step_time,
            load,
            closed,
            kv_draw: draws.unit(),
            weight: 0.0,
            before,
            again: None,
        };
        drawn.push((member, misses));
    }
    if drawn.is_empty() {
        return Err("the model cannot be run with what was measured".to_owned());
    }
    weigh(&mut drawn);
    drawn.sort_by(|(one, _), (other, _)| other.weight.total_cmp(&one.weight));
    let largest = drawn.first().map_or(0.0, |(member, _)| member.weight);
    drawn.retain(|(member, _)| member.weight >= 0.01 * largest);
    drawn.truncate(MEMBERS);
    let all: f64 = drawn.iter().map(|(member, _)| member.weight).sum();
    let (mut mismatch, mut queue) = (0.0, 0.0);
    for (member, misses) in &mut drawn {
        member.weight /= all;
        member.again = member.with_other_requests(member.load.seed + 1_000_003, &plan);
        mismatch += member.weight * misses.worst;
        queue += member.weight * misses.queue;
    }
    let mismatch_ratio = f64::exp(mismatch);
    if mismatch_ratio > LARGEST_MISMATCH {
        return Err(format!(
            "the model does not give what was measured: it is off by {:.0} %, and what it said of a change would be worth \
             nothing",
            (mismatch_ratio - 1.0) * 100.0
        ));
    }
    if queue > LARGEST_QUEUE_MISS {
        return Err(format!(
            "the model does not show the {:.0} requests that wait on average: they wait for something that nothing tells; \
             declare the launch arguments, or give current_config",
            observed.waiting.mean
        ));
    }
    Ok(Ensemble {
        members: drawn.into_iter().map(|(member, _)| member).collect(),
        plan,
        mismatch_ratio,
        assumptions,
        windows: u32::try_from(windows.len()).unwrap_or(u32::MAX).max(1),
    })
}

/// How long simulations run.
fn plan(observed: &Observed) -> Plan {
    let rate = observed.begun_per_second.max(1e-6);
    // bursts come and go, and a window has to have some
    let least = if observed.refuses() { 2.0 } else { 20.0 };
    let seconds = observed
        .seconds
        .min((REQUESTS / rate).max(observed.seconds / least));
    let residence = observed.residence_seconds();
    let warm_seconds = (3.0 * residence)
        .max(seconds / 4.0)
        .min(30.0 * observed.seconds);
    let cost = (warm_seconds + seconds) * (observed.tokens_per_second + 64.0);
    Plan {
        warm_seconds,
        seconds,
        samples: observed.samples,
        backlog: observed.backlog(seconds),
        most_tokens: (8.0 * cost) as u64 + 200_000,
    }
}

/// What the parts of a step cost against each other. Seconds but for the last two.
#[derive(Debug, Clone, Copy)]
struct Shape {
    fixed: f64,
    /// What the weights take to read, however few tokens are computed.
    flat: f64,
    token: f64,
    sequence: f64,
    context: f64,
    /// For each token before one of a prompt, against a token.
    prompt_context_ratio: f64,
    frontend: f64,
}

impl Shape {
    /// A shape that may be: of what was fitted to windows at different load, or of what engines on all kinds of hardware
    /// have. Relative to the flat part an 8-billion-parameter model on one H100 has 7e-6 for a token of context, a small
    /// one on a CPU 7e-5; a token of a prompt costs 5e-3 and 0.1 of it.
    fn draw(observed: &Observed, fitted: Option<&Fit>, number: u32, draws: &mut Draws) -> Self {
        let gap = observed.gap_mean.unwrap_or(0.01);
        let frontend = observed
            .ttft_mean
            .zip(observed.queue_mean.zip(observed.prefill_mean))
            .map_or(0.0, |(first, (queue, prefill))| {
                (first - queue - prefill).max(0.0)
            });
        // with a queue the difference of large means is noise
        let frontend = frontend.min(2.0 * gap + observed.prefill_mean.unwrap_or(0.0));
        let frontend = match observed.policy {
            Policy::Tgi => 0.0,
            _ => frontend,
        };
        let prompt_context_ratio = draws.log_between(2e-6, 1e-4);
        if let Some(fit) = fitted.filter(|_| number.is_multiple_of(2)) {
            let time = fit.step_time;
            return Self {
                fixed: time.fixed_seconds * draws.factor(0.2),
                flat: (time.token_seconds * time.knee_tokens) * draws.factor(0.2),
                token: time.token_seconds.max(1e-7) * draws.factor(0.2),
                sequence: time.decode_sequence_seconds * draws.factor(0.3),
                context: time.decode_context_token_seconds * draws.factor(0.3),
                prompt_context_ratio,
                frontend,
            };
        }
        let share = draws.between(0.15, 0.95);
        let knee = draws.log_between(2.0, 512.0);
        let sequence = draws.log_between(1e-5, 4e-3);
        let context = draws.log_between(1e-6, 1e-4);
        let sequences = observed.running.mean.max(1.0);
        let length = |of: &crate::measure::Distribution| of.mean.unwrap_or(1.0);
        let held = length(&observed.prompt) + length(&observed.output) / 2.0;
        let beyond = (sequences - knee).max(0.0) * share / knee;
        let all = 1.0 + beyond + sequences * (sequence + context * held);
        let unit = gap / all;
        Self {
            fixed: unit * (1.0 - share),
            flat: unit * share,
            token: unit * share / knee,
            sequence: unit * sequence,
            context: unit * context,
            prompt_context_ratio,
            frontend,
        }
    }

    fn step_time(&self) -> StepTime {
        StepTime {
            fixed_seconds: self.fixed.max(1e-6),
            token_seconds: self.token,
            knee_tokens: self.flat / self.token.max(1e-12),
            decode_sequence_seconds: self.sequence,
            decode_context_token_seconds: self.context,
            prefill_context_token_seconds: self.token * self.prompt_context_ratio,
            frontend_seconds: self.frontend,
            host_seconds: 0.0,
            graph_max_sequences: None,
            eager_factor: 1.0,
            ..StepTime::default()
        }
    }
}

/// The times with which the model has the gap between tokens and the time of a prefill that were measured, and what it
/// gives with them.
fn calibrated(
    observed: &Observed,
    settings: &crate::model::Settings,
    load: &Load,
    mut shape: Shape,
    plan: &Plan,
) -> Option<(StepTime, Outcome)> {
    let gap = observed.gap_mean?;
    for round in 1..=ROUNDS {
        let step_time = shape.step_time();
        let outcome = run(settings, step_time, load, plan)?;
        if round == ROUNDS {
            return Some((step_time, outcome));
        }
        let limited = |ratio: f64| ratio.clamp(0.2, 5.0);
        if let Some(found) = outcome.gap_mean.filter(|found| *found > 0.0) {
            let ratio = limited(gap / found);
            shape.fixed *= ratio;
            shape.flat *= ratio;
            shape.sequence *= ratio;
            shape.context *= ratio;
            // where prompts make the steps, they make the gaps
            if observed.prefill_mean.is_none() {
                shape.token *= ratio;
            }
        }
        if let Some((wanted, found)) = observed.prefill_mean.zip(outcome.prefill_mean)
            && wanted > 0.0
            && found > 0.0
        {
            shape.token *= limited(wanted / found);
        }
    }
    None
}

/// By how much a member misses what was measured.
#[derive(Debug, Clone, Copy)]
struct Misses {
    /// Sum of squares, each against what is to be expected.
    squares: f64,
    /// The largest of the main ones, as a logarithm.
    worst: f64,
    /// By how much the queue is another one, as a logarithm.
    queue: f64,
}

/// A miss that is larger than so many standard deviations is not held against a member any more.
const LARGEST_MISS: f64 = 4.0;

impl Misses {
    fn of(
        observed: &Observed,
        plan: &Plan,
        before: &Outcome,
        step_time: &StepTime,
        windows: &[StepWindow],
    ) -> Self {
        let chance = 1.0 / observed.finished.max(1.0).sqrt();
        let mut misses = Self {
            squares: 0.0,
            worst: 0.0,
            queue: 0.0,
        };
        let ratio = |found: f64, wanted: f64| match found > 0.0 && wanted > 0.0 {
            true => Some((found / wanted).ln()),
            false => None,
        };
        let level = |found: f64, wanted: f64, floor: f64| ((floor + found) / (floor + wanted)).ln();
        let tokens = ratio(before.tokens_per_second, observed.tokens_per_second).unwrap_or(9.0);
        misses.add(tokens, 0.05 + 0.7 * chance);
        misses.worst = (tokens.abs() - 0.7 * chance).max(0.0);
        if let Some(miss) = before
            .gap_mean
            .zip(observed.gap_mean)
            .and_then(|(a, b)| ratio(a, b))
        {
            misses.add(miss, 0.05);
            misses.worst = misses.worst.max(miss.abs());
        }
        let pairs = [
            (before.prefill_mean, observed.prefill_mean, 0.15 + chance),
            (before.ttft_mean, observed.ttft_mean, 0.2 + 1.5 * chance),
            (
                Some(before.steps_per_second),
                observed.steps_per_second,
                0.1,
            ),
        ];
        for (found, wanted, sigma) in pairs {
            if let Some(miss) = found.zip(wanted).and_then(|(a, b)| ratio(a, b)) {
                misses.add(miss, sigma);
            }
        }
        for (found, wanted) in [
            (before.gap_p50, observed.gap_p50),
            (before.gap_p99, observed.gap_p99),
            (before.ttft_p99, observed.ttft_p99),
        ] {
            if let Some(miss) = found.zip(wanted).and_then(|(a, b)| bounded(a, b)) {
                misses.add(miss, 0.3 + chance);
            }
        }
        let [least, mean, most] = before.running;
        misses.add(level(mean, observed.running.mean, 0.3), 0.08 + 0.5 * chance);
        let range = |least: f64, most: f64| (most - least) / most.max(1.0);
        misses.add(
            range(least, most) - range(observed.running.min, observed.running.max),
            0.25,
        );
        let [least, mean, most] = before.waiting;
        let queue = level(mean, observed.waiting.mean, 1.0);
        misses.queue = queue.abs();
        misses.add(queue, 0.35 + chance);
        // clients that wait for their answers keep the queue at one length
        let spread = (most - least, observed.spread(plan.seconds));
        misses.add(spread.0 - spread.1, 1.0 + 0.35 * spread.0.max(spread.1));
        let (growth, uncertain) = observed.growth_per_second();
        let growth = before.growth_per_second - growth;
        let begun = observed.begun_per_second.max(1e-9);
        misses.add(growth / begun, 0.06 + uncertain / begun);
        if let Some(usage) = observed.kv_usage.filter(|usage| *usage > 0.02)
            && let Some(miss) = ratio(before.kv_usage, usage)
        {
            misses.add(miss, 0.2);
        }
        if observed.refuses() {
            let refused = observed.refused_ratio();
            misses.add(level(before.failure_ratio, refused, 0.01), 0.35 + chance);
        }
        if let Some(preempted) = observed.preemptions_ratio {
            misses.add(level(before.preemptions_ratio, preempted, 0.05), 0.7);
        }
        for window in windows {
            let time = step_time.mean_seconds(window);
            if let Some(miss) = ratio(time, window.step_seconds) {
                misses.add(miss, 0.1);
            }
        }
        misses
    }

    fn add(&mut self, miss: f64, sigma: f64) {
        self.squares += (miss / sigma).clamp(-LARGEST_MISS, LARGEST_MISS).powi(2);
    }
}

/// How far two values are apart that may only be known to lie beyond a bound; none where they may be the same.
fn bounded(found: Bounded, wanted: Bounded) -> Option<f64> {
    use Bounded::{AtLeast, AtMost, Value};
    match (found, wanted) {
        (Value(found), Value(wanted)) => Some((found.max(1e-9) / wanted.max(1e-9)).ln()),
        (Value(found) | AtLeast(found), AtMost(bound)) if found > bound => {
            Some((found / bound.max(1e-9)).ln())
        }
        (AtMost(found), Value(wanted)) if found < wanted => Some((found.max(1e-9) / wanted).ln()),
        _ => None,
    }
}

/// Weights by the squares of the misses, tempered until enough members count.
fn weigh(drawn: &mut [(Member, Misses)]) {
    let least = drawn
        .iter()
        .map(|(_, misses)| misses.squares)
        .fold(f64::INFINITY, f64::min);
    let enough = EFFECTIVE_MEMBERS.min(drawn.len() as f64 * 0.4);
    let mut heat = 1.0;
    for _ in 0..60 {
        for (member, misses) in drawn.iter_mut() {
            member.weight = (-(misses.squares - least) / (2.0 * heat)).exp();
        }
        let sum: f64 = drawn.iter().map(|(member, _)| member.weight).sum();
        let squares: f64 = drawn.iter().map(|(member, _)| member.weight.powi(2)).sum();
        if sum * sum / squares >= enough {
            break;
        }
        heat *= 1.25;
    }
}
