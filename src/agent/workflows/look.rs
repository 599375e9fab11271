//! What a workflow finds out about its instance, before a change and after it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::came::Came;
use super::micros;
use super::site::{Site, caller, failed};
use crate::agent::{Agent, Answer, Diagnosed, Error, LatestAnswer, WindowRequest};
use crate::analysis::Finding;
use crate::instance::{DEFAULT_INTERVAL, DEFAULT_WINDOW};
use crate::measure::{Measurement, WindowKind};
use crate::optimization::{PredictedQuantity, measured};
use crate::workflow::{
    Analysis, Baseline, Command, Failure, FindingSummary, Judgement, MeasuredValue, Seen, Windows,
    Workflow, harm, judge,
};

/// Between two looks at the last window.
const AGAIN: Duration = Duration::from_millis(500);
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
        let window = seen.window;
        if window.kind != WindowKind::Interval {
            return Came::later(AGAIN, &"no window has been measured yet");
        }
        let finding = |finding: &Finding| FindingSummary {
            cause: finding.cause.as_str().to_owned(),
            severity: finding.severity.as_str().to_owned(),
            description: finding.description.clone(),
        };
        Came::command(Command::Analysed(Box::new(Analysis {
            headline: seen.headline,
            findings: seen.findings.iter().map(finding).collect(),
            start_unix_seconds: window.start_unix_seconds,
            end_unix_seconds: window.end_unix_seconds,
            simulated: seen.simulated,
            before: seen.values,
        })))
    }

    /// How things are now; none where that cannot be told.
    pub(super) async fn baseline(&self, site: &Site) -> Option<Baseline> {
        let seen = self.see(site).await.ok().filter(|seen| !seen.stale)?;
        let window = seen.window;
        (window.kind == WindowKind::Interval).then_some(Baseline {
            start_unix_seconds: window.start_unix_seconds,
            end_unix_seconds: window.end_unix_seconds,
            values: seen.values,
        })
    }

    /// What came of a change, as far as the last window tells.
    pub(super) async fn measure_effects(&self, site: &Site, state: &Workflow, now_us: i64) -> Came {
        let seen = self.see(site).await.ok();
        let command = match judge(state, seen.as_ref(), self.windows_of(site), now_us) {
            Judgement::NotYet(why) => return Came::later(AGAIN, &why),
            Judgement::Effects(effects) => Command::Measured(Some(effects)),
            Judgement::Unmeasured => Command::Measured(None),
            Judgement::Harmed(failure) => Command::Fail(failure),
        };
        Came::command(command)
    }

    /// What is wrong with the instance now that was not before the change.
    pub(super) async fn harm_now(&self, site: &Site, state: &Workflow) -> Option<Failure> {
        let seen = self.see(site).await.ok().filter(|seen| !seen.stale)?;
        harm(state, &seen.findings)
    }

    pub(super) fn windows_of(&self, site: &Site) -> Windows {
        let known = self.instance(&site.instance.instance_id);
        let (full, interval) = known.map_or((DEFAULT_WINDOW, DEFAULT_INTERVAL), |known| {
            let spec = &known.instance.spec;
            (spec.window, spec.scrape_interval)
        });
        Windows {
            full_seconds: full.as_secs_f64(),
            interval_seconds: interval.as_secs_f64(),
        }
    }

    async fn see(&self, site: &Site) -> Result<Seen, Error> {
        let of = |diagnosed: &Diagnosed, measurement: &Measurement, stale, age: Duration| Seen {
            window: diagnosed.window,
            least_samples: least_samples(measurement),
            taken_us: micros(SystemTime::now()).saturating_sub(age_us(age)),
            stale,
            simulated: diagnosed.simulated,
            headline: diagnosed.diagnosis.headline.clone(),
            findings: diagnosed.diagnosis.findings.clone(),
            values: values(measurement),
            finished: measurement.figures.value("requests_finished_increase"),
        };
        let answer = self
            .measure(&caller(), &site.target, WindowRequest::default())
            .await?;
        Ok(match answer {
            Answer::Latest(LatestAnswer { latest, stale, .. }) => {
                let age = latest.taken.elapsed();
                latest.look(|measurement| of(latest.diagnosed(), measurement, stale, age))
            }
            Answer::Now(measurement) => {
                let diagnosed = self.diagnose(&measurement, &BTreeMap::new())?.diagnosed;
                of(&diagnosed, &measurement, false, Duration::ZERO)
            }
        })
    }
}

/// Scrapes of the replica that has the fewest.
fn least_samples(measurement: &Measurement) -> u32 {
    let samples = measurement
        .replicas
        .iter()
        .map(|replica| match &replica.outcome {
            Ok(_) => replica.samples,
            Err(_) => 0,
        });
    samples.min().unwrap_or(0)
}

fn age_us(age: Duration) -> i64 {
    i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
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
