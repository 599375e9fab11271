//! Runs of a real engine, recorded with what drove them; and what the model says of them after it was fitted to one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use perfagent::engine::{EngineProfile, Quantity, Registry};
use perfagent::exposition::Options;
use perfagent::measure::{InstanceSamples, Measurement, ReplicaSamples, Sample, WindowKind};
use perfagent::model::{
    Arrival, Fit, Lengths, Load, RequestClass, Settings, SharedPrefix, Simulation, StepTime,
    StepWindow, Tally,
};
use serde_json::Value;

/// One recorded run.
pub(crate) struct Run {
    dir: PathBuf,
    meta: Value,
}

/// What was measured, or predicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) tokens_per_second: f64,
    pub(crate) ttft_seconds: f64,
    pub(crate) itl_seconds: f64,
}

/// Repeats of one setting under one load, and the prediction.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) repeats: Vec<Figures>,
    pub(crate) predicted: Figures,
}

/// The runs that tell setting by setting, load by load.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/engine-runs")
}

/// The times of steps, from the one run that is fitted to.
pub(crate) fn fitted() -> Fit {
    let windows: Vec<StepWindow> = runs_in(&root().join("fit"))
        .iter()
        .map(|run| StepWindow::of(&run.measured()).expect("a window under load"))
        .collect();
    Fit::to(&windows).expect("windows")
}

/// Every setting under every load, but for what was fitted to.
pub(crate) fn rows(step_time: StepTime) -> Vec<Row> {
    let mut rows = Vec::new();
    for setting in dirs(&root()) {
        let setting_name = name_of(&setting);
        if setting_name == "fit" {
            continue;
        }
        let mut loads: Vec<(String, Vec<Run>)> = Vec::new();
        for run in runs_in(&setting) {
            let name = name_of(&run.dir);
            let load = name.rsplit_once('-').expect("load and repeat").0.to_owned();
            match loads.iter_mut().find(|(known, _)| *known == load) {
                Some((_, repeats)) => repeats.push(run),
                None => loads.push((load, vec![run])),
            }
        }
        for (load, repeats) in loads {
            let first = repeats.first().expect("a repeat");
            rows.push(Row {
                name: format!("{setting_name}, {load}"),
                predicted: predict(first.settings(), step_time, first.load()),
                repeats: repeats.iter().map(|run| run.figures()).collect(),
            });
        }
    }
    rows
}

/// The runs among the captures that the model can say something of.
pub(crate) fn captures(step_time: StepTime) -> Vec<Row> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures/vllm-0.32.0");
    runs_in(&root)
        .into_iter()
        .filter(Run::can_be_predicted)
        .map(|run| Row {
            name: format!("capture {}", name_of(&run.dir)),
            predicted: predict(run.settings(), step_time, run.load()),
            repeats: vec![run.figures()],
        })
        .collect()
}

/// What the model says of these settings under this load.
pub(crate) fn predict(settings: Settings, step_time: StepTime, load: Load) -> Figures {
    let mut simulation =
        Simulation::new(settings, step_time, load, (0, 1)).expect("settings of a real engine");
    simulation.run_until(10.0, &mut ());
    let mut tally = Tally::from(simulation.now());
    simulation.run_until(110.0, &mut tally);
    let summary = tally.summary(simulation.now());
    let mean = |quantiles: Option<perfagent::model::Quantiles>| {
        quantiles.map_or(f64::NAN, |some| some.mean)
    };
    Figures {
        tokens_per_second: summary.tokens_per_second(),
        ttft_seconds: mean(summary.time_to_first_token_seconds),
        itl_seconds: mean(summary.inter_token_seconds),
    }
}

impl Row {
    /// Mean of the repeats.
    pub(crate) fn observed(&self) -> Figures {
        let mean = |of: fn(&Figures) -> f64| {
            self.repeats.iter().map(of).sum::<f64>() / self.repeats.len() as f64
        };
        Figures {
            tokens_per_second: mean(|one| one.tokens_per_second),
            ttft_seconds: mean(|one| one.ttft_seconds),
            itl_seconds: mean(|one| one.itl_seconds),
        }
    }

    /// Most less least of the repeats, against their mean.
    pub(crate) fn spread_ratio(&self, of: fn(&Figures) -> f64) -> f64 {
        let values = self.repeats.iter().map(of);
        let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
        let least = values.fold(f64::INFINITY, f64::min);
        (most - least) / of(&self.observed())
    }

    /// How far the prediction is off, against the mean of the repeats.
    pub(crate) fn error_ratio(&self, of: fn(&Figures) -> f64) -> f64 {
        of(&self.predicted) / of(&self.observed()) - 1.0
    }
}

impl Run {
    /// Under load, long enough, and without guesses whose acceptance is not known beforehand.
    fn can_be_predicted(&self) -> bool {
        let load = &self.meta["load"];
        load["mode"] != "none" && load["text_repeat"] != true && self.settled().len() > 1
    }

    /// Scrapes after the load has settled, and before it ends.
    fn settled(&self) -> Vec<&Value> {
        let scrapes = self.meta["scrapes"].as_array().expect("scrapes");
        let end = self.meta["load"]["duration_s"].as_f64().expect("duration");
        let within = |scrape: &&Value| {
            let at = scrape["t_since_load_start_s"].as_f64().unwrap_or(f64::NAN);
            at >= SETTLED_SECONDS.min(end / 5.0) && at <= end
        };
        scrapes.iter().filter(within).collect()
    }

    /// Over all scrapes after the load has settled.
    fn measured(&self) -> Measurement {
        let profile = profile(self.meta["engine"].as_str().expect("engine"));
        let samples: Vec<Arc<Sample>> = self
            .settled()
            .into_iter()
            .map(|scrape| {
                let name = scrape["file"].as_str().expect("file");
                let at = scrape["unix_start"].as_f64().expect("unix_start");
                let (sample, _) = Sample::read(&profile, &self.body(name), at, &Options::default())
                    .expect("a scrape");
                Arc::new(sample)
            })
            .collect();
        assert!(samples.len() > 1, "{}", self.dir.display());
        let replica = ReplicaSamples {
            metrics_url: "http://127.0.0.1:8000/metrics".to_owned(),
            samples,
            failed_scrapes: 0,
            last_failure: None,
            probed: Arc::default(),
        };
        InstanceSamples {
            instance_id: "run".to_owned(),
            profile: &profile,
            kind: WindowKind::Interval,
            replicas: vec![replica],
        }
        .measure()
    }

    fn figures(&self) -> Figures {
        let measured = self.measured();
        let mean = |quantity| {
            let found = measured
                .figures
                .distribution(quantity)
                .and_then(|distribution| distribution.mean);
            found.unwrap_or(f64::NAN)
        };
        Figures {
            tokens_per_second: measured
                .figures
                .value("generation_tokens_per_second")
                .expect("a rate"),
            ttft_seconds: mean(Quantity::TimeToFirstToken),
            itl_seconds: mean(Quantity::InterTokenLatency),
        }
    }

    fn body(&self, name: &str) -> Vec<u8> {
        let plain = self.dir.join(name);
        if plain.exists() {
            return fs::read(plain).expect("a scrape");
        }
        let packed = fs::File::open(self.dir.join(format!("{name}.gz"))).expect("a scrape");
        let mut body = Vec::new();
        GzDecoder::new(packed)
            .read_to_end(&mut body)
            .expect("a scrape");
        body
    }

    /// As the engine was started, and what it made of that.
    fn settings(&self) -> Settings {
        let arguments = self.meta["server_args"].as_str().expect("server_args");
        let argument = |name: &str, default: u32| {
            let mut words = arguments
                .split_whitespace()
                .skip_while(|word| *word != name);
            words
                .nth(1)
                .map_or(default, |value| value.parse().expect("a number"))
        };
        let last = self.meta["scrapes"]
            .as_array()
            .and_then(|all| all.last())
            .expect("a scrape");
        let body = self.body(last["file"].as_str().expect("file"));
        let text = String::from_utf8(body).expect("text");
        let line = text
            .lines()
            .find(|line| line.starts_with("vllm:cache_config_info"))
            .expect("settings");
        let label = |name: &str| {
            let start = line.find(&format!("{name}=\"")).expect("label") + name.len() + 2;
            line[start..].split('"').next().expect("value").to_owned()
        };
        Settings {
            // of vLLM on a CPU
            max_num_seqs: argument("--max-num-seqs", 128),
            max_num_batched_tokens: argument("--max-num-batched-tokens", 2_048),
            // one block is never handed out
            kv_blocks: label("num_gpu_blocks").parse::<u32>().expect("a number") - 1,
            block_size: label("block_size").parse().expect("a number"),
            max_model_len: argument("--max-model-len", 2_048),
            prefix_caching: label("enable_prefix_caching") == "True",
            ..Settings::default()
        }
    }

    /// What the client sent.
    fn load(&self) -> Load {
        let load = &self.meta["load"];
        let number =
            |value: &Value| u32::try_from(value.as_u64().expect("a number")).expect("small");
        let lengths = |name: &str| Lengths::Uniform {
            min: number(&load[name][0]),
            max: number(&load[name][1]),
        };
        let mut class = RequestClass::of(lengths("prompt_tokens"), lengths("output_tokens"));
        class.prefix = match number(&load["shared_prefix_tokens"]) {
            0 => None,
            tokens => Some(SharedPrefix { tokens, groups: 1 }),
        };
        let long = load["mix_long_frac"].as_f64().unwrap_or(0.0);
        class.weight = 1.0 - long;
        let mut classes = vec![class];
        if long > 0.0 {
            let mut class = RequestClass::of(
                Lengths::Fixed(number(&load["long_prompt"])),
                Lengths::Fixed(4),
            );
            class.weight = long;
            classes.push(class);
        }
        Load {
            arrival: match load["rate_rps"].as_f64() {
                Some(rate_per_second) => Arrival::Poisson { rate_per_second },
                None => Arrival::Closed {
                    clients: number(&load["concurrency"]),
                    think_seconds: 0.0,
                },
            },
            classes,
            split: Vec::new(),
            drift: None,
            seed: 1,
        }
    }
}

/// Until then requests that began together go on together.
const SETTLED_SECONDS: f64 = 4.0;

fn profile(engine: &str) -> Arc<EngineProfile> {
    Registry::builtin().get(engine).expect("built in").clone()
}

fn runs_in(dir: &Path) -> Vec<Run> {
    let with_meta = dirs(dir)
        .into_iter()
        .filter(|dir| dir.join("meta.json").exists());
    with_meta
        .map(|dir| {
            let text = fs::read_to_string(dir.join("meta.json")).expect("meta.json");
            Run {
                meta: serde_json::from_str(&text).expect("JSON"),
                dir,
            }
        })
        .collect()
}

fn dirs(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut dirs: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    dirs.sort();
    dirs
}

fn name_of(dir: &Path) -> String {
    dir.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}
