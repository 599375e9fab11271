//! From what the members say to an interval.

use statrs::distribution::{ContinuousCDF, Normal};

/// What one member says: the logarithm of after over before, with its weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Say {
    pub(super) log_ratio: f64,
    pub(super) weight: f64,
}

/// The middle and the ends of the 90 % interval, as logarithms. Each member's word is blurred by `sigma`, so that it is a
/// mixture of normal distributions; its quantiles are found by halving.
pub(super) fn interval(says: &[Say], sigma: f64) -> Option<[f64; 3]> {
    let all: f64 = says.iter().map(|say| say.weight).sum();
    if says.is_empty() || all <= 0.0 || !sigma.is_finite() {
        return None;
    }
    let normal = Normal::standard();
    let below = |at: f64| {
        let parts = says
            .iter()
            .map(|say| say.weight * normal.cdf((at - say.log_ratio) / sigma.max(1e-6)));
        parts.sum::<f64>() / all
    };
    let least = says
        .iter()
        .map(|say| say.log_ratio)
        .fold(f64::INFINITY, f64::min);
    let most = says
        .iter()
        .map(|say| say.log_ratio)
        .fold(f64::NEG_INFINITY, f64::max);
    let at = |share: f64| {
        let (mut low, mut high) = (least - 6.0 * sigma - 1e-6, most + 6.0 * sigma + 1e-6);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match below(middle) < share {
                true => low = middle,
                false => high = middle,
            }
        }
        (low + high) / 2.0
    };
    let found = [at(0.5), at(0.05), at(0.95)];
    found.iter().all(|one| one.is_finite()).then_some(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_voice_has_the_interval_of_a_normal_distribution() {
        let say = Say {
            log_ratio: 0.7,
            weight: 0.2,
        };
        let [middle, low, high] = interval(&[say], 0.1).unwrap();
        assert!((middle - 0.7).abs() < 1e-6);
        assert!((high - 0.7 - 0.164_485).abs() < 1e-4 && (0.7 - low - 0.164_485).abs() < 1e-4);
        assert_eq!(interval(&[], 0.1), None);
    }

    #[test]
    fn members_that_do_not_agree_make_it_wide() {
        let say = |log_ratio| Say {
            log_ratio,
            weight: 0.5,
        };
        let [_, low, high] = interval(&[say(0.0), say(0.7)], 0.05).unwrap();
        assert!(low < 0.0 && high > 0.7, "{low} {high}");
    }
}
