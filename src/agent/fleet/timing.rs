//! When an instance is scraped. Pure.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use rustc_hash::FxBuildHasher;

/// The times of an instance's scrapes, from its start: each interval, and a little later by a part that differs from
/// instance to instance and from time to time, so that a fleet does not scrape in step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    interval: Duration,
    seed: u64,
}

/// The jitter is less than one part in this many of the interval.
const JITTER_PART: u32 = 10;
/// The second scrape comes no later than this after the first, so that a new instance soon has a window.
const SECOND_SCRAPE: Duration = Duration::from_secs(5);
/// A replica that fails is asked again after this long at the latest, or at its interval where that is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Instances that are taken over are scraped within this time.
const TAKEOVER: Duration = Duration::from_secs(5);
/// The grid is one part in this many of the interval, and no wider than that.
const GRID_PART: u32 = 100;
const MAX_GRID: Duration = Duration::from_millis(100);
/// Between the starts of two instances that begin together.
const START_SPACING: Duration = Duration::from_millis(10);

impl Timing {
    pub(super) fn new(instance_id: &str, interval: Duration) -> Self {
        let mut hasher = FxBuildHasher.build_hasher();
        hasher.write(instance_id.as_bytes());
        Self {
            interval,
            seed: hasher.finish(),
        }
    }

    /// How long after the start the scrape of this number is due.
    pub(super) fn due(&self, tick: u32) -> Duration {
        let Some(later) = tick.checked_sub(1) else {
            return Duration::ZERO;
        };
        let second = self.interval.min(SECOND_SCRAPE);
        // the second one is not late by a part of an interval that may be long
        let jitter = if later == 0 { second } else { self.interval } / JITTER_PART;
        let share = mixed(self.seed ^ u64::from(tick)) as f64 / u64::MAX as f64;
        let whole = self.interval.saturating_mul(later);
        second
            .saturating_add(whole)
            .saturating_add(jitter.mul_f64(share))
    }

    /// How long after an agent took an instance over its first scrape is due: of those that are taken over together each at
    /// its own time.
    pub(super) fn takeover_after(&self) -> Duration {
        let share = mixed(self.seed) as f64 / u64::MAX as f64;
        self.interval.min(TAKEOVER).mul_f64(share)
    }

    /// How many scrapes later a replica is asked again that failed this many times in a row.
    pub(super) fn backoff(&self, failures: u32) -> u32 {
        let doubled = 1_u32 << failures.saturating_sub(1).min(16);
        let most = MAX_BACKOFF.as_secs_f64() / self.interval.as_secs_f64();
        doubled.min(most as u32).max(1)
    }
}

/// A time after the fleet's start, up to the next of a grid: what is due at about the same time is done in one go, which
/// costs less than to wake up for each.
pub(super) fn on_grid(since_start: Duration, interval: Duration) -> Duration {
    let grid = (interval / GRID_PART).min(MAX_GRID);
    let nanos = grid.as_nanos().max(1);
    let up = since_start.as_nanos().div_ceil(nanos).saturating_mul(nanos);
    Duration::from_nanos(u64::try_from(up).unwrap_or(u64::MAX))
}

/// How long after the agent's start the instance at this place begins.
pub(super) fn start_after(place: usize, interval: Duration) -> Duration {
    let spread = START_SPACING.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
    // a fleet that is larger than an interval holds goes round
    let whole = interval.as_nanos().max(1);
    let nanos = spread.as_nanos() % whole;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// SplitMix64 (Steele, Lea and Flood, 2014): neighbouring inputs give unrelated outputs.
fn mixed(input: u64) -> u64 {
    let mut state = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_fleet_does_not_scrape_in_step() {
        let of = |id: &str| Timing::new(id, SECONDS(15)).due(7);
        assert_ne!(of("a"), of("b"));
        assert_eq!(start_after(0, SECONDS(15)), Duration::ZERO);
        assert_eq!(start_after(3, SECONDS(15)), Duration::from_millis(30));
        assert_eq!(start_after(2_000, SECONDS(15)), SECONDS(5));
    }

    #[test]
    fn a_failing_replica_is_asked_less_often_and_never_given_up() {
        let ticks = |interval, failures| Timing::new("a", interval).backoff(failures);
        let fast: Vec<u32> = (1..8).map(|failures| ticks(SECONDS(1), failures)).collect();
        assert_eq!(fast, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(ticks(SECONDS(15), 9), 2);
        assert_eq!(ticks(SECONDS(60), u32::MAX), 1);
    }

    #[test]
    fn what_is_due_at_about_the_same_time_is_done_in_one_go() {
        let at = |millis, interval| on_grid(Duration::from_millis(millis), interval);
        assert_eq!(at(1_001, SECONDS(15)), at(1_099, SECONDS(15)));
        assert_eq!(at(1_100, SECONDS(15)), Duration::from_millis(1_100));
        // little where scrapes are close together
        assert_eq!(
            at(1_001, Duration::from_millis(200)),
            Duration::from_millis(1_002)
        );
    }

    proptest! {
        #[test]
        fn scrapes_keep_their_distance(millis in 200_u64..300_000, tick in 1_u32..1_000_000, id in "[a-z]{1,9}") {
            let interval = Duration::from_millis(millis);
            let timing = Timing::new(&id, interval);
            let gap = timing.due(tick + 1) - timing.due(tick);
            prop_assert!(gap >= interval.mul_f64(0.9) && gap <= interval.mul_f64(1.1), "{gap:?}");
        }
    }
}
