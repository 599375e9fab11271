//! Over how long a target is measured, checked.

use std::time::Duration;

use crate::instance::FieldViolation;
use crate::measure::WindowKind;

use super::{Error, LIMITS};

/// The window as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowRequest {
    /// Its length; none where the caller leaves it to us, zero for totals since the engine's start.
    pub length: Option<Duration>,
    /// Time left until the caller's deadline.
    pub deadline_in: Option<Duration>,
}

/// The window as it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) length: Duration,
    pub(super) kind: WindowKind,
}

impl WindowRequest {
    /// The window, or what is wrong with the one asked for.
    pub(super) fn plan(self) -> Result<Plan, Error> {
        let length = self.length.unwrap_or(LIMITS.default_window);
        let wrong = |description| {
            Err(Error::Invalid(vec![FieldViolation::new(
                "window",
                description,
            )]))
        };
        if length > LIMITS.window {
            return wrong(format!(
                "{} s is longer than {} s; for longer ones take several and compare them",
                length.as_secs_f64(),
                LIMITS.window.as_secs()
            ));
        }
        if let Some(left) = self.deadline_in
            && length >= left
            && !length.is_zero()
        {
            return wrong(format!(
                "{} s do not fit into the {:.1} s until the call's deadline; give the call more time \
                 or the window less",
                length.as_secs_f64(),
                left.as_secs_f64()
            ));
        }
        let kind = if length.is_zero() {
            WindowKind::SinceStart
        } else {
            WindowKind::Interval
        };
        Ok(Plan { length, kind })
    }
}

impl Plan {
    /// When to sample, from the beginning of the window: each second, and at its end.
    pub(super) fn ticks(self) -> Vec<Duration> {
        const EACH: Duration = Duration::from_secs(1);
        let mut ticks = vec![Duration::ZERO];
        if self.kind == WindowKind::Interval {
            let mut at = EACH;
            // an interval of a fraction of a second before the end would tell nothing
            while at + EACH / 2 < self.length {
                ticks.push(at);
                at += EACH;
            }
            ticks.push(self.length);
        }
        ticks
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(length: Option<u64>, left: Option<u64>) -> Result<Plan, Error> {
        WindowRequest {
            length: length.map(Duration::from_millis),
            deadline_in: left.map(Duration::from_millis),
        }
        .plan()
    }

    #[test]
    fn windows_are_bounded_by_limit_and_deadline() {
        assert_eq!(plan(None, None).unwrap().length, Duration::from_secs(5));
        assert_eq!(plan(Some(0), Some(1)).unwrap().kind, WindowKind::SinceStart);
        assert!(plan(Some(300_000), None).is_ok());
        assert!(plan(Some(300_001), None).is_err());
        assert!(plan(Some(5_000), Some(4_000)).is_err());
        assert!(plan(None, Some(4_000)).is_err());
        assert!(plan(Some(3_000), Some(4_000)).is_ok());
    }

    #[test]
    fn a_window_is_sampled_each_second_and_at_its_end() {
        let ticks = |millis| -> Vec<u128> {
            let plan = plan(Some(millis), None).unwrap();
            plan.ticks().iter().map(Duration::as_millis).collect()
        };
        assert_eq!(ticks(0), [0]);
        assert_eq!(ticks(300), [0, 300]);
        assert_eq!(ticks(2_000), [0, 1_000, 2_000]);
        assert_eq!(ticks(2_200), [0, 1_000, 2_200]);
        assert_eq!(ticks(2_700), [0, 1_000, 2_000, 2_700]);
    }
}
