//! What comes in at one replica, as far as a measurement tells.

use crate::model::{Arrival, Load, RequestClass, Settings, SharedPrefix};

use super::draws::Draws;
use super::lengths;
use super::observed::Observed;
use super::outcome::Plan;

/// A load that may be what comes in at one replica, and whether its clients wait for their answers.
pub(super) fn load(
    observed: &Observed,
    settings: &Settings,
    plan: &Plan,
    draws: &mut Draws,
) -> (Load, bool) {
    let tail = draws.log_between(0.7, 1.6);
    let prompt = lengths::of(&observed.prompt, tail);
    let output = lengths::of(&observed.output, draws.log_between(0.7, 1.6));
    let hit = observed
        .hit_ratio
        .filter(|ratio| settings.prefix_caching && *ratio > 0.02);
    let mut class = RequestClass::of(prompt, output);
    if let Some(ratio) = hit {
        let block = f64::from(settings.block_size);
        let tokens = ratio.min(0.98) * class.prompt.mean();
        // whole blocks only are found
        let tokens = (tokens / block).round() * block;
        if tokens >= 1.0 {
            class.prompt = lengths::without(&class.prompt, tokens as u32);
            class.prefix = Some(SharedPrefix {
                tokens: tokens as u32,
                groups: draws.one_of(&[1, 2, 8]).unwrap_or(1),
            });
        }
    }
    class.abort_ratio = observed.gone_ratio;
    if observed.deferred > 0.1 {
        class.deferred_seconds = observed.deferred / observed.begun_per_second.max(1e-9);
    }
    let (growth, uncertain) = observed.growth_per_second();
    // a queue grows by what comes in and is not served
    let grows = growth + uncertain * draws.normal();
    let served = observed.begun_per_second + observed.refused_per_second;
    let offered = (served + grows).max(0.5 * served);
    let count = (observed.seconds * offered).max(1.0);
    // who is refused and does not come back does not wait for an answer
    let refuses = observed.refuses();
    let open = if refuses { 0.85 } else { 0.5 };
    let kind = draws.unit();
    let arrival = if kind < open {
        // what was counted is one draw of what is to be expected, and load does not stay as it is
        let drift = (0.03_f64.powi(2) + 0.5 / count).sqrt();
        let rate_per_second = offered * draws.factor(drift);
        match refuses {
            true => bursts(rate_per_second, plan, draws),
            false => Arrival::Poisson { rate_per_second },
        }
    } else {
        let inside = observed.inside().max(1.0);
        let think_seconds = match kind < open + 0.7 * (1.0 - open) {
            true => 0.0,
            false => observed.residence_seconds() * draws.log_between(0.2, 3.0),
        };
        let clients = match think_seconds > 0.0 {
            true => inside + observed.begun_per_second * think_seconds,
            // all are inside but for a moment
            false => inside.max(observed.running.max + observed.waiting.min),
        };
        Arrival::Closed {
            clients: clients.round().max(1.0) as u32,
            think_seconds,
        }
    };
    let closed = matches!(arrival, Arrival::Closed { .. });
    let load = Load {
        arrival,
        classes: vec![class],
        split: Vec::new(),
        drift: None,
        seed: 1 + (draws.unit() * 1e6) as u64,
    };
    (load, closed)
}

/// What is refused though there is room on average comes in bursts, and nothing tells how long and how high they are.
fn bursts(rate_per_second: f64, plan: &Plan, draws: &mut Draws) -> Arrival {
    let share = draws.log_between(0.05, 0.4);
    let period_seconds = plan.seconds * draws.log_between(0.08, 0.6);
    Arrival::Bursty {
        rate_per_second,
        burst_factor: draws.log_between(1.05, (0.98 / share).min(6.0)),
        burst_seconds: share * period_seconds,
        period_seconds,
    }
}
