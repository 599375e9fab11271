//! Random numbers by number: the same for the same seed, use and index, in whatever order they are asked for.

/// A source of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Random {
    seed: u64,
}

/// What a number is used for. Uses are independent of one another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Arrival = 1,
    Class,
    PromptLength,
    OutputLength,
    PrefixGroup,
    Abort,
    AbortAfter,
    Failure,
    Think,
    Speculation,
    Jitter,
    Pause,
    PauseLength,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Uniform in (0, 1).
    pub(super) fn unit(self, what: Use, index: u64) -> f64 {
        let bits = mix(mix(self.seed ^ (what as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)) ^ index);
        // 52 bits and a half, so that neither end is reached
        ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Exponential with mean 1.
    pub(super) fn exponential(self, what: Use, index: u64) -> f64 {
        -self.unit(what, index).ln()
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_uniform_and_uses_independent() {
        let random = Random::new(7);
        let count = 100_000_u64;
        let (mut sum, mut product, mut exponential) = (0.0, 0.0, 0.0);
        for index in 0..count {
            let (a, b) = (
                random.unit(Use::Arrival, index),
                random.unit(Use::Class, index),
            );
            assert!(a > 0.0 && a < 1.0);
            sum += a;
            product += (a - 0.5) * (b - 0.5);
            exponential += random.exponential(Use::Think, index);
        }
        let count = count as f64;
        // five standard errors each
        assert!((sum / count - 0.5).abs() < 5.0 / (12.0 * count).sqrt());
        assert!((product / count).abs() < 5.0 / (12.0 * count.sqrt()));
        assert!((exponential / count - 1.0).abs() < 5.0 / count.sqrt());
        assert_eq!(
            random.unit(Use::Class, 3),
            Random::new(7).unit(Use::Class, 3)
        );
        assert_ne!(
            random.unit(Use::Class, 3),
            Random::new(8).unit(Use::Class, 3)
        );
    }
}
