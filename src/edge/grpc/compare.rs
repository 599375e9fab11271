//! CompareMetrics: the request read, compared, and the answer written.

use super::{pb, receive};
use crate::agent::Error;
use crate::measure::{Better, Caution, Comparison, Verdict, compare};

/// The answer to a request, for every edge.
///
/// # Errors
/// Measurements that are none: the first field that is wrong on each side.
pub fn answer(request: pb::CompareMetricsRequest) -> Result<pb::CompareMetricsResponse, Error> {
    let baseline = receive::measurement("baseline", request.baseline);
    let candidate = receive::measurement("candidate", request.candidate);
    let (baseline, candidate) = match (baseline, candidate) {
        (Ok(baseline), Ok(candidate)) => (baseline, candidate),
        (baseline, candidate) => {
            let wrong = baseline.err().into_iter().chain(candidate.err());
            return Err(Error::Invalid(wrong.collect()));
        }
    };
    let compared = compare(&baseline, &candidate);
    Ok(pb::CompareMetricsResponse {
        comparisons: compared.quantities.iter().map(comparison).collect(),
        cautions: compared.cautions.into_iter().map(caution).collect(),
    })
}

fn comparison(of: &Comparison) -> pb::Comparison {
    let count = |intervals| u32::try_from(intervals).unwrap_or(u32::MAX);
    pb::Comparison {
        name: of.name.to_owned(),
        better: match of.better {
            Better::Lower => pb::Direction::Lower,
            Better::Higher => pb::Direction::Higher,
        }
        .into(),
        baseline: of.baseline,
        candidate: of.candidate,
        ratio: of.ratio,
        ratio_interval: of
            .ratio_interval
            .map(|(low, high)| pb::RatioInterval { low, high }),
        baseline_intervals: count(of.baseline_intervals),
        candidate_intervals: count(of.candidate_intervals),
        smallest_detectable_change_ratio: of.smallest_detectable_change_ratio,
        p_value: of.p_value,
        verdict: match of.verdict {
            Verdict::Improved => pb::ComparisonVerdict::Improved,
            Verdict::Regressed => pb::ComparisonVerdict::Regressed,
            Verdict::NoDifferenceShown => pb::ComparisonVerdict::NoDifferenceShown,
            Verdict::Inconclusive => pb::ComparisonVerdict::Inconclusive,
            Verdict::NotComparable(_) => pb::ComparisonVerdict::NotComparable,
        }
        .into(),
        reason: match of.verdict {
            Verdict::NotComparable(why) => Some(why.as_str().to_owned()),
            _ => None,
        },
        explanation: of.explanation(),
    }
}

fn caution(of: Caution) -> pb::Caution {
    pb::Caution {
        code: of.code.as_str().to_owned(),
        message: of.message,
    }
}
