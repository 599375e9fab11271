//! What the runner of a workflow waits for, and for how long.

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::site::Site;
use crate::workflow::StepEffect;

/// Waits until somebody asks for something, the agent stops, or this time is over, where it is not over already.
pub(super) async fn broken_off(wake: &Notify, stop: &CancellationToken, left: Option<Duration>) {
    let over = async {
        match left {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wake.notified() => {}
        () = stop.cancelled() => {}
        () = over => {}
    }
}

pub(super) fn no_room(site: &Site) -> String {
    format!(
        "other workflows were at the actuator {}, which takes only so many at once: see max_concurrent",
        site.actuator.name()
    )
}

/// Whether it waits until there is room for it at the actuator: what asks a program of the operator's, one process a time.
/// What is undone waits for nobody.
pub(super) fn takes_room(effect: StepEffect) -> bool {
    match effect {
        StepEffect::Plan
        | StepEffect::BeginWrite
        | StepEffect::Write { .. }
        | StepEffect::AwaitReady { .. }
        | StepEffect::Drain { .. }
        | StepEffect::Observe
        | StepEffect::Measure => true,
        StepEffect::Analyse
        | StepEffect::CheckQuality
        | StepEffect::BeginRestore
        | StepEffect::Restore { .. }
        | StepEffect::AwaitRestored { .. } => false,
    }
}

/// The longest between two looks at what is waited for.
pub(super) const SELDOM: Duration = Duration::from_secs(5);

/// What takes long is looked at less often, so that many that wait leave room for those that do not: the wait becomes longer
/// by a twentieth at most.
pub(super) fn spaced(after: Duration, waited: Duration, seldom: Duration) -> Duration {
    after.max(seldom.min(waited / 20))
}

pub(super) fn since(then_us: i64, now_us: i64) -> Duration {
    left(now_us, then_us)
}

pub(super) fn left(deadline_us: i64, now_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(deadline_us.saturating_sub(now_us)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_looked_at_less_often() {
        let millis = Duration::from_millis;
        let second = Duration::from_secs(1);
        for (waited, pause) in [(0, 500), (10, 500), (60, 3_000), (86_400, 5_000)] {
            let spaced = spaced(millis(500), waited * second, SELDOM);
            assert_eq!(spaced, millis(pause));
        }
        // what is to be tried late is not tried sooner
        assert_eq!(spaced(60 * second, 100 * second, SELDOM), 60 * second);
        assert_eq!(
            spaced(millis(500), 100 * second, Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        assert_eq!(since(7_000_000, 9_000_000), 2 * second);
        assert_eq!(since(9_000_000, 7_000_000), Duration::ZERO);
    }
}
