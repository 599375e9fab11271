//! What an agent would have seen of an instance: pages and answers, of the simulator or of a real engine, and what is
//! measured of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use perfagent::engine::{EngineProfile, Probed, Registry, Version, read_endpoint};
use perfagent::exposition::Options;
use perfagent::measure::{InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind};
use serde_json::Value;

use super::{Truth, older};

/// What an agent would have seen of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) engine: String,
    pub(crate) replicas: Vec<RecordedReplica>,
    /// What is true of it; none of real engines.
    pub(crate) truth: Option<Truth>,
}

/// One replica.
#[derive(Debug, Clone)]
pub(crate) struct RecordedReplica {
    /// In order of time.
    pub(crate) pages: Vec<Page>,
    /// What its endpoints said.
    pub(crate) probed: Arc<Probed>,
}

/// One scrape.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) unix_seconds: f64,
    pub(crate) text: String,
}

impl Recording {
    /// The measurement over all of it.
    pub(crate) fn measure(&self) -> Measurement {
        self.measure_between(0, usize::MAX)
    }

    /// The measurement over the scrapes of these numbers, both included, counted from 0.
    pub(crate) fn measure_between(&self, first: usize, last: usize) -> Measurement {
        let profile = profile(&self.engine);
        let replicas = self
            .replicas
            .iter()
            .enumerate()
            .map(|(number, replica)| ReplicaSamples {
                metrics_url: format!("http://127.0.0.1:{}/metrics", 8_000 + number),
                samples: replica.samples(&profile, first, last),
                failed_scrapes: 0,
                last_failure: None,
                probed: replica.probed.clone(),
            })
            .collect();
        InstanceSamples {
            instance_id: "case".to_owned(),
            profile: &profile,
            kind: WindowKind::Interval,
            replicas,
        }
        .measure()
    }

    /// How many scrapes there are of the replica that has most.
    pub(crate) fn scrapes(&self) -> usize {
        let counts = self.replicas.iter().map(|replica| replica.pages.len());
        counts.max().unwrap_or(0)
    }

    /// The same pages as another version would have written them, and its endpoints too.
    pub(crate) fn as_version(&self, version: &str) -> Self {
        let parsed: Version = version.parse().expect("a version");
        let mut other = self.clone();
        for replica in &mut other.replicas {
            let mut probed = Probed::clone(&replica.probed);
            probed.version = Some(parsed);
            probed.version_text = Some(version.to_owned());
            replica.probed = Arc::new(probed);
            for page in &mut replica.pages {
                page.text = older::as_version(&self.engine, parsed, &page.text);
            }
        }
        other
    }

    /// The same pages without the series of a family.
    pub(crate) fn without(&self, family: &str) -> Self {
        let mut other = self.clone();
        for page in other.replicas.iter_mut().flat_map(|of| &mut of.pages) {
            page.text = older::without(&page.text, family);
        }
        other
    }
}

impl RecordedReplica {
    fn samples(&self, profile: &EngineProfile, first: usize, last: usize) -> Vec<Arc<Sample>> {
        let chosen = self.pages.iter().enumerate().take(last.saturating_add(1));
        chosen
            .skip(first)
            .map(|(number, page)| {
                let read = Sample::read(
                    profile,
                    page.text.as_bytes(),
                    page.unix_seconds,
                    &Options::default(),
                );
                let (mut sample, _) = read.expect("a page");
                sample.tick = u32::try_from(number).expect("few scrapes");
                Arc::new(sample)
            })
            .collect()
    }
}

/// Scrapes of a real engine, counted from 1, with what its endpoints answered where that was recorded.
pub(super) fn recorded(capture: &str, [first, last]: [usize; 2]) -> Recording {
    let dir = fixtures().join("captures").join(capture);
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let meta: Value = serde_json::from_str(&read("meta.json").expect(capture)).expect(capture);
    let engine = engine_of_capture(capture);
    let profile = profile(&engine);
    let pages = (first..=last)
        .map(|number| Page {
            unix_seconds: meta["scrapes"][number - 1]["unix_start"]
                .as_f64()
                .expect("unix_start"),
            text: read(&format!("scrape-{number}.prom")).expect(capture),
        })
        .collect();
    let mut probed = Probed {
        version_text: meta["engine_version"].as_str().map(str::to_owned),
        proves_engine: true,
        ..Probed::default()
    };
    probed.version = probed
        .version_text
        .as_deref()
        .and_then(|text| text.parse().ok());
    for endpoint in &profile.endpoints {
        let name = match endpoint.path.as_ref() {
            "/server_info?config_format=json" => "server_info_json".to_owned(),
            other => other.trim_start_matches('/').replace('/', "_"),
        };
        if let Some(text) = read(&format!("endpoint-{name}.json"))
            && let Ok(answer) = serde_json::from_str(&text)
        {
            probed.merge(read_endpoint(&profile, &endpoint.path, &answer));
        }
    }
    Recording {
        engine,
        replicas: vec![RecordedReplica {
            pages,
            probed: Arc::new(probed),
        }],
        truth: None,
    }
}

pub(super) fn engine_of_capture(capture: &str) -> String {
    capture.split('-').next().unwrap_or_default().to_owned()
}

pub(super) fn profile(engine: &str) -> Arc<EngineProfile> {
    Registry::builtin().get(engine).expect("built in").clone()
}

pub(super) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
