//! What closed predictions say of the next one.

use std::collections::BTreeMap;

use super::super::prediction::{PredictedQuantity, QuantityPrediction};
use super::{ActualQuantity, LedgerEntry, LedgerState};

/// What closed predictions say of the next one, lever by lever. Simulated engines have one of their own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackRecord {
    levers: BTreeMap<String, LeverRecord>,
    all: LeverRecord,
}

/// The closed predictions of one lever.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeverRecord {
    /// How many closed.
    pub closed: u32,
    /// How often the interval contained what was measured, quantity by quantity.
    pub coverage: BTreeMap<PredictedQuantity, Coverage>,
    /// How far each quantity missed, in half-widths of its interval as the model gave it.
    misses: Vec<f64>,
}

/// How often an interval contained what was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Predictions whose quantity was measured afterwards.
    pub judged: u32,
    /// Of those, within the interval.
    pub covered: u32,
}

/// Closed predictions that weigh as much as what the model says without any.
const PRIOR_PREDICTIONS: f64 = 20.0;
/// Share of what was measured that an interval is to contain.
const COVERAGE: f64 = 0.9;
/// What the record may do to an interval.
const FACTORS: (f64, f64) = (0.7, 3.0);
/// How near and how far a miss is counted, in half-widths: what is nearer or further says no more.
const MISSES: (f64, f64) = (0.5, 10.0);
/// No interval is narrower than this to each side, in logs.
const LEAST_HALF_WIDTH: f64 = 1e-3;

impl TrackRecord {
    /// The record of those of these that are closed, of simulated engines or of the others.
    pub fn of<'e>(entries: impl IntoIterator<Item = &'e LedgerEntry>, simulated: bool) -> Self {
        let mut record = Self::default();
        for entry in entries {
            if let LedgerState::Closed { actual, .. } = &entry.state
                && entry.simulated == simulated
            {
                record.all.add(entry, actual);
                let of_lever = record.levers.entry(entry.lever.clone()).or_default();
                of_lever.add(entry, actual);
            }
        }
        record
    }

    /// By what the half-width, in logs, of the next interval of this lever is to be multiplied, and how many closed
    /// predictions say so: 1 and 0 without any.
    ///
    /// Of each quantity of each closed prediction, the miss is `|ln(measured ratio / predicted ratio)|` in half-widths of
    /// its interval to that side, as they were before an earlier record widened them. With `q` the 90 % quantile of the
    /// misses and `n` the closed predictions, the factor is `q^(n / (n + 20))`, from 0.7 to 3: what would have covered
    /// 90 %, as far as there is evidence for it.
    pub fn factor(&self, lever: &str) -> (f64, u32) {
        match self.levers.get(lever) {
            Some(of_lever) => (of_lever.factor(), of_lever.closed),
            None => (1.0, 0),
        }
    }

    /// Levers with closed predictions, by name.
    pub fn levers(&self) -> impl Iterator<Item = (&str, &LeverRecord)> {
        let levers = self.levers.iter();
        levers.map(|(lever, record)| (lever.as_str(), record))
    }

    /// All levers together.
    pub fn all(&self) -> &LeverRecord {
        &self.all
    }
}

impl LeverRecord {
    fn add(&mut self, entry: &LedgerEntry, actual: &[ActualQuantity]) {
        self.closed = self.closed.saturating_add(1);
        for one in actual {
            let coverage = self.coverage.entry(one.quantity).or_default();
            coverage.judged += 1;
            coverage.covered += u32::from(one.covered);
            let predicted = entry.predicted.iter();
            let of_same = |predicted: &&QuantityPrediction| predicted.quantity == one.quantity;
            self.misses.extend(
                predicted
                    .filter(of_same)
                    .map(|predicted| miss(predicted, one.ratio, entry.widened_by)),
            );
        }
    }

    /// What the half-width of the next interval is to be multiplied by; see [`TrackRecord::factor`].
    pub fn factor(&self) -> f64 {
        let mut misses = self.misses.clone();
        misses.sort_by(f64::total_cmp);
        let place = (COVERAGE * misses.len() as f64).ceil() as usize;
        let Some(quantile) = misses.get(place.saturating_sub(1)) else {
            return 1.0;
        };
        let closed = f64::from(self.closed);
        let weight = closed / (closed + PRIOR_PREDICTIONS);
        let (least, most) = FACTORS;
        quantile.powf(weight).clamp(least, most)
    }
}

/// How far a quantity missed, in half-widths of its interval as it was before a record widened it.
fn miss(predicted: &QuantityPrediction, actual_ratio: f64, widened_by: f64) -> f64 {
    let off = (actual_ratio / predicted.ratio).ln();
    let end = match off > 0.0 {
        true => predicted.ratio_high,
        false => predicted.ratio_low,
    };
    let half_width = (end / predicted.ratio).ln().abs() / widened_by;
    let (least, most) = MISSES;
    (off.abs() / half_width.max(LEAST_HALF_WIDTH)).clamp(least, most)
}
