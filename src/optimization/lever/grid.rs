//! Values that a person would type.

/// Most alternatives of a family: each is simulated.
pub(super) const MOST: usize = 9;

/// 1, 2, 3, 4, 6, 8, 12, 16, 24 …: powers of two, and half-way between.
fn round_numbers() -> impl Iterator<Item = u32> {
    (0..24).flat_map(|power: u32| {
        let whole = 1u32 << power;
        let between = (power > 0).then(|| whole + whole / 2);
        [Some(whole), between].into_iter().flatten()
    })
}

/// Round numbers above one and up to another, at most [`MOST`] of them, spread evenly.
pub(super) fn above(from: f64, up_to: f64) -> Vec<u32> {
    let meant = |value: &u32| f64::from(*value) > from && f64::from(*value) <= up_to;
    thin(round_numbers().filter(meant).collect())
}

/// Round numbers from one up, and below another.
pub(super) fn below(from: f64, down_to: f64) -> Vec<u32> {
    let meant = |value: &u32| f64::from(*value) < from && f64::from(*value) >= down_to;
    thin(round_numbers().filter(meant).collect())
}

/// At most [`MOST`] of them, the first and the last among these.
pub(super) fn thin<T: Copy>(all: Vec<T>) -> Vec<T> {
    if all.len() <= MOST {
        return all;
    }
    let last = all.len() - 1;
    let spread = (0..MOST).map(|at| at * last / (MOST - 1));
    spread.filter_map(|at| all.get(at).copied()).collect()
}

/// Where the value nearest to `wanted` stands, by ratio.
pub(super) fn nearest(values: &[f64], wanted: f64) -> usize {
    let distance = |value: f64| (value.max(1e-9) / wanted.max(1e-9)).ln().abs();
    let numbered = values.iter().enumerate();
    numbered
        .min_by(|one, other| distance(*one.1).total_cmp(&distance(*other.1)))
        .map_or(0, |(at, _)| at)
}

/// The same of whole numbers.
pub(super) fn nearest_of(values: &[u32], wanted: f64) -> usize {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    nearest(&values, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_round_and_leave_out_what_is_in_force() {
        assert_eq!(above(4.0, 32.0), [6, 8, 12, 16, 24, 32]);
        assert_eq!(below(16.0, 3.0), [3, 4, 6, 8, 12]);
        assert_eq!(above(8.0, 8.0), Vec::<u32>::new());
        let many = above(1.0, 8_192.0);
        assert_eq!(
            (many.len(), many.first(), many.last()),
            (MOST, Some(&2), Some(&8_192))
        );
        assert!(many.is_sorted());
        assert!(above(1.0, f64::INFINITY).len() == MOST);
        assert!(above(f64::NAN, 8.0).is_empty());
    }

    #[test]
    fn the_nearest_is_so_by_ratio() {
        assert_eq!(nearest_of(&[8, 16, 32, 64], 30.0), 2);
        assert_eq!(nearest_of(&[8, 16], 1e9), 1);
        assert_eq!(nearest(&[], 1.0), 0);
    }
}
