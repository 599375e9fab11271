//! The samples of an instance that its next measurement is made from. Bounded, and it can be lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::timing::Timing;
use super::window::WindowSamples;
use crate::agent::replica::failure_of;
use crate::engine::{EngineProfile, Probed};
use crate::instance::InstanceSpec;
use crate::measure::{ReplicaFailure, ReplicaSamples, Sample, has_restarted};
use crate::scrape::{ScrapeError, ScrapeFailure, shown_url};

/// Most bytes of samples that are kept of one replica. Engines' samples have some kilobytes each.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Between two questions to endpoints that told nothing.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// A replica whose newest sample is this many scrapes old is not part of what the instance does now.
const TOO_OLD: u32 = 2;

/// What is remembered of an instance.
#[derive(Debug)]
pub(super) struct History {
    /// Intervals of a window.
    intervals: u32,
    interval: Duration,
    timing: Timing,
    /// Engine, once it is known.
    profile: Option<Arc<EngineProfile>>,
    /// The operator named it.
    named: bool,
    instance_id: String,
    replicas: Vec<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    url: String,
    samples: Vec<Arc<Sample>>,
    probed: Arc<Probed>,
    asked: Asked,
    /// Scrapes within the window that failed.
    failed: VecDeque<u32>,
    /// The last failure within the window.
    window_failure: Option<ReplicaFailure>,
    failures_in_a_row: u32,
    /// The scrape before which it is left alone.
    due: u32,
    /// Why the last scrape failed, if it did.
    failure: Option<ScrapeError>,
}

/// Whether a replica's endpoints are worth asking for version and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// From this scrape on.
    From(u32),
    /// They are being asked.
    Now,
    /// They have told.
    Done,
}

/// A replica as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplicaState {
    /// Its URL, without what may be secret.
    pub metrics_url: String,
    /// Whether its last scrape could be read; none before the first.
    pub up: Option<bool>,
    /// Why it could not.
    pub failure: Option<ScrapeError>,
}

impl History {
    pub(super) fn new(spec: &InstanceSpec, profile: Option<Arc<EngineProfile>>) -> Self {
        let remembered = |url: &String| Remembered {
            url: url.clone(),
            samples: Vec::new(),
            probed: Arc::default(),
            asked: Asked::From(0),
            failed: VecDeque::new(),
            window_failure: None,
            failures_in_a_row: 0,
            due: 0,
            failure: None,
        };
        let intervals = spec.window.as_secs_f64() / spec.scrape_interval.as_secs_f64();
        Self {
            intervals: intervals.ceil() as u32,
            interval: spec.scrape_interval,
            timing: Timing::new(&spec.instance_id, spec.scrape_interval),
            named: spec.instance_type.is_some(),
            profile,
            instance_id: spec.instance_id.clone(),
            replicas: spec.metrics_urls.iter().map(remembered).collect(),
        }
    }

    pub(super) fn timing(&self) -> Timing {
        self.timing
    }

    pub(super) fn profile(&self) -> Option<&Arc<EngineProfile>> {
        self.profile.as_ref()
    }

    /// The replicas to scrape now: place and URL.
    pub(super) fn due(&self, tick: u32) -> Vec<(usize, String)> {
        let replicas = self.replicas.iter().enumerate();
        let due = replicas.filter(|(_, replica)| replica.due <= tick);
        due.map(|(at, replica)| (at, replica.url.clone())).collect()
    }

    /// Replicas that failed are due, however long they would have been left alone.
    pub(super) fn retry(&mut self, tick: u32) {
        for replica in &mut self.replicas {
            replica.due = replica.due.min(tick);
        }
    }

    /// Keeps what a scrape gave.
    pub(super) fn add(
        &mut self,
        at: usize,
        tick: u32,
        result: Result<(Arc<EngineProfile>, Sample), ScrapeError>,
    ) {
        let oldest = tick.saturating_sub(self.intervals);
        let timing = self.timing;
        let Some(replica) = self.replicas.get_mut(at) else {
            return;
        };
        let kept = result.and_then(|(profile, sample)| {
            let profile = self.profile.get_or_insert(profile);
            replica.keep(profile, sample, (tick, oldest))
        });
        match kept {
            Ok(()) => {
                replica.failures_in_a_row = 0;
                replica.due = tick.saturating_add(1);
                replica.failure = None;
            }
            Err(error) => {
                replica.failures_in_a_row = replica.failures_in_a_row.saturating_add(1);
                replica.due = tick.saturating_add(timing.backoff(replica.failures_in_a_row));
                replica.failed.push_back(tick);
                replica.window_failure = Some(failure_of(&error));
                replica.failure = Some(error);
            }
        }
        replica.forget_before(oldest);
    }

    /// The replicas whose endpoints are worth asking: place and URL. They count as asked from now on.
    pub(super) fn begin_asking(&mut self, tick: u32) -> Vec<(usize, String)> {
        let mut to_ask = Vec::new();
        for (at, replica) in self.replicas.iter_mut().enumerate() {
            let worth = matches!(replica.asked, Asked::From(from) if from <= tick);
            if worth && replica.failures_in_a_row == 0 && !replica.samples.is_empty() {
                replica.asked = Asked::Now;
                to_ask.push((at, replica.url.clone()));
            }
        }
        to_ask
    }

    /// Keeps what a replica's endpoints said; whether that is anything new.
    pub(super) fn told(&mut self, at: usize, tick: u32, probed: Probed) -> bool {
        let again = ASK_AGAIN_AFTER.as_secs_f64() / self.interval.as_secs_f64();
        let Some(replica) = self.replicas.get_mut(at) else {
            return false;
        };
        let told = probed.proves_engine || !probed.settings.is_empty();
        replica.asked = match (replica.asked, told) {
            // it has restarted meanwhile
            (Asked::From(from), _) => Asked::From(from),
            (_, true) => Asked::Done,
            (_, false) => Asked::From(tick.saturating_add(again.ceil() as u32)),
        };
        if *replica.probed == probed {
            return false;
        }
        replica.probed = Arc::new(probed);
        true
    }

    /// The window that ends with this scrape; none where it brought no sample.
    ///
    /// A replica that was not read in it or in the one before is not part of what the instance does now, and shown as
    /// failed.
    pub(super) fn window(&mut self, tick: u32) -> Option<WindowSamples> {
        let profile = self.profile.clone()?;
        let oldest = tick.saturating_sub(self.intervals);
        for replica in &mut self.replicas {
            replica.forget_before(oldest);
        }
        let newest = |replica: &Remembered| replica.samples.last().map(|sample| sample.tick);
        if !self
            .replicas
            .iter()
            .any(|replica| newest(replica) == Some(tick))
        {
            return None;
        }
        let replicas = self.replicas.iter().map(|replica| {
            let age = newest(replica).map_or(u32::MAX, |newest| tick.saturating_sub(newest));
            ReplicaSamples {
                metrics_url: shown_url(&replica.url),
                samples: match age < TOO_OLD {
                    true => replica.samples.clone(),
                    false => Vec::new(),
                },
                failed_scrapes: u32::try_from(replica.failed.len()).unwrap_or(u32::MAX),
                last_failure: replica.window_failure.clone(),
                probed: replica.probed.clone(),
            }
        });
        Some(WindowSamples::new(
            self.instance_id.clone(),
            profile,
            replicas.collect(),
        ))
    }

    /// Intervals that this many seconds have, at least one.
    pub(super) fn intervals_in(&self, seconds: f64) -> u32 {
        (seconds / self.interval.as_secs_f64()).round().max(1.0) as u32
    }

    /// All samples are forgotten: the clock was set, or another engine answers.
    pub(super) fn forget(&mut self) {
        for replica in &mut self.replicas {
            replica.samples.clear();
            replica.failed.clear();
            replica.window_failure = None;
            replica.probed = Arc::default();
            replica.asked = Asked::From(0);
        }
        if !self.named {
            self.profile = None;
        }
    }

    /// Every replica that answers is of another engine than before, and the operator named none.
    pub(super) fn engine_changed(&self) -> bool {
        let failures = || {
            self.replicas
                .iter()
                .filter_map(|replica| replica.failure.as_ref())
        };
        let other =
            |error: &ScrapeError| matches!(error.failure, ScrapeFailure::WrongEngine { .. });
        !self.named
            && self
                .replicas
                .iter()
                .all(|replica| replica.failures_in_a_row > 0)
            && failures().any(other)
    }

    /// The replicas as they stand.
    pub(super) fn replica_states(&self) -> Vec<ReplicaState> {
        let state = |replica: &Remembered| ReplicaState {
            metrics_url: shown_url(&replica.url),
            up: match (replica.failures_in_a_row, replica.samples.is_empty()) {
                (0, true) => None,
                (failures, _) => Some(failures == 0),
            },
            failure: replica.failure.clone(),
        };
        self.replicas.iter().map(state).collect()
    }
}

impl Remembered {
    fn keep(
        &mut self,
        profile: &EngineProfile,
        mut sample: Sample,
        (tick, oldest): (u32, u32),
    ) -> Result<(), ScrapeError> {
        sample.tick = tick;
        let before = self.samples.last().map(AsRef::as_ref);
        sample.settle_after(before);
        let restarted = before.is_some_and(|before| has_restarted(profile, before, &sample));
        if restarted || self.failures_in_a_row > 0 {
            // it may have other settings, and be another version
            self.asked = Asked::From(tick);
        }
        self.samples.push(Arc::new(sample));
        self.forget_before(oldest);
        let mut bytes: usize = self.samples.iter().map(|sample| sample.heap_bytes()).sum();
        while bytes > MAX_BYTES && self.samples.len() > 1 {
            bytes -= self.samples.remove(0).heap_bytes();
        }
        if bytes > MAX_BYTES {
            self.samples.clear();
            return Err(ScrapeFailure::TooManySeries.at(shown_url(&self.url)));
        }
        Ok(())
    }

    fn forget_before(&mut self, oldest: u32) {
        self.samples.retain(|sample| sample.tick >= oldest);
        while self.failed.front().is_some_and(|failed| *failed < oldest) {
            self.failed.pop_front();
        }
        // why it is down is known for as long as it is
        if self.failed.is_empty() && self.failures_in_a_row == 0 {
            self.window_failure = None;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Registry;
    use crate::exposition::Options;
    use crate::instance::default_window;

    fn history(interval: Duration, window: Duration) -> History {
        let spec = InstanceSpec {
            instance_id: "a".to_owned(),
            instance_type: None,
            metrics_urls: vec!["http://127.0.0.1:1/metrics".to_owned()],
            scrape_interval: interval,
            window,
            labels: Default::default(),
            slos: Vec::new(),
            launch_args: Vec::new(),
            actuator: None,
        };
        History::new(&spec, None)
    }

    fn reading(body: &str, at: f64) -> (Arc<EngineProfile>, Sample) {
        let registry = Registry::builtin();
        let profile = registry.get("vllm").unwrap().clone();
        let (sample, _) = Sample::read(&profile, body.as_bytes(), at, &Options::default()).unwrap();
        (profile, sample)
    }

    fn capture() -> String {
        let path = "tests/fixtures/captures/vllm-0.32.0/c-saturation/scrape-1.prom";
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
            .unwrap()
    }

    fn kept(history: &History) -> &Remembered {
        history.replicas.first().unwrap()
    }

    #[test]
    fn who_is_known_to_serve_again_is_asked_at_once() {
        let interval = Duration::from_secs(1);
        let mut history = history(interval, default_window(interval));
        let refused = || ScrapeFailure::TimedOut { seconds: 1.0 }.at("http://a".to_owned());
        let mut tick = 0;
        for _ in 0..6 {
            history.add(0, tick, Err(refused()));
            tick = kept(&history).due;
        }
        let now = kept(&history).due - 10;
        assert!(history.due(now).is_empty());
        history.retry(now);
        assert_eq!(history.due(now).len(), 1);
        // one that fails again is left alone as long as before
        history.add(0, now, Err(refused()));
        assert!(kept(&history).due > now + 10);
    }

    /// What the README says of memory.
    #[test]
    fn a_window_of_samples_is_kept_and_no_more() {
        let body = capture();
        let interval = Duration::from_secs(15);
        let mut history = history(interval, default_window(interval));
        for tick in 0..100 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 15.0)));
            assert!(history.window(tick).is_some());
        }
        let samples = &kept(&history).samples;
        // five ends of four intervals, and one more within the slack for jitter
        assert!((5..=6).contains(&samples.len()), "{}", samples.len());
        let bytes: Vec<usize> = samples.iter().map(|sample| sample.heap_bytes()).collect();
        assert!(bytes.iter().all(|bytes| *bytes <= 8_000), "{bytes:?}");
        let longest = Duration::from_millis(200);
        let mut history = self::history(longest, default_window(longest));
        for tick in 0..200 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
        }
        assert_eq!(kept(&history).samples.len(), 61);
    }

    #[test]
    fn no_engine_fills_the_memory() {
        // each sample is as large as it may be
        let mut body = String::new();
        for family in [
            "time_to_first_token_seconds",
            "inter_token_latency_seconds",
            "e2e_request_latency_seconds",
        ] {
            body += &format!("# TYPE vllm:{family} histogram\n");
            for le in 1..4_000 {
                body += &format!("vllm:{family}_bucket{{le=\"{le}\"}} {le}\n");
            }
            body += &format!(
                "vllm:{family}_bucket{{le=\"+Inf\"}} 4000\nvllm:{family}_sum 1\nvllm:{family}_count 4000\n"
            );
        }
        let mut history = history(Duration::from_millis(200), Duration::from_secs(12));
        for tick in 0..60 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick) * 0.2)));
            let bytes: usize = kept(&history)
                .samples
                .iter()
                .map(|sample| sample.heap_bytes())
                .sum();
            assert!(bytes <= MAX_BYTES, "{bytes}");
        }
        assert!(kept(&history).samples.len() > 2);
    }

    #[test]
    fn failures_are_counted_within_the_window_and_forgotten_after_it() {
        let mut history = history(Duration::from_secs(1), Duration::from_secs(4));
        let body = capture();
        history.add(0, 0, Ok(reading(&body, 0.0)));
        let failure = || crate::scrape::ScrapeFailure::Status(503).at("http://127.0.0.1:1/metrics");
        history.add(0, 1, Err(failure()));
        assert_eq!(history.replica_states().first().unwrap().up, Some(false));
        assert!(history.due(1).is_empty(), "not again in the same round");
        assert_eq!(history.due(2).len(), 1);
        history.add(0, 2, Ok(reading(&body, 2.0)));
        let measured = history.window(2).unwrap().measure();
        assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 1);
        for tick in 3..9 {
            history.add(0, tick, Ok(reading(&body, f64::from(tick))));
        }
        let measured = history.window(8).unwrap().measure();
        assert_eq!(measured.replicas.first().unwrap().failed_scrapes, 0);
        assert!(!history.engine_changed());
    }

    #[test]
    fn a_replica_that_died_is_no_part_of_now() {
        let mut history = history(Duration::from_secs(1), Duration::from_secs(5));
        history.replicas.push(Remembered {
            url: "http://127.0.0.1:2/metrics".to_owned(),
            samples: Vec::new(),
            probed: Arc::default(),
            asked: Asked::Done,
            failed: VecDeque::new(),
            window_failure: None,
            failures_in_a_row: 0,
            due: 0,
            failure: None,
        });
        let body = |tokens: u32| {
            format!(
                "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total {tokens}\n"
            )
        };
        let failure = || ScrapeFailure::Status(503).at("http://127.0.0.1:2/metrics");
        let rate = |history: &mut History, tick: u32| {
            let measured = history.window(tick).unwrap().measure();
            let second = measured.replicas.get(1).unwrap().clone();
            (
                measured.figures.value("generation_tokens_per_second"),
                second,
                measured.notes,
            )
        };
        for tick in 0..100 {
            history.add(0, tick, Ok(reading(&body(tick * 50), f64::from(tick))));
            if tick < 10 {
                history.add(1, tick, Ok(reading(&body(tick * 1_000), f64::from(tick))));
            } else if history.replicas.get(1).unwrap().due <= tick {
                history.add(1, tick, Err(failure()));
            }
            let (rate, second, notes) = match tick {
                0 => continue,
                _ => rate(&mut history, tick),
            };
            match tick {
                // one scrape that is missing tells nothing yet, but is told
                ..=9 => assert_eq!(rate, Some(1_050.0)),
                10 => assert!(second.failed_scrapes == 1 && !notes.is_empty()),
                _ => {
                    assert_eq!(rate, Some(50.0), "at {tick}");
                    let why = second.outcome.unwrap_err();
                    assert_eq!(why.reason, "HTTP_STATUS", "at {tick}");
                }
            }
        }
        // failures are remembered for a window, not for ever
        assert!(history.replicas.get(1).unwrap().failed.len() <= 6);
    }
}
