//! What is to be measured, checked.

use std::time::Duration;

use crate::engine::Registry;
use crate::measure::WindowKind;
use crate::scrape::parse_url;
use crate::units::{is_id, nearest};

use super::error::FieldViolation;
use super::{Error, LIMITS};

/// An inline target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Id that the caller gives it.
    pub instance_id: String,
    /// Engine; none means that it is recognised.
    pub engine: Option<String>,
    /// One URL a replica.
    pub metrics_urls: Vec<String>,
}

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

impl Target {
    /// Checks everything that can be checked without asking the target.
    pub(super) fn violations(&self, registry: &Registry) -> Vec<FieldViolation> {
        let mut found = Vec::new();
        if !is_id(&self.instance_id) {
            found.push(FieldViolation::new(
                "instance_id",
                "must be 1 to 63 lower-case letters, digits, `-` and `.`, and begin and end with a \
                 letter or digit, such as vllm-1",
            ));
        }
        if let Some(engine) = &self.engine
            && registry.get(engine).is_none()
        {
            let names = registry.names();
            let meant = nearest(engine, names.iter().copied()).unwrap_or("auto");
            found.push(FieldViolation::new(
                "instance_type",
                format!(
                    "no engine `{}`; known are auto, {}; the nearest is `{meant}`",
                    shortened(engine),
                    names.join(", ")
                ),
            ));
        }
        match self.metrics_urls.len() {
            0 => found.push(FieldViolation::new(
                "metrics_url",
                "give the engine's metrics URL, such as http://127.0.0.1:8000/metrics",
            )),
            count if count > LIMITS.replicas => found.push(FieldViolation::new(
                "metrics_urls",
                format!(
                    "{count} replicas; at most {} in one target",
                    LIMITS.replicas
                ),
            )),
            _ => {}
        }
        // of more than may be given none is looked at
        let looked_at = self.metrics_urls.iter().take(LIMITS.replicas);
        for (at, url) in looked_at.enumerate() {
            let before = self.metrics_urls.iter().take(at);
            if before.into_iter().any(|known| same_place(known, url)) {
                found.push(FieldViolation::new(
                    "metrics_urls",
                    format!(
                        "{} is given twice; replicas would be counted twice",
                        shortened(url)
                    ),
                ));
            }
            if url.len() > MAX_URL_BYTES {
                found.push(FieldViolation::new(
                    "metrics_urls",
                    format!("a URL of {} bytes; at most {MAX_URL_BYTES}", url.len()),
                ));
            } else if let Err(refusal) = parse_url(url) {
                let hint = refusal.hint().unwrap_or_default();
                found.push(FieldViolation::new(
                    "metrics_url",
                    format!("{refusal}; {hint}"),
                ));
            }
        }
        found
    }
}

const MAX_URL_BYTES: usize = 2_048;

/// Whether two URLs are the same but for their spelling.
fn same_place(a: &str, b: &str) -> bool {
    let normal = |url: &str| {
        let mut url = parse_url(url).ok()?;
        url.set_fragment(None);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Some(url)
    };
    a == b || normal(a).is_some_and(|a| Some(a) == normal(b))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
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

    fn fields(target: &Target) -> Vec<String> {
        target
            .violations(&Registry::builtin())
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    fn good() -> Target {
        Target {
            instance_id: "vllm-1".to_owned(),
            engine: Some("vllm".to_owned()),
            metrics_urls: vec!["http://127.0.0.1:8000/metrics".to_owned()],
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(fields(&good()), Vec::<String>::new());
        let nothing = Target {
            engine: Some("vlm".to_owned()),
            ..Target::default()
        };
        assert_eq!(
            fields(&nothing),
            ["instance_id", "instance_type", "metrics_url"]
        );
        let mut twice = good();
        twice.metrics_urls.extend(good().metrics_urls);
        assert_eq!(fields(&twice), ["metrics_urls"]);
        let mut many = good();
        many.metrics_urls = (0..65).map(|at| format!("http://h{at}/metrics")).collect();
        assert_eq!(fields(&many), ["metrics_urls"]);
    }

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
