//! How fast the error budgets of SLOs are spent: one good/bad pair a minute and SLO, kept for six hours.
//!
//! What counts as good follows from the SLO:
//!
//! | SLO | good and bad | budget |
//! |---|---|---|
//! | quantile q, at most | observations within the target and beyond it | 1 − q |
//! | quantile q, at least | observations above the target and below it | q |
//! | `request_failure_ratio`, at most | requests that did not fail, and that did | the target |
//! | mean, rate, other ratio | the minute as a whole | 1 % of the minutes |
//!
//! A target within a bucket divides it evenly; in the first and in the infinite bucket nothing says how, and the minute is
//! missing. So is every minute that was not measured: it spends nothing, and is not counted as kept either. Burn rates,
//! pairs of windows and their alert thresholds: Google, The Site Reliability Workbook, chapter 5.

use super::compliance::{Compliance, ComplianceStatus, beyond, evaluate};
use super::minutes::{MINUTES_KEPT, Minutes};
use super::slo::{Aggregation, FAILURE_RATIO, Side, Slo, Subject};
use crate::measure::Measurement;

/// Share of minutes that may be bad where a minute counts as a whole.
pub const MINUTES_BUDGET: f64 = 0.01;

/// Good and bad of a time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GoodBad {
    /// Observations, requests or minutes within the target.
    pub good: f64,
    /// Those that were not.
    pub bad: f64,
}

/// How fast a budget is spent over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burn {
    /// Length of the window, in minutes.
    pub window_minutes: u32,
    /// Of those, minutes that are known.
    pub covered_minutes: u32,
    /// Share of bad over the budget, over the minutes that are known: at 1 the budget is spent when the window ends. None
    /// where no minute is known.
    pub rate: Option<f64>,
}

/// A short and a long window that alert together: the long one says that it matters, the short one that it goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BurnPair {
    /// The short window.
    pub short: Burn,
    /// The long window.
    pub long: Burn,
    /// From which rate on, in both, somebody is called.
    pub threshold: f64,
    /// Whether both are beyond it. None where too little of a window is known: minutes that are missing may have been good.
    pub firing: Option<bool>,
}

/// The error budget of one SLO.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorBudget {
    /// Name of the SLO.
    pub slo: String,
    /// Share that may be bad, 0 to 1.
    pub budget_ratio: f64,
    /// 5 minutes and 1 hour, at 14.4.
    pub fast: BurnPair,
    /// 30 minutes and 6 hours, at 6.
    pub slow: BurnPair,
    /// Share of the budget of six hours that is left; below zero it is overspent. Minutes that are missing have spent
    /// nothing of it. None where no minute is known.
    pub left_ratio: Option<f64>,
}

/// Short and long window in minutes, and the threshold.
const FAST: (u32, u32, f64) = (5, 60, 14.4);
const SLOW: (u32, u32, f64) = (30, MINUTES_KEPT as u32, 6.0);

/// The budgets of these SLOs, as of a minute. Of one that the minutes were not counted for, none is known.
pub fn error_budgets(minutes: &Minutes, slos: &[Slo], now: u64) -> Vec<ErrorBudget> {
    // the minute that has just begun has not been measured yet
    let end = match minutes.last() {
        Some(last) if last + 1 == now => last,
        _ => now,
    };
    let budget_of = |slo: &Slo| {
        let budget = budget_ratio(slo);
        let pair = |(short, long, threshold)| {
            let burn = |window| burn(minutes, slo, budget, (end, window));
            BurnPair::of(burn(short), burn(long), threshold)
        };
        let slow = pair(SLOW);
        ErrorBudget {
            slo: slo.name.clone(),
            budget_ratio: budget,
            fast: pair(FAST),
            left_ratio: slow.long.spent_ratio().map(|spent| 1.0 - spent),
            slow,
        }
    };
    slos.iter().map(budget_of).collect()
}

fn burn(minutes: &Minutes, slo: &Slo, budget: f64, (end, window_minutes): (u64, u32)) -> Burn {
    let (sum, covered_minutes) = minutes.sum(slo, end, window_minutes);
    let all = sum.good + sum.bad;
    Burn {
        window_minutes,
        covered_minutes,
        rate: (covered_minutes > 0).then(|| match all > 0.0 {
            true => sum.bad / all / budget,
            // minutes without a request, which are known, spend nothing
            false => 0.0,
        }),
    }
}

impl Burn {
    /// Share of the window that is known, 0 to 1.
    pub fn covered_ratio(&self) -> f64 {
        f64::from(self.covered_minutes) / f64::from(self.window_minutes)
    }

    /// Share of the window's whole budget that the known minutes have spent.
    fn spent_ratio(&self) -> Option<f64> {
        self.rate.map(|rate| rate * self.covered_ratio())
    }

    /// Whether it burns as fast as this, whatever the minutes that are missing were.
    fn reaches(&self, threshold: f64) -> Option<bool> {
        let (rate, certain) = (self.rate?, self.spent_ratio()?);
        if certain >= threshold {
            Some(true)
        } else if rate < threshold {
            Some(false)
        } else {
            None
        }
    }
}

impl BurnPair {
    fn of(short: Burn, long: Burn, threshold: f64) -> Self {
        let firing = match (short.reaches(threshold), long.reaches(threshold)) {
            // of the last minutes nothing is known
            _ if short.rate.is_none() => None,
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        Self {
            short,
            long,
            threshold,
            firing,
        }
    }
}

/// Share that may be bad.
pub(super) fn budget_ratio(slo: &Slo) -> f64 {
    match (slo.aggregation, slo.comparison) {
        (Aggregation::Quantile(q), Side::AtMost) => 1.0 - q,
        (Aggregation::Quantile(q), Side::AtLeast) => q,
        _ if counts_requests(slo) => slo.target,
        _ => MINUTES_BUDGET,
    }
}

fn counts_requests(slo: &Slo) -> bool {
    slo.quantity == FAILURE_RATIO && slo.comparison == Side::AtMost
}

/// What a measurement counts as good and as bad for each of these; none where it cannot be told.
pub(super) fn good_and_bad(measurement: &Measurement, slos: &[Slo]) -> Vec<Option<GoodBad>> {
    let compliances = evaluate(measurement, slos);
    let pair = |compliance: &Compliance| pair_of(measurement, compliance);
    compliances.iter().map(pair).collect()
}

fn pair_of(measurement: &Measurement, compliance: &Compliance) -> Option<GoodBad> {
    let slo = &compliance.slo;
    let whole = |good: bool| GoodBad {
        good: f64::from(u8::from(good)),
        bad: f64::from(u8::from(!good)),
    };
    // a promise that holds only now and then is kept or missed by the minute
    let by_the_minute = match compliance.status {
        ComplianceStatus::NotApplicable => Some(GoodBad::default()),
        ComplianceStatus::Met => Some(whole(true)),
        ComplianceStatus::Violated => Some(whole(false)),
        ComplianceStatus::Unknown => None,
    };
    if compliance.status == ComplianceStatus::NotApplicable {
        return by_the_minute;
    }
    let figures = &measurement.figures;
    match (Subject::of(&slo.quantity)?, slo.aggregation) {
        (Subject::Distribution(quantity), Aggregation::Quantile(_)) => {
            // of totals since the start nothing was evaluated
            compliance.value.as_ref()?;
            let distribution = figures.distribution(quantity)?;
            let bad = beyond(distribution, slo)?.interpolated? * distribution.count;
            Some(GoodBad {
                good: (distribution.count - bad).max(0.0),
                bad,
            })
        }
        _ if counts_requests(slo) => {
            let failed = compliance.value.as_ref()?.value.number();
            let all = figures.value("requests_finished_increase")?
                + figures.value("requests_rejected_increase").unwrap_or(0.0);
            Some(GoodBad {
                good: all * (1.0 - failed),
                bad: all * failed,
            })
        }
        _ => by_the_minute,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
