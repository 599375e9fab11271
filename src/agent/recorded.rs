//! Measuring a recording: scrapes of one replica that somebody kept.

use std::sync::Arc;

use serde_json::Value;

use super::{Agent, Error, FieldViolation};
use crate::engine::{EngineProfile, Probed, read_endpoint};
use crate::exposition::{Mode, Options};
use crate::measure::{
    InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind, detect_engine,
};

/// What was recorded of one replica.
#[derive(Debug)]
pub struct Recording {
    /// Id to show.
    pub instance_id: String,
    /// Engine; none where it is to be recognised.
    pub engine: Option<String>,
    /// Scrapes, in order of time.
    pub scrapes: Vec<RecordedScrape>,
}

/// One scrape.
#[derive(Debug)]
pub struct RecordedScrape {
    /// When it was recorded, unix time in seconds.
    pub unix_seconds: f64,
    /// The answer.
    pub body: String,
}

/// Where samples that were recorded are said to come from.
const RECORDED_URL: &str = "recorded";

impl Agent {
    /// Measures a recording in windows of at most this length in seconds, which follow each other. `endpoint` gives the
    /// recorded answer of an endpoint, such as `/version`, if there is one.
    ///
    /// # Errors
    /// An engine that is not known or not recognised, a scrape that cannot be read, fewer than two.
    pub fn measure_recorded(
        &self,
        recording: &Recording,
        window_seconds: f64,
        endpoint: impl Fn(&str) -> Option<Value>,
    ) -> Result<Vec<Measurement>, Error> {
        let profile = self.recorded_engine(recording)?;
        let mut probed = Probed::default();
        for asked in &profile.endpoints {
            if let Some(answer) = endpoint(&asked.path) {
                probed.merge(read_endpoint(&profile, &asked.path, &answer));
            }
        }
        let samples = samples(&profile, &recording.scrapes)?;
        if samples.len() < 2 {
            return Err(wrong("a window takes two scrapes, and there is one"));
        }
        let probed = Arc::new(probed);
        let measure = |samples: &[Arc<Sample>]| {
            let replica = ReplicaSamples {
                metrics_url: RECORDED_URL.to_owned(),
                samples: samples.to_vec(),
                failed_scrapes: 0,
                last_failure: None,
                probed: probed.clone(),
            };
            let instance = InstanceSamples {
                instance_id: recording.instance_id.clone(),
                profile: &profile,
                kind: WindowKind::Interval,
                replicas: vec![replica],
            };
            instance.measure()
        };
        let windows = windows(&samples, window_seconds);
        Ok(windows.into_iter().map(measure).collect())
    }

    fn recorded_engine(&self, recording: &Recording) -> Result<Arc<EngineProfile>, Error> {
        if let Some(name) = &recording.engine {
            return self.registry.get(name).cloned().ok_or_else(|| {
                let known = self.registry.names().join(", ");
                let violation = format!("no engine `{name}`; there are {known}");
                Error::Invalid(vec![FieldViolation::new("instance_type", violation)])
            });
        }
        let found = recording.scrapes.iter().find_map(|scrape| {
            detect_engine(&self.registry, scrape.body.as_bytes(), &Options::default())
        });
        found
            .cloned()
            .ok_or_else(|| wrong("no metrics of a known engine; name it with --engine"))
    }
}

fn samples(profile: &EngineProfile, scrapes: &[RecordedScrape]) -> Result<Vec<Arc<Sample>>, Error> {
    let options = Options {
        mode: Mode::Lenient,
        ..Options::default()
    };
    let mut samples: Vec<Arc<Sample>> = Vec::with_capacity(scrapes.len());
    for (at, scrape) in scrapes.iter().enumerate() {
        let before = samples
            .last()
            .map_or(f64::NEG_INFINITY, |last| last.at_unix_seconds);
        if scrape.unix_seconds <= before {
            let number = at + 1;
            return Err(wrong(format!(
                "scrape {number} is not later than the one before it"
            )));
        }
        let read = Sample::read(
            profile,
            scrape.body.as_bytes(),
            scrape.unix_seconds,
            &options,
        );
        let (mut sample, _) = read.map_err(|error| wrong(format!("scrape {}: {error}", at + 1)))?;
        sample.settle_after(samples.last().map(AsRef::as_ref));
        sample.tick = u32::try_from(at).unwrap_or(u32::MAX);
        samples.push(Arc::new(sample));
    }
    Ok(samples)
}

/// Cuts samples into windows: each ends with the sample that the next begins with, and has at least two.
fn windows(samples: &[Arc<Sample>], seconds: f64) -> Vec<&[Arc<Sample>]> {
    let mut windows = Vec::new();
    let mut rest = samples;
    while let [first, _, ..] = rest {
        let end = first.at_unix_seconds + seconds;
        let within = rest.iter().take_while(|one| one.at_unix_seconds <= end);
        let length = within.count().max(2);
        windows.push(rest.get(..length).unwrap_or(rest));
        rest = rest.get(length - 1..).unwrap_or_default();
    }
    windows
}

fn wrong(what: impl Into<String>) -> Error {
    Error::Invalid(vec![FieldViolation::new("recording", what)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn recording(times: &[f64]) -> Recording {
        let scrape = |at: &f64| RecordedScrape {
            unix_seconds: *at,
            body: format!(
                "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{{engine=\"0\"}} {at}\n"
            ),
        };
        Recording {
            instance_id: "recorded".to_owned(),
            engine: None,
            scrapes: times.iter().map(scrape).collect(),
        }
    }

    fn cut(times: &[f64], seconds: f64) -> Result<Vec<(f64, f64)>, Error> {
        let agent = Agent::new(&Config::default()).unwrap();
        let measured = agent.measure_recorded(&recording(times), seconds, |_| None)?;
        let window =
            |one: &Measurement| (one.window.start_unix_seconds, one.window.end_unix_seconds);
        Ok(measured.iter().map(window).collect())
    }

    #[test]
    fn a_recording_is_cut_into_windows_that_follow_each_other() {
        let times = [100.0, 105.0, 110.0, 116.0, 120.0];
        assert_eq!(cut(&times, 60.0), Ok(vec![(100.0, 120.0)]));
        assert_eq!(cut(&times, 10.0), Ok(vec![(100.0, 110.0), (110.0, 120.0)]));
        // a gap is longer than a window
        assert_eq!(
            cut(&times[1..], 5.5),
            Ok(vec![(105.0, 110.0), (110.0, 116.0), (116.0, 120.0)])
        );
        assert!(cut(&times[..1], 60.0).is_err());
        assert!(cut(&[105.0, 100.0], 60.0).is_err());
        assert!(cut(&[105.0, 105.0], 60.0).is_err());
        assert!(cut(&[], 60.0).is_err());
    }
}
