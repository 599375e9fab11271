//! What the background has measured: answered at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet::{InstanceState, Latest};
use super::{Agent, Caller, Error, Target, WindowRequest};
use crate::measure::Measurement;
use crate::scrape::{ScrapeError, shown_url};
use crate::units::is_id;

/// After the first scrape of an instance there is a second within seconds, and a window between them.
const FIRST_WINDOW: Duration = Duration::from_secs(8);

/// The last measurement of an instance, and whether it still tells how things are.
#[derive(Debug, Clone)]
pub struct LatestAnswer {
    /// The measurement.
    pub latest: Arc<Latest>,
    /// It is older than two intervals, or the last scrape failed.
    pub stale: bool,
    /// Why the last scrape of a replica failed, if it did.
    pub failure: Option<ScrapeError>,
}

/// What came of measuring.
#[derive(Debug)]
pub enum Answer {
    /// Measured now.
    Now(Box<Measurement>),
    /// Measured in the background.
    Latest(LatestAnswer),
}

impl Agent {
    /// Measures: an inline target now; of an instance, which is a target without URLs, the last window, or now where
    /// a window is asked for.
    ///
    /// # Errors
    /// What [`Agent::collect`] and [`Agent::latest`] give.
    pub async fn measure(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
    ) -> Result<Answer, Error> {
        if !target.metrics_urls.is_empty() {
            let measured = self.collect(caller, target, window, &|_| {}).await?;
            return Ok(Answer::Now(Box::new(measured)));
        }
        if !is_id(&target.instance_id) {
            // that there is no URL is what makes it an instance
            let mut violations = target.violations(self.engines());
            violations.retain(|violation| violation.field != "metrics_url");
            return Err(Error::Invalid(violations));
        }
        if window.length.is_none() {
            self.has_it_measured(&target.instance_id).await;
            return Ok(Answer::Latest(self.latest(&target.instance_id)?));
        }
        let target = self.instance(&target.instance_id)?.instance.spec.target();
        let mut measured = self.measure_now(caller, &target, window, &|_| {}).await?;
        hide_queries(&mut measured, &target.metrics_urls);
        Ok(Answer::Now(Box::new(measured)))
    }

    /// Has an instance measured here that another agent measures, for some minutes, and waits for its first window.
    async fn has_it_measured(&self, id: &str) {
        if !self.fleet.is_shared() {
            return;
        }
        self.fleet.want(id);
        let ids = [Arc::from(id)];
        let watcher = self.fleet.watch(&ids);
        let first_window = async {
            while self.fleet.get(id).is_some_and(|state| state.is_beginning()) {
                watcher.changes().await;
            }
        };
        // what is not there by then is answered for as it is
        let _ = tokio::time::timeout(FIRST_WINDOW, first_window).await;
        self.fleet.unwatch(&watcher, &ids);
    }

    /// The last measurement of an instance.
    ///
    /// # Errors
    /// An instance that there is not, or of which there is no measurement: with the reason, once there is one.
    pub fn latest(&self, id: &str) -> Result<LatestAnswer, Error> {
        latest_of(&*self.instance(id)?, Instant::now())
    }
}

/// The caller did not give the URLs, and may not be meant to see all of them.
fn hide_queries(measured: &mut Measurement, urls: &[String]) {
    // the longest first: one may begin as another does
    let mut urls: Vec<&String> = urls.iter().collect();
    urls.sort_by_key(|url| std::cmp::Reverse(url.len()));
    for replica in &mut measured.replicas {
        replica.metrics_url = shown_url(&replica.metrics_url);
    }
    for note in &mut measured.notes {
        note.metrics_url = note.metrics_url.as_deref().map(shown_url);
        for url in &urls {
            note.message = note.message.replace(url.as_str(), &shown_url(url));
        }
    }
}

fn latest_of(state: &InstanceState, now: Instant) -> Result<LatestAnswer, Error> {
    let failure = state.failure();
    let Some(latest) = &state.latest else {
        return Err(match failure {
            Some(failure) => failure.clone().into(),
            None => Error::NotMeasuredYet(state.instance.id().to_owned()),
        });
    };
    Ok(LatestAnswer {
        latest: latest.clone(),
        stale: state.is_stale(now),
        failure: failure.cloned(),
    })
}
