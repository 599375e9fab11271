//! What a workflow finds out about its instance, before a change and after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::came::Came;
use super::site::{Site, caller, failed};
use crate::agent::{Agent, Answer, Diagnosed, Error, Health, WindowRequest};
use crate::analysis::Severity;
use crate::measure::{Measurement, WindowKind};
use crate::optimization::{Effect, PredictedQuantity, measured};
use crate::workflow::{
    Analysis, Baseline, Command, Failure, FindingSummary, MeasuredEffect, MeasuredEffects,
    MeasuredValue, Workflow,
};

/// What was measured of an instance, and what holds it back.
#[derive(Debug)]
struct Seen {
    diagnosed: Arc<Diagnosed>,
    values: Vec<MeasuredValue>,
    finished: Option<f64>,
    stale: bool,
}

/// Between two looks at the last window.
const AGAIN: Duration = Duration::from_millis(500);
/// Fewest finished requests that a window after a change must have: of fewer, means and tails are chance.
const LEAST_REQUESTS: f64 = 20.0;
/// After so many windows fewer do.
const PATIENCE_WINDOWS: f64 = 5.0;

impl Agent {
    /// Finds out what holds the instance back.
    pub(super) async fn analyse(&self, site: &Site) -> Came {
        let seen = match self.see(site).await {
            Ok(seen) => seen,
            Err(Error::Invalid(wrong)) => {
                return Came::command(Command::Fail(failed(&Error::Invalid(wrong))));
            }
            Err(error) => return Came::later(AGAIN, &error),
        };
        if seen.stale {
            return Came::later(
                AGAIN,
                &"the last window is stale: the instance does not answer",
            );
        }
        let window = seen.diagnosed.window;
        if window.kind != WindowKind::Interval {
            return Came::later(AGAIN, &"no window has been measured yet");
        }
        let finding = |finding: &crate::analysis::Finding| FindingSummary {
            cause: finding.cause.as_str().to_owned(),
            severity: finding.severity.as_str().to_owned(),
            description: finding.description.clone(),
        };
        Came::command(Command::Analysed(Box::new(Analysis {
            headline: seen.diagnosed.diagnosis.headline.clone(),
            findings: seen
                .diagnosed
                .diagnosis
                .findings
                .iter()
                .map(finding)
                .collect(),
            start_unix_seconds: window.start_unix_seconds,
            end_unix_seconds: window.end_unix_seconds,
            simulated: seen.diagnosed.simulated,
            before: seen.values,
        })))
    }

    /// How things are now; none where that cannot be told.
    pub(super) async fn baseline(&self, site: &Site) -> Option<Baseline> {
        let seen = self.see(site).await.ok().filter(|seen| !seen.stale)?;
        let window = seen.diagnosed.window;
        (window.kind == WindowKind::Interval).then_some(Baseline {
            start_unix_seconds: window.start_unix_seconds,
            end_unix_seconds: window.end_unix_seconds,
            values: seen.values,
        })
    }

    /// Measures what came of a change. `now_us` is when; a window counts that lies wholly after the last target was
    /// ready.
    pub(super) async fn measure_effects(&self, site: &Site, state: &Workflow, now_us: i64) -> Came {
        let is_over = state.deadline_us.is_some_and(|deadline| now_us >= deadline);
        let seen = self.see(site).await;
        let since = state.phase_since_us as f64 / 1e6;
        let full = self.full_window_seconds(site);
        let is_after = |seen: &Seen| {
            let window = seen.diagnosed.window;
            window.kind == WindowKind::Interval && window.start_unix_seconds >= since && !seen.stale
        };
        let is_full = |seen: &Seen| {
            let window = seen.diagnosed.window;
            window.end_unix_seconds - window.start_unix_seconds >= full
        };
        match seen {
            Ok(seen) if is_after(&seen) => {
                if let Some(harm) = harm(state, &seen.diagnosed) {
                    return Came::command(Command::Fail(harm));
                }
                // where little comes in, what there is after some windows counts
                let patience_us = (PATIENCE_WINDOWS * full * 1e6) as i64;
                let is_late = is_over || now_us.saturating_sub(state.phase_since_us) >= patience_us;
                let least = if is_late {
                    f64::MIN_POSITIVE
                } else {
                    LEAST_REQUESTS
                };
                let enough = seen.finished.is_some_and(|finished| finished >= least);
                if enough && (is_over || is_full(&seen)) {
                    return Came::command(Command::Measured(Some(Box::new(effects(state, &seen)))));
                }
                match is_over {
                    true => Came::command(Command::Measured(None)),
                    false => Came::later(
                        AGAIN,
                        &"the window since the change is not full yet, or has too few requests",
                    ),
                }
            }
            _ if !is_over => {
                Came::later(AGAIN, &"no full window has been measured since the change")
            }
            Ok(seen) if !seen.stale => Came::command(Command::Measured(None)),
            // it was measured before the change
            _ => Came::command(Command::Fail(Failure {
                reason: "NOT_MEASURED".to_owned(),
                message: match self.health_of(site) {
                    Some(Health::Down) => {
                        "No replica can be measured any more since the change.".to_owned()
                    }
                    _ => "The instance could not be measured since the change.".to_owned(),
                },
                hint: "See the engine's log: does it serve?".to_owned(),
            })),
        }
    }

    /// What is wrong with the instance now that was not before the change.
    pub(super) async fn harm_now(&self, site: &Site, state: &Workflow) -> Option<Failure> {
        let seen = self.see(site).await.ok().filter(|seen| !seen.stale)?;
        harm(state, &seen.diagnosed)
    }

    /// How long a window of the instance is, less the jitter of scrapes.
    fn full_window_seconds(&self, site: &Site) -> f64 {
        let known = self.instance(&site.instance.instance_id);
        known.map_or(0.0, |known| {
            let spec = &known.instance.spec;
            (spec.window.as_secs_f64() - 1.5 * spec.scrape_interval.as_secs_f64()).max(0.0)
        })
    }

    fn health_of(&self, site: &Site) -> Option<Health> {
        let state = self.instance(&site.instance.instance_id).ok()?;
        Some(state.health)
    }

    async fn see(&self, site: &Site) -> Result<Seen, Error> {
        match self
            .measure(&caller(), &site.target, WindowRequest::default())
            .await?
        {
            Answer::Latest(answer) => {
                let (values, finished) = answer
                    .latest
                    .look(|measurement| (values(measurement), finished(measurement)));
                Ok(Seen {
                    diagnosed: answer.latest.diagnosed().clone(),
                    values,
                    finished,
                    stale: answer.stale,
                })
            }
            Answer::Now(measurement) => Ok(Seen {
                diagnosed: self.diagnose(&measurement, &BTreeMap::new())?.diagnosed,
                values: values(&measurement),
                finished: finished(&measurement),
                stale: false,
            }),
        }
    }
}

fn values(measurement: &Measurement) -> Vec<MeasuredValue> {
    let value = |quantity: &PredictedQuantity| {
        Some(MeasuredValue {
            quantity: *quantity,
            value: measured(*quantity, measurement).filter(|value| value.is_finite())?,
        })
    };
    PredictedQuantity::ALL.iter().filter_map(value).collect()
}

fn finished(measurement: &Measurement) -> Option<f64> {
    measurement.figures.value("requests_finished_increase")
}

/// What is wrong now that was not before, and is no matter of degree.
fn harm(state: &Workflow, now: &Diagnosed) -> Option<Failure> {
    let before = state
        .analysis
        .as_ref()
        .map_or(&[][..], |analysis| &analysis.findings);
    let is_new = |cause: &str| before.iter().all(|finding| finding.cause != cause);
    let found = now.diagnosis.findings.iter().find(|finding| {
        let cause = finding.cause.as_str();
        matches!(cause, "STALL" | "ERRORS") && finding.severity >= Severity::High && is_new(cause)
    })?;
    Some(Failure {
        reason: "HARMED".to_owned(),
        message: format!("Since the change: {}", found.description),
        hint: "See the engine's log.".to_owned(),
    })
}

fn effects(state: &Workflow, seen: &Seen) -> MeasuredEffects {
    let analysed = state.analysis.as_ref().map(|analysis| Baseline {
        start_unix_seconds: analysis.start_unix_seconds,
        end_unix_seconds: analysis.end_unix_seconds,
        values: analysis.before.clone(),
    });
    let before = state.baseline.clone().or(analysed);
    let before = before.as_ref();
    let predicted = state.plan.as_ref().map(|plan| &plan.draft.effect);
    let of = |after: &MeasuredValue| {
        let known = before?
            .values
            .iter()
            .find(|one| one.quantity == after.quantity)?;
        let ratio = after.value / known.value;
        let predicted = match predicted {
            Some(Effect::Predicted(prediction)) => prediction
                .quantities
                .iter()
                .find(|one| one.quantity == after.quantity),
            _ => None,
        };
        ratio.is_finite().then(|| MeasuredEffect {
            quantity: after.quantity,
            before: known.value,
            after: after.value,
            ratio,
            predicted: predicted.map(|one| [one.ratio, one.ratio_low, one.ratio_high]),
        })
    };
    let window = seen.diagnosed.window;
    MeasuredEffects {
        before_start_unix_seconds: before.map_or(0.0, |before| before.start_unix_seconds),
        before_end_unix_seconds: before.map_or(0.0, |before| before.end_unix_seconds),
        after_start_unix_seconds: window.start_unix_seconds,
        after_end_unix_seconds: window.end_unix_seconds,
        quantities: seen.values.iter().filter_map(of).collect(),
        headline: seen.diagnosed.diagnosis.headline.clone(),
    }
}
