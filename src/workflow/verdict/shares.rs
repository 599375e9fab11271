//! Shares on two sides: two proportions, judged by their difference.
//!
//! - Interval: by Wilson's score interval of each side, squared and added (Newcombe, Statistics in Medicine 17, 1998, method
//!   10). It holds where nothing failed on either side: of few requests little is then known, of many much.
//! - Requests that fail or are late do so together. Where the difference varies more from interval to interval than
//!   independent requests would, both counts are worth as many fewer (Rao and Scott, Biometrics 48, 1992), and Student's
//!   t stands in for the normal distribution.

use super::judge::{Look, Parts};
use super::means::{LATE_LEVEL, POWER, not_yet, percent};
use super::outcome::{QuantityVerdict, VerdictWord as W};
use super::policy::VerdictPolicy;
use super::quantity::JudgedQuantity as J;
use super::sides::Sides;
use crate::measure::Difference;

/// What is said of a share.
pub(super) fn judge(
    quantity: J,
    parts: &Parts,
    policy: &VerdictPolicy,
    look: Look,
) -> QuantityVerdict {
    let all = &parts.all;
    let mut said = super::judge::unjudged(quantity, all, policy);
    let Some(shares) = Shares::of(all) else {
        said.reason = match all.too_few(quantity, policy) {
            Some(why) => why,
            None => "it cannot be a share of what was counted".to_owned(),
        };
        return said;
    };
    let difference = shares.difference();
    said.difference = Some(difference);
    said.effect_ratio = (shares.control > 0.0).then(|| shares.canary / shares.control);
    if let Some(why) = all.too_few(quantity, policy) {
        said.reason = why;
        return said;
    }
    let (passes, harms) = (look.pass_level, look.harm_level);
    let bounds = shares.interval(passes).zip(shares.interval(harms));
    let Some(((low, high), (harm_low, _))) = bounds else {
        said.reason = "it varies beyond all that can be reckoned with".to_owned();
        return said;
    };
    said.difference_interval = Some((low, high));
    said.interval_confidence = 1.0 - 2.0 * passes;
    let most = policy.most_difference(quantity, shares.control);
    let harm_from = policy.harm_from_difference(quantity, shares.control);
    said.smallest_detectable_ratio = (shares.control > 0.0)
        .then(|| shares.detectable(harms, difference - harm_low))
        .flatten()
        .map(|more| (more + harm_from) / shares.control);
    let newest = parts.newest.as_ref();
    let newest = newest.and_then(|newest| Some((newest, Shares::of(newest)?)));
    let newest_harm = newest.as_ref().filter(|(sides, shares)| {
        let enough = sides.too_few(quantity, policy).is_none();
        let low = shares.interval(harms).map(|(low, _)| low);
        let limit = policy.harm_from_difference(quantity, shares.control);
        enough && low.is_some_and(|low| low > limit)
    });
    let at = |share: f64| percent(share);
    if harm_low > harm_from {
        said.word = W::Fail;
        said.reason = format!("{} against {}", at(shares.canary), at(shares.control));
    } else if let Some((_, newest)) = newest_harm {
        said.word = W::Fail;
        said.reason = format!(
            "{} against {} in the newest part",
            at(newest.canary),
            at(newest.control)
        );
    } else if high >= most {
        let last = shares.interval(look.last_pass_level);
        let high = last.map_or(high, |(_, high)| high);
        said.reason = not_yet(difference, high - difference, most, all.intervals());
    } else if let Some((_, newest)) = newest.as_ref().filter(|(_, newest)| {
        let worse = newest
            .interval(LATE_LEVEL)
            .is_some_and(|(low, _)| low > 0.0);
        worse && newest.difference() >= policy.most_difference(quantity, newest.control)
    }) {
        said.reason = format!(
            "not worse over all, but {} against {} in the newest part, as harm that began late would be",
            at(newest.canary),
            at(newest.control)
        );
    } else {
        said.word = W::Pass;
        said.reason = format!(
            "{} against {}, at most {} points more",
            at(shares.canary),
            at(shares.control),
            points(high)
        );
    }
    said
}

fn points(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// Two shares and what their counts are worth.
#[derive(Debug, Clone, Copy)]
struct Shares {
    canary: f64,
    control: f64,
    /// As many independent requests would tell as much.
    canary_count: f64,
    control_count: f64,
    /// Of the difference from interval to interval.
    varies: Difference,
}

impl Shares {
    /// None where there are too few intervals, or where more were beyond than there were.
    fn of(sides: &Sides) -> Option<Self> {
        let (canary, control) = (sides.canary(), sides.control());
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        let of_canary = canary.value.filter(is_share)?;
        let of_control = control.value.filter(is_share)?;
        let varies = sides.values()?;
        let independent = of_canary * (1.0 - of_canary) / canary.count
            + of_control * (1.0 - of_control) / control.count;
        let fewer = match independent > 0.0 {
            true => (varies.error().powi(2) / independent).max(1.0),
            false => 1.0,
        };
        Some(Self {
            canary: of_canary,
            control: of_control,
            canary_count: canary.count / fewer,
            control_count: control.count / fewer,
            varies,
        })
    }

    /// Canary less control.
    fn difference(&self) -> f64 {
        self.canary - self.control
    }

    /// Bounds of the difference; each is wrong with this chance.
    fn interval(&self, level: f64) -> Option<(f64, f64)> {
        let quantile = self.varies.quantile(1.0 - level)?;
        let (canary_low, canary_high) = score(self.canary, self.canary_count, quantile);
        let (control_low, control_high) = score(self.control, self.control_count, quantile);
        let difference = self.difference();
        let below = (self.canary - canary_low).hypot(control_high - self.control);
        let above = (canary_high - self.canary).hypot(self.control - control_low);
        let bounds = (difference - below, difference + above);
        (bounds.0.is_finite() && bounds.1.is_finite()).then_some(bounds)
    }

    /// The difference that is found with [`POWER`] where `reach` is what a test at this level needs.
    fn detectable(&self, level: f64, reach: f64) -> Option<f64> {
        let needed = self.varies.quantile(1.0 - level)?;
        let found = self.varies.quantile(POWER)?;
        let more = reach * (1.0 + found / needed);
        more.is_finite().then_some(more)
    }
}

/// Wilson's score interval of a share of so many (J. American Statistical Association 22, 1927).
fn score(share: f64, count: f64, quantile: f64) -> (f64, f64) {
    let squared = quantile * quantile / count;
    let centre = (share + squared / 2.0) / (1.0 + squared);
    let spread = share * (1.0 - share) / count + squared / (4.0 * count);
    let reach = quantile / (1.0 + squared) * spread.sqrt();
    ((centre - reach).max(0.0), (centre + reach).min(1.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::measure::Interval;

    fn sides(canary: f64, control: f64, each: f64) -> Sides {
        let interval = |at: u32, numerator| Interval {
            start_tick: at,
            end_tick: at + 1,
            numerator,
            denominator: each,
        };
        // binomial to the eye: one more and one less in turns
        let noise = |at: u32, mean: f64| match mean > 1.0 {
            true => mean + mean.sqrt() * if at.is_multiple_of(2) { 1.0 } else { -1.0 },
            false => mean,
        };
        Sides::Paired(
            (0..40)
                .map(|at| {
                    (
                        interval(at, noise(at, control)),
                        interval(at, noise(at / 2, canary)),
                    )
                })
                .collect(),
        )
    }

    #[test]
    fn the_score_interval_is_as_published() {
        // Newcombe 1998, table II: 81 of 263, and 15 of 148; 0 of 20, and 1 of 29
        for (found, of, low, high) in [
            (81.0, 263.0, 0.2553, 0.3662),
            (15.0, 148.0, 0.0624, 0.1605),
            (0.0, 20.0, 0.0, 0.1611),
            (1.0, 29.0, 0.0061, 0.1718),
        ] {
            let (below, above) = score(found / of, of, 1.959_964);
            assert!((below - low).abs() < 1e-4, "{found} of {of}: {below}");
            assert!((above - high).abs() < 1e-4, "{found} of {of}: {above}");
        }
    }

    #[test]
    fn no_failure_of_few_says_little_and_of_many_much() {
        let high = |each| {
            let shares = Shares::of(&sides(0.0, 0.0, each)).unwrap();
            shares.interval(0.025).unwrap().1
        };
        assert!(high(5.0) > 0.015, "{}", high(5.0));
        assert!(high(100.0) < 0.002, "{}", high(100.0));
    }

    #[test]
    fn swapped_sides_mirror() {
        let one = Shares::of(&sides(8.0, 5.0, 100.0)).unwrap();
        let other = Shares::of(&sides(5.0, 8.0, 100.0)).unwrap();
        assert!((one.difference() - 0.03).abs() < 1e-9);
        let (low, high) = one.interval(0.01).unwrap();
        assert!(low < 0.03 && 0.03 < high);
        assert!((one.difference() + other.difference()).abs() < 1e-12);
    }
}
