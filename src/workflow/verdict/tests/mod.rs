//! What a verdict must do, whatever was observed.

mod observed;
mod properties;
mod rules;

use std::collections::BTreeMap;

use super::*;
use JudgedQuantity as J;

/// Numbers that look random and are the same each time (SplitMix64, Steele et al., OOPSLA 2014).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// About a mean, a little more or less.
    fn about(&mut self, mean: f64, spread: f64) -> f64 {
        mean * (1.0 + spread * (self.unit() + self.unit() + self.unit() - 1.5))
    }
}

/// What both sides do.
#[derive(Debug, Clone, Copy)]
struct World {
    seed: u64,
    /// Latencies of the canary over those of the control.
    ratio: f64,
    /// Share of requests that fail, of canary and control.
    failing: [f64; 2],
    /// Of each side in an interval, about.
    requests: f64,
    intervals: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            seed: 1,
            ratio: 1.0,
            failing: [0.0, 0.0],
            requests: 100.0,
            intervals: 40,
        }
    }
}

impl World {
    /// The window of this number.
    fn observation(&self, number: u32) -> Observation {
        let mut random = Random(self.seed.wrapping_mul(31).wrapping_add(u64::from(number)));
        let mut pairs: BTreeMap<J, Vec<Pair>> = BTreeMap::new();
        let mut all = [0.0, 0.0];
        for _ in 0..self.intervals {
            let wave = random.about(1.0, 0.2);
            let mut side = |canary: bool| {
                let times = if canary { self.ratio } else { 1.0 };
                let count = random.about(self.requests, 0.2).round().max(1.0);
                let mut of = |mean: f64, count: f64| Side {
                    numerator: random.about(mean * times * wave, 0.1) * count,
                    denominator: count,
                };
                let means = [of(0.1, count), of(0.02, 50.0 * count), of(1.2, count)];
                let late = (0.03 * times * times * count).round().min(count);
                let beyond = [count, 50.0 * count, count].map(|count| Side {
                    numerator: late.min(count),
                    denominator: count,
                });
                let failing = self.failing[usize::from(!canary)];
                let failed = Side {
                    numerator: (failing * count + random.unit()).floor().min(count)
                        * f64::from(u8::from(failing > 0.0)),
                    denominator: count,
                };
                (
                    count,
                    [
                        means[0], means[1], means[2], beyond[0], beyond[1], beyond[2], failed,
                    ],
                )
            };
            let ((canary_count, canary), (control_count, control)) = (side(true), side(false));
            all[0] += canary_count;
            all[1] += control_count;
            for (quantity, (canary, control)) in
                J::ALL.into_iter().zip(canary.into_iter().zip(control))
            {
                pairs
                    .entry(quantity)
                    .or_default()
                    .push(Pair { canary, control });
            }
        }
        let start = f64::from(number) * 600.0;
        Observation {
            start_unix_seconds: start,
            end_unix_seconds: start + 600.0,
            first_tick: number * 40,
            last_tick: number * 40 + 40,
            evidence: Evidence::SameTime,
            control_start_unix_seconds: start,
            control_end_unix_seconds: start + 600.0,
            engine: "vllm".to_owned(),
            canary_replicas: 1,
            control_replicas: 1,
            simulated: false,
            control_simulated: false,
            bounds: Bounds::default(),
            saturated: false,
            traffic: Traffic {
                replica_seconds: [600.0, 600.0],
                requests: all,
                prompt_tokens: Some([100.0, 100.0]),
                output_tokens: Some([50.0, 50.0]),
            },
            dropped: Vec::new(),
            pairs,
            one_sided: Vec::new(),
        }
    }

    fn observations(&self, count: u32) -> Vec<Observation> {
        (0..count).map(|number| self.observation(number)).collect()
    }
}

fn word(observations: &[Observation]) -> VerdictWord {
    verdict(observations, &VerdictPolicy::default()).word
}

fn of(said: &Verdict, quantity: J) -> &QuantityVerdict {
    let found = said.quantities.iter().find(|one| one.quantity == quantity);
    found.unwrap()
}
