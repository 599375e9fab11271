//! A change that goes out part by part: which targets come first, and how they stand against the others.

use std::time::{Duration, Instant, SystemTime};

use super::came::Came;
use super::lease::Held;
use super::micros;
use super::site::Site;
use crate::agent::{Agent, LatestAnswer};
use crate::engine::Quantity;
use crate::measure::{ReplicaSamples, WindowKind};
use crate::optimization::Effect;
use crate::scrape::shown_url;
use crate::workflow::{Bounds, VerdictPolicy, observe};
use crate::workflow::{Command, Failure, NoCanary, Strategy, Workflow, policy_of};

/// Between two looks at the last window.
const AGAIN: Duration = Duration::from_millis(500);
/// A replica that serves again within this time has not failed.
const UNREADY_FOR: Duration = Duration::from_secs(20);
/// Scrapes of a window that may be missing at its ends.
const JITTER_INTERVALS: f64 = 1.5;

impl Agent {
    /// How a change goes out to targets with these metrics, and what is to be said of it.
    pub(super) fn strategy_of(
        &self,
        state: &Workflow,
        recommended: Option<&Effect>,
        metrics_urls: &[Option<String>],
    ) -> (Strategy, Option<String>) {
        let Some(asked) = state.spec.strategy.canary() else {
            return (Strategy::InPlace, None);
        };
        let bounds = self.bounds_of(state, &policy_of(asked, recommended));
        let shown: Vec<Option<String>> = metrics_urls
            .iter()
            .map(|url| url.as_deref().map(shown_url))
            .collect();
        match asked.planned(&shown, bounds) {
            Ok(canary) => (Strategy::Canary(Box::new(canary)), None),
            Err(NoCanary::OneTarget) => (Strategy::InPlace, None),
            Err(why) => {
                let note = format!(
                    "It goes out in place, and is held against the window before, which is weaker evidence: {why}."
                );
                (Strategy::InPlace, Some(note))
            }
        }
    }

    /// Latencies beyond which requests are counted, from what all replicas did before anybody looked at a canary.
    fn bounds_of(&self, state: &Workflow, policy: &VerdictPolicy) -> Bounds {
        let Ok(known) = self.instance(&state.spec.instance_id) else {
            return Bounds::default();
        };
        let Some(latest) = &known.latest else {
            return Bounds::default();
        };
        let replicas: Vec<&ReplicaSamples> = latest.replica_samples().iter().collect();
        Bounds::of(
            &known.slos,
            &replicas,
            latest.profile(),
            &policy.accepted_ratio,
        )
    }

    /// Takes a target out of traffic where that can be, and waits until it has finished its requests, but no longer than
    /// it may take.
    pub(super) async fn drain(
        &self,
        site: &Site,
        state: &Workflow,
        target: u32,
        held: &Held,
        now_us: i64,
    ) -> Came {
        let begun = state.phase_since_us;
        let seconds = state.canary().map_or(0.0, |canary| canary.drain_seconds);
        let is_over = now_us.saturating_sub(begun) as f64 / 1e6 >= seconds;
        match self.leave_traffic(site, state, target, held).await {
            Err(Came::NotOurs) => return Came::NotOurs,
            // its time is over, in traffic or not
            Err(came) if !is_over => return came,
            _ => {}
        }
        match is_over || self.has_finished(state, target, begun) {
            true => self.begin_write(site, state, held).await,
            false => Came::later(AGAIN, &"a target has not finished its requests yet"),
        }
    }

    /// Whether a target was seen without any request since then. One that cannot be seen has not.
    fn has_finished(&self, state: &Workflow, target: u32, since_us: i64) -> bool {
        let url = usize::try_from(target)
            .ok()
            .and_then(|at| state.canary()?.replicas.get(at));
        let latest = self.latest(&state.spec.instance_id).ok();
        let Some((url, latest)) = url.zip(latest) else {
            return false;
        };
        let newest = micros(SystemTime::now()).saturating_sub(age_us(&latest));
        if latest.stale || newest < since_us {
            return false;
        }
        latest.latest.look(|measurement| {
            let replica = measurement
                .replicas
                .iter()
                .find(|replica| shown_url(&replica.metrics_url) == *url);
            let figures = replica.and_then(|replica| replica.outcome.as_ref().ok());
            let last = |quantity| figures?.gauge(quantity).map(|gauge| gauge.last);
            last(Quantity::RequestsRunning) == Some(0.0)
                && last(Quantity::RequestsWaiting).unwrap_or(0.0) == 0.0
        })
    }

    /// Holds the targets that have the change against the others, as far as the last window tells.
    pub(super) async fn observe(
        &self,
        site: &Site,
        state: &Workflow,
        unready_since: &mut Option<Instant>,
    ) -> Came {
        if let Some(came) = self.stands(site, state, unready_since).await {
            return came;
        }
        let Some(canary) = state.canary() else {
            return Came::later(AGAIN, &"the change goes out without a canary");
        };
        let latest = match self.latest(&state.spec.instance_id) {
            Ok(latest) if !latest.stale => latest.latest,
            Ok(_) => return Came::later(AGAIN, &"the last window is stale"),
            Err(error) => return Came::later(AGAIN, &error),
        };
        if latest.kind() != WindowKind::Interval {
            return Came::later(AGAIN, &"no window has been measured yet");
        }
        let since = state.phase_since_us as f64 / 1e6 + canary.warm_up_seconds;
        let last = state.observations.last();
        let after = last.map_or(since, |last| last.end_unix_seconds.max(since));
        let windows = self.windows_of(site);
        let (changed, unchanged) = canary.sides(state.step);
        let side = |urls: &[String]| -> Vec<&ReplicaSamples> {
            let replicas = latest.replica_samples().iter();
            replicas
                .filter(|one| urls.contains(&shown_url(&one.metrics_url)))
                .collect()
        };
        let observed = observe(
            &side(changed),
            &side(unchanged),
            latest.profile(),
            &canary.bounds,
            after,
        );
        let observation = match observed {
            Ok(observation) => observation,
            Err(why) => return Came::later(AGAIN, &why),
        };
        let full = windows.full_seconds - JITTER_INTERVALS * windows.interval_seconds;
        if observation.end_unix_seconds - after < full.max(0.0) {
            return Came::later(AGAIN, &"the window since the change is not full yet");
        }
        Came::command(Command::Observed(Box::new(observation)))
    }

    /// What is wrong with the targets now, whatever the requests say: changed by somebody else, harmed, or not serving.
    async fn stands(
        &self,
        site: &Site,
        state: &Workflow,
        unready_since: &mut Option<Instant>,
    ) -> Option<Came> {
        if let Some(drift) = self.drift_while_measuring(site, state).await {
            return Some(drift);
        }
        if let Some(harm) = self.harm_now(site, state).await {
            return Some(Came::command(Command::Fail(harm)));
        }
        let name = match self.unready(site, state).await {
            Some(name) => name,
            None => {
                *unready_since = None;
                return None;
            }
        };
        let since = unready_since.get_or_insert_with(Instant::now);
        (since.elapsed() >= UNREADY_FOR).then(|| {
            Came::command(Command::Fail(Failure {
                reason: "NOT_READY".to_owned(),
                message: format!("{name} does not serve any more with its new settings."),
                hint: "See the engine's log.".to_owned(),
            }))
        })
    }
}

fn age_us(answer: &LatestAnswer) -> i64 {
    i64::try_from(answer.latest.taken.elapsed().as_micros()).unwrap_or(i64::MAX)
}
