//! Recorded engines: exact bytes of `/metrics`, other answers, and what a client measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use perfagent::engine::{EngineProfile, Probed, Registry, read_endpoint};
use perfagent::exposition::Options;
use perfagent::measure::{InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind};
use serde_json::Value;

/// One recorded condition of one engine.
pub struct Capture {
    /// `vllm-0.32.0/c-saturation`.
    pub name: String,
    /// Engine, as in `instance_type`.
    pub engine: String,
    dir: PathBuf,
    /// What was recorded beside the scrapes.
    pub meta: Value,
}

/// Where the captures lie.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures")
}

/// The capture of this name.
pub fn capture(name: &str) -> Capture {
    let dir = root().join(name);
    let text = fs::read_to_string(dir.join("meta.json")).expect(name);
    Capture {
        name: name.to_owned(),
        engine: name.split('-').next().expect("engine in name").to_owned(),
        dir,
        meta: serde_json::from_str(&text).expect(name),
    }
}

/// Every capture.
pub fn all() -> Vec<Capture> {
    let mut names = Vec::new();
    for engine in fs::read_dir(root()).expect("captures").flatten() {
        if engine.path().is_dir() {
            for condition in fs::read_dir(engine.path()).expect("conditions").flatten() {
                let engine = engine.file_name();
                let condition = condition.file_name();
                names.push(format!(
                    "{}/{}",
                    engine.to_string_lossy(),
                    condition.to_string_lossy()
                ));
            }
        }
    }
    names.sort();
    assert!(names.len() >= 25, "captures are missing");
    names.iter().map(|name| capture(name)).collect()
}

impl Capture {
    /// How many scrapes there are.
    pub fn scrapes(&self) -> usize {
        self.meta["scrapes"].as_array().expect("scrapes").len()
    }

    /// The bytes of scrape `n`, counted from 1.
    pub fn body(&self, n: usize) -> Vec<u8> {
        fs::read(self.dir.join(format!("scrape-{n}.prom"))).expect(&self.name)
    }

    /// When scrape `n` began.
    pub fn time(&self, n: usize) -> f64 {
        self.meta["scrapes"][n - 1]["unix_start"]
            .as_f64()
            .expect("unix_start")
    }

    /// The profile of its engine.
    pub fn profile(&self) -> std::sync::Arc<EngineProfile> {
        Registry::builtin()
            .get(&self.engine)
            .expect("built in")
            .clone()
    }

    /// What its endpoints answered.
    pub fn probed(&self) -> Probed {
        let mut probed = Probed::default();
        let profile = self.profile();
        for endpoint in &profile.endpoints {
            if let Some(answer) = self.answer(&endpoint.path) {
                probed.merge(read_endpoint(&profile, &endpoint.path, &answer));
            }
        }
        probed
    }

    /// The recorded JSON answer of an endpoint.
    pub fn answer(&self, path: &str) -> Option<Value> {
        let name = match path {
            "/server_info?config_format=json" => "server_info_json".to_owned(),
            other => other.trim_start_matches('/').replace('/', "_"),
        };
        let text = fs::read_to_string(self.dir.join(format!("endpoint-{name}.json"))).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Scrape `n` in canonical terms.
    pub fn sample(&self, n: usize) -> Sample {
        let profile = self.profile();
        let (mut sample, _) =
            Sample::read(&profile, &self.body(n), self.time(n), &Options::default())
                .expect(&self.name);
        sample.tick = u32::try_from(n).expect("small");
        sample
    }

    /// The measurement over scrapes `from` to `to`.
    pub fn measure(&self, from: usize, to: usize) -> Measurement {
        let samples = (from..=to).map(|n| self.sample(n)).collect();
        self.measure_samples(samples, WindowKind::Interval)
    }

    /// The measurement over given samples.
    pub fn measure_samples(&self, samples: Vec<Sample>, kind: WindowKind) -> Measurement {
        self.measure_replicas(vec![self.replica(samples)], kind)
    }

    /// A replica with these samples.
    pub fn replica(&self, samples: Vec<Sample>) -> ReplicaSamples {
        ReplicaSamples {
            metrics_url: "http://127.0.0.1:8000/metrics".to_owned(),
            samples: samples.into_iter().map(Arc::new).collect(),
            failed_scrapes: 0,
            last_failure: None,
            probed: Arc::new(self.probed()),
        }
    }

    /// The measurement over given replicas.
    pub fn measure_replicas(&self, replicas: Vec<ReplicaSamples>, kind: WindowKind) -> Measurement {
        InstanceSamples {
            instance_id: "replayed".to_owned(),
            profile: &self.profile(),
            kind,
            replicas,
        }
        .measure()
    }

    /// The client's count between two scrapes.
    pub fn client_window(&self) -> ClientWindow {
        let window = &self.meta["client"]["window"];
        let number = |key: &str| window[key].as_f64().expect(key);
        ClientWindow {
            from: number("from_scrape") as usize,
            to: number("to_scrape") as usize,
            chunks_per_second: number("client_chunks_per_s"),
        }
    }
}

/// What the client saw between two scrapes.
pub struct ClientWindow {
    /// First scrape.
    pub from: usize,
    /// Last scrape.
    pub to: usize,
    /// Streamed chunks a second, which are tokens but with speculation.
    pub chunks_per_second: f64,
}
