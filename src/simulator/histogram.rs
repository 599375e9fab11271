//! Observations by their size.

/// A histogram as an engine keeps it.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds: Vec<f64>,
    /// Up to each bound and not to the one before; the last is for all above.
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    /// With these upper bounds, rising.
    pub(super) fn new(bounds: &[f64]) -> Self {
        Self {
            bounds: bounds.to_vec(),
            counts: vec![0; bounds.len() + 1],
            count: 0,
            sum: 0.0,
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        self.observe_times(value, 1);
    }

    /// The same value so many times.
    pub(super) fn observe_times(&mut self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count += times;
        }
        self.count += times;
        self.sum += value * times as f64;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Bounds, infinity last, with the observations up to each.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}

/// 1, 2, 5, 10, 20, 50 … up to `most`, as vLLM's `build_1_2_5_buckets`.
pub(super) fn one_two_five(most: f64) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut decade = 1.0;
    loop {
        for step in [1.0, 2.0, 5.0] {
            if step * decade > most {
                return bounds;
            }
            bounds.push(step * decade);
        }
        decade *= 10.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_below_its_bound() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        histogram.observe(1.0);
        histogram.observe_times(1.5, 2);
        histogram.observe(9.0);
        let found: Vec<_> = histogram.cumulative().collect();
        assert_eq!(found, [(1.0, 1), (2.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 13.0));
    }

    #[test]
    fn bounds_of_lengths_end_below_the_longest() {
        assert_eq!(one_two_five(10.0), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(one_two_five(4_096.0).last(), Some(&2_000.0));
    }
}
