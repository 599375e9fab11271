//! Two measurements → what is different, quantity by quantity, and how sure that is.
//!
//! A verdict says what is known and no more. It is taken at a level of 5 % for all quantities together (Holm, Scand. J.
//! Statistics 6, 1979): of two measurements of the same thing, at most one comparison in twenty finds any difference.

use crate::engine::Quantity;

use super::caution::{Caution, cautions_of};
use super::estimate::{Difference, Estimate, MIN_INTERVALS, telling};
use super::intervals::{FAILURES, Series};
use super::measurement::{Figures, Measurement, WindowKind};

/// Confidence of the interval of each ratio.
pub const CONFIDENCE: f64 = 0.95;

/// Chance that any verdict of a comparison finds a difference where there is none.
const LEVEL: f64 = 0.05;

/// Chance with which the smallest detectable change is found.
const POWER: f64 = 0.8;

/// What two measurements say about each other.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedMeasurements {
    /// Each quantity that at least one of them has.
    pub quantities: Vec<Comparison>,
    /// What else differs, so that a difference need not come from what was changed.
    pub cautions: Vec<Caution>,
}

/// One quantity on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Its name, with the unit of both values.
    pub name: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Its value in the baseline.
    pub baseline: Option<f64>,
    /// Its value in the candidate.
    pub candidate: Option<f64>,
    /// Candidate over baseline; none where one is missing or the baseline is zero.
    pub ratio: Option<f64>,
    /// Bounds of the ratio with [`CONFIDENCE`], by itself.
    pub ratio_interval: Option<(f64, f64)>,
    /// Intervals of the baseline in which something was observed.
    pub baseline_intervals: usize,
    /// Intervals of the candidate in which something was observed.
    pub candidate_intervals: usize,
    /// The change of the ratio, up from 1, that would be found four times out of five.
    pub smallest_detectable_change_ratio: Option<f64>,
    /// How likely a difference of this size is where there is none, corrected for the number of quantities.
    pub p_value: Option<f64>,
    /// What is known.
    pub verdict: Verdict,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Latencies, failures.
    Lower,
    /// Throughput.
    Higher,
}

/// What is known of a quantity on two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The candidate is better.
    Improved,
    /// The candidate is worse.
    Regressed,
    /// Neither was shown. Changes below the smallest detectable one are not ruled out.
    NoDifferenceShown,
    /// Too little was observed to tell how much either side varies.
    Inconclusive,
    /// The values cannot be held against each other.
    NotComparable(Incomparable),
}

/// Why two values cannot be held against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomparable {
    /// Engines count and time different things under the same name.
    EngineDiffers,
    /// One side is simulated.
    SimulationDiffers,
    /// One side has totals since the engine's start, and no window.
    NoWindow,
    /// The baseline does not have it.
    AbsentInBaseline,
    /// The candidate does not have it.
    AbsentInCandidate,
    /// Nothing is a multiple of zero.
    ZeroBaseline,
    /// Requests were not waiting throughout on both sides: the throughput is that of the clients.
    FollowsLoad,
}

/// What is compared, and which way is better. Throughput only tells about an engine that cannot keep up.
const COMPARED: [(&str, Better, Kind); 11] = [
    (
        "generation_tokens_per_second",
        Better::Higher,
        Kind::Throughput,
    ),
    ("prompt_tokens_per_second", Better::Higher, Kind::Throughput),
    (
        "requests_finished_per_second",
        Better::Higher,
        Kind::Throughput,
    ),
    ("time_to_first_token_seconds", Better::Lower, Kind::Mean),
    ("inter_token_latency_seconds", Better::Lower, Kind::Mean),
    ("time_per_output_token_seconds", Better::Lower, Kind::Mean),
    ("e2e_request_latency_seconds", Better::Lower, Kind::Mean),
    ("queue_time_seconds", Better::Lower, Kind::Mean),
    ("prefill_time_seconds", Better::Lower, Kind::Mean),
    ("decode_time_seconds", Better::Lower, Kind::Mean),
    (FAILURES, Better::Lower, Kind::Mean),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Throughput,
    Mean,
}

/// Compares two measurements, of one instance at two times or of two instances.
pub fn compare(baseline: &Measurement, candidate: &Measurement) -> ComparedMeasurements {
    let ruled_out = ruled_out(baseline, candidate);
    let saturated = is_saturated(baseline) && is_saturated(candidate);
    let mut found: Vec<(Comparison, Option<Difference>)> = COMPARED
        .into_iter()
        .filter_map(|(name, better, kind)| {
            let sides = [Side::of(baseline, name), Side::of(candidate, name)];
            let ruled_out = ruled_out.or_else(|| match &sides {
                [Side { value: None, .. }, _] => Some(Incomparable::AbsentInBaseline),
                [_, Side { value: None, .. }] => Some(Incomparable::AbsentInCandidate),
                _ if kind == Kind::Throughput && !saturated => Some(Incomparable::FollowsLoad),
                _ => None,
            });
            comparison(name, better, &sides, ruled_out)
        })
        .collect();
    judge(&mut found);
    ComparedMeasurements {
        quantities: found
            .into_iter()
            .map(|(comparison, _)| comparison)
            .collect(),
        cautions: cautions_of(baseline, candidate),
    }
}

/// Why nothing of the two can be held against each other.
fn ruled_out(baseline: &Measurement, candidate: &Measurement) -> Option<Incomparable> {
    let has_window = |side: &Measurement| side.window.kind == WindowKind::Interval;
    if baseline.engine != candidate.engine {
        Some(Incomparable::EngineDiffers)
    } else if baseline.simulated != candidate.simulated {
        Some(Incomparable::SimulationDiffers)
    } else if !(has_window(baseline) && has_window(candidate)) {
        Some(Incomparable::NoWindow)
    } else {
        None
    }
}

/// Requests were waiting at every sample, on every replica.
fn is_saturated(of: &Measurement) -> bool {
    let replicas = of
        .replicas
        .iter()
        .filter_map(|replica| replica.outcome.as_ref().ok());
    let waits = |figures: &Figures| {
        let waiting = figures.gauge(Quantity::RequestsWaiting);
        waiting.is_some_and(|gauge| gauge.samples > 1 && gauge.min > 0.0)
    };
    waits(&of.figures) && replicas.into_iter().all(waits)
}

/// One quantity of one measurement.
struct Side {
    /// Over the whole window.
    value: Option<f64>,
    intervals: usize,
    estimate: Option<Estimate>,
}

impl Side {
    fn of(measurement: &Measurement, name: &str) -> Self {
        let figures = &measurement.figures;
        let mean = || {
            let found = figures.distributions.iter().find(|one| one.name == name);
            found.and_then(|found| found.mean)
        };
        let series: Option<&Series> = figures.series.iter().find(|one| one.name == name);
        let telling = series
            .map(|series| telling(&series.intervals))
            .unwrap_or_default();
        Self {
            value: figures
                .value(name)
                .or_else(mean)
                .or_else(|| series?.value()),
            intervals: telling.len(),
            estimate: Estimate::of(&telling),
        }
    }
}

/// Values, ratio and interval; the difference where there is something to judge. None where neither side has it.
fn comparison(
    name: &'static str,
    better: Better,
    [baseline, candidate]: &[Side; 2],
    ruled_out: Option<Incomparable>,
) -> Option<(Comparison, Option<Difference>)> {
    let estimates = baseline.estimate.zip(candidate.estimate);
    let values = match estimates {
        // of the same intervals as the interval of their ratio
        Some((baseline, candidate)) => (Some(baseline.value), Some(candidate.value)),
        None => (baseline.value, candidate.value),
    };
    let ratio = match values {
        (None, None) => return None,
        (Some(baseline), Some(candidate)) if baseline > 0.0 => Some(candidate / baseline),
        _ => None,
    };
    // numbers that no engine has, sent by a client, may be too far apart
    let ratio = ratio.filter(|ratio| ratio.is_finite());
    let logarithms = estimates.and_then(|(one, other)| Difference::of_logarithms(&one, &other));
    let interval = logarithms.and_then(|difference| difference.interval(CONFIDENCE));
    let difference = estimates
        .filter(|_| ruled_out.is_none())
        .and_then(|(one, other)| logarithms.or_else(|| Difference::of_values(&one, &other)));
    let verdict = match ruled_out {
        Some(why) => Verdict::NotComparable(why),
        None => Verdict::Inconclusive,
    };
    let comparison = Comparison {
        name,
        better,
        baseline: values.0,
        candidate: values.1,
        ratio,
        ratio_interval: interval.map(|(low, high)| (low.exp(), high.exp())),
        baseline_intervals: baseline.intervals,
        candidate_intervals: candidate.intervals,
        smallest_detectable_change_ratio: None,
        p_value: None,
        verdict,
    };
    Some((comparison, difference))
}

/// Verdicts of all that can be judged, at one level for all of them together.
fn judge(found: &mut [(Comparison, Option<Difference>)]) {
    let mut judged: Vec<(&mut Comparison, Difference)> = found
        .iter_mut()
        .filter_map(|(comparison, difference)| Some((comparison, (*difference)?)))
        .collect();
    judged.sort_by(|(_, one), (_, other)| one.p_value().total_cmp(&other.p_value()));
    let all = judged.len();
    let mut corrected: f64 = 0.0;
    for (rank, (comparison, difference)) in judged.into_iter().enumerate() {
        corrected = corrected
            .max(difference.p_value() * (all - rank) as f64)
            .min(1.0);
        comparison.p_value = Some(corrected);
        let has_ratio = comparison.ratio_interval.is_some();
        comparison.smallest_detectable_change_ratio = difference
            .detectable(LEVEL / all as f64, POWER)
            .filter(|_| has_ratio)
            .map(f64::exp_m1);
        let zero_baseline = comparison.baseline.is_some_and(|value| value <= 0.0);
        let higher_is_better = comparison.better == Better::Higher;
        comparison.verdict = if corrected < LEVEL {
            if difference.is_positive() == higher_is_better {
                Verdict::Improved
            } else {
                Verdict::Regressed
            }
        } else if zero_baseline && comparison.candidate != Some(0.0) {
            Verdict::NotComparable(Incomparable::ZeroBaseline)
        } else {
            Verdict::NoDifferenceShown
        };
    }
}

impl Comparison {
    /// A sentence for people: what the verdict rests on.
    pub fn explanation(&self) -> String {
        match self.verdict {
            Verdict::Improved => format!("the candidate is better: {}", self.change()),
            Verdict::Regressed => format!("the candidate is worse: {}", self.change()),
            Verdict::NoDifferenceShown => match self.smallest_detectable_change_ratio {
                Some(change) if change > 0.0 => format!(
                    "no difference was shown; a rise of less than {} could have been missed",
                    percent(change)
                ),
                _ => "no difference was shown".to_owned(),
            },
            Verdict::Inconclusive => {
                let fewer = self.baseline_intervals.min(self.candidate_intervals);
                if fewer >= MIN_INTERVALS {
                    return "its intervals vary beyond all that can be reckoned with".to_owned();
                }
                format!(
                    "{fewer} intervals in which it was observed, and at least {MIN_INTERVALS} a side are needed: \
                     measure over longer windows"
                )
            }
            Verdict::NotComparable(why) => why.explanation().to_owned(),
        }
    }

    fn change(&self) -> String {
        let signed = |ratio: f64| format!("{:+.1} %", (ratio - 1.0) * 100.0);
        match (self.ratio, self.ratio_interval) {
            (Some(ratio), Some((low, high))) => format!(
                "{}, and with a confidence of 95 % between {} and {}",
                signed(ratio),
                signed(low),
                signed(high)
            ),
            (Some(ratio), None) => signed(ratio),
            (None, _) => "the baseline is zero".to_owned(),
        }
    }
}

impl Incomparable {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EngineDiffers => "ENGINE_DIFFERS",
            Self::SimulationDiffers => "SIMULATION_DIFFERS",
            Self::NoWindow => "NO_WINDOW",
            Self::AbsentInBaseline => "ABSENT_IN_BASELINE",
            Self::AbsentInCandidate => "ABSENT_IN_CANDIDATE",
            Self::ZeroBaseline => "ZERO_BASELINE",
            Self::FollowsLoad => "FOLLOWS_LOAD",
        }
    }

    /// A sentence.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::EngineDiffers => "engines count and time different things under this name",
            Self::SimulationDiffers => "one side is simulated",
            Self::NoWindow => {
                "one side has totals since the engine's start: measure both over a window"
            }
            Self::AbsentInBaseline => {
                "the baseline does not have it: its `absent` says why, or nothing was observed"
            }
            Self::AbsentInCandidate => {
                "the candidate does not have it: its `absent` says why, or nothing was observed"
            }
            Self::ZeroBaseline => "the baseline is zero, and nothing is a multiple of it",
            Self::FollowsLoad => {
                "requests were not waiting throughout on both sides, so this is what clients asked for, not what the \
                 engine can do"
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
