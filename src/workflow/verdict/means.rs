//! Means and rates on two sides: judged by their ratio.

use super::judge::{Look, Parts};
use super::outcome::{QuantityVerdict, VerdictWord as W};
use super::policy::VerdictPolicy;
use super::quantity::JudgedQuantity as J;
use super::sides::Sides;

/// Chance with which the smallest detectable change is found.
pub(super) const POWER: f64 = 0.8;

/// The newest part looks as if harm had begun where it is worse than nothing with this chance of an error.
pub(super) const LATE_LEVEL: f64 = 0.1;

/// What is said of a mean or a rate.
pub(super) fn judge(
    quantity: J,
    parts: &Parts,
    policy: &VerdictPolicy,
    look: Look,
) -> QuantityVerdict {
    let all = &parts.all;
    let (canary, control) = (all.canary(), all.control());
    let mut said = super::judge::unjudged(quantity, all, policy);
    let ratio = canary.value.zip(control.value);
    said.effect_ratio = ratio
        .filter(|(_, control)| *control > 0.0)
        .map(|(canary, control)| canary / control)
        .filter(|ratio| ratio.is_finite());
    if let Some(why) = all.too_few(quantity, policy) {
        said.reason = why;
        return said;
    }
    let level = look.pass_level;
    let Some((difference, reach)) = all
        .logarithms()
        .and_then(|one| Some((one, one.quantile(1.0 - level)? * one.error())))
    else {
        said.reason = "one side is zero or varies beyond all that can be reckoned with".to_owned();
        return said;
    };
    let centre = difference.centre();
    said.interval = Some(((centre - reach).exp(), (centre + reach).exp()))
        .filter(|(low, high)| low.is_finite() && high.is_finite());
    said.interval_confidence = 1.0 - 2.0 * level;
    let harm = (policy.harm_from_ratio(quantity), look.harm_level);
    said.smallest_detectable_ratio = difference
        .detectable(2.0 * look.harm_level, POWER)
        .map(|change| (change + harm.0.ln()).exp_m1())
        .filter(|change| change.is_finite());
    let most = policy.most_ratio(quantity);
    let worse = worse(quantity, centre);
    if harmed(quantity, all, harm) {
        said.word = W::Fail;
        said.reason = format!("worse by {}", percent(worse.exp_m1()));
    } else if let Some(newest) = parts.newest.as_ref().filter(|newest| {
        newest.too_few(quantity, policy).is_none() && harmed(quantity, newest, harm)
    }) {
        said.word = W::Fail;
        said.reason = format!(
            "worse by {} in the newest part",
            percent(worse_ratio(quantity, newest).unwrap_or(1.0) - 1.0)
        );
    } else if worse + reach >= most.ln() {
        let last = difference.quantile(1.0 - look.last_pass_level);
        let reach = last.map_or(reach, |quantile| quantile * difference.error());
        said.reason = not_yet(worse, reach, most.ln(), all.intervals());
    } else if let Some(newest) = parts
        .newest
        .as_ref()
        .filter(|newest| harmed(quantity, newest, (1.0, LATE_LEVEL)))
        .and_then(|newest| worse_ratio(quantity, newest))
        .filter(|ratio| *ratio >= most)
    {
        said.reason = format!(
            "not worse over all, but by {} in the newest part, as harm that began late would be",
            percent(newest - 1.0)
        );
    } else {
        said.word = W::Pass;
        said.reason = match worse + reach <= 0.0 {
            true => format!("better by {}", percent(-(worse.exp_m1()))),
            false => format!(
                "worse by less than {} at most, and {} is accepted",
                percent((worse + reach).exp_m1()),
                percent(most - 1.0)
            ),
        };
    }
    said
}

/// The logarithm of the ratio, up for the worse.
fn worse(quantity: J, logarithm: f64) -> f64 {
    match quantity.more_is_better() {
        true => -logarithm,
        false => logarithm,
    }
}

fn worse_ratio(quantity: J, of: &Sides) -> Option<f64> {
    let (canary, control) = of.canary().value.zip(of.control().value)?;
    let ratio = worse(quantity, (canary / control).ln()).exp();
    ratio.is_finite().then_some(ratio)
}

/// Whether it is worse than the limit for certain at this level.
fn harmed(quantity: J, of: &Sides, (limit, level): (f64, f64)) -> bool {
    of.logarithms().is_some_and(|difference| {
        let reach = difference
            .quantile(1.0 - level)
            .map(|quantile| quantile * difference.error());
        reach.is_some_and(|reach| worse(quantity, difference.centre()) - reach > limit.ln())
    })
}

/// Why it does not pass yet, and how long it would take: the reach, of the last look, falls with the root of the intervals.
pub(super) fn not_yet(worse: f64, reach: f64, limit: f64, intervals: u32) -> String {
    let room = limit - worse;
    if room <= 0.0 {
        return "it looks worse than is accepted, but that is not certain".to_owned();
    }
    let needed = (f64::from(intervals) * (reach / room).powi(2)).ceil();
    if needed <= f64::from(intervals) {
        return "it could still be worse than is accepted; if it stays as it is, a later look tells".to_owned();
    }
    format!(
        "it could still be worse than is accepted; if it stays as it is, about {needed} intervals would tell, and there \
         are {intervals}"
    )
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
