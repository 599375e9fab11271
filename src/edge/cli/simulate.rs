//! `perfagent simulate`: an engine under load that is not there, on ports of its own.

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::terminal::{complain, note, print};
use crate::edge::simulate::{Glance, SimulateError, Simulated};
use crate::simulator::{Deployment, FLAGS, Flag, FlagValues, Scenario, engine_name};

/// Flags of `perfagent simulate`.
#[derive(Debug, Args)]
#[command(after_help = TEACHING)]
pub(super) struct SimulateArgs {
    /// vllm, sglang or tgi [default: vllm]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port of the first replica, the others have those after it; 0 takes free ones
    #[arg(long, default_value_t = 9001, value_name = "PORT")]
    port: u16,
    /// Replicas, which share the load evenly or as --split says [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Seconds of the simulation in one of the clock; other than 1 gives every value its simulated time [default: 1]
    #[arg(long, value_name = "FACTOR")]
    speed: Option<f64>,
    /// Model that is said to be served [default: simulated]
    #[arg(long, visible_alias = "served-model-name", value_name = "NAME")]
    model: Option<String>,
    /// Time by the clock that a replica loads when an actuator changes its settings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s", value_name = "TIME")]
    load_time: Duration,
    /// Scenario (TOML) with all this and faults at their times; flags win over it
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    flags: EngineFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Requests a second, arriving independently of one another
    #[arg(long, value_name = "N", conflicts_with = "clients")]
    rate: Option<f64>,
    /// Clients, each of which waits for its answer [default: 8, where there is no rate]
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// Mean pause of a client in seconds [default: 0]
    #[arg(long, value_name = "SECONDS")]
    think: Option<f64>,
    /// Tokens of a prompt: 64, 48..96, "lognormal MEDIAN SIGMA MOST" or "pareto LEAST EXPONENT MOST" [default: 64..512]
    #[arg(long, value_name = "LENGTH")]
    prompt_tokens: Option<String>,
    /// Tokens of an output, written the same way [default: 32..256]
    #[arg(long, value_name = "LENGTH")]
    output_tokens: Option<String>,
    /// Tokens that prompts share at their beginning [default: 0]
    #[arg(long, value_name = "TOKENS")]
    shared_prefix: Option<u32>,
    /// Different beginnings [default: 1]
    #[arg(long, value_name = "N")]
    shared_prefix_groups: Option<u32>,
    /// Share of clients that go before the end [default: 0]
    #[arg(long, value_name = "RATIO")]
    abort_ratio: Option<f64>,
    /// Clients go if there is no first token after so many seconds
    #[arg(long, value_name = "SECONDS")]
    patience: Option<f64>,
    /// Share of outputs that end by a stop token, not by length [default: 0.5]
    #[arg(long, value_name = "RATIO")]
    stop_ratio: Option<f64>,
    /// vllm, sglang: seconds for which requests wait for adapter, grammar or KV transfer [default: 0]
    #[arg(long, value_name = "SECONDS")]
    deferred: Option<f64>,
    /// How the load is divided over the replicas, as in 3,1 [default: evenly]
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',')]
    split: Option<Vec<u32>>,
    /// The same seed gives the same requests [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    next_help_heading = "Time of a step (defaults: about an 8B model in 16 bits on one H100)"
)]
struct TimingArgs {
    /// Seconds of every step [default: 0.0015]
    #[arg(long, value_name = "SECONDS")]
    fixed_seconds: Option<f64>,
    /// Seconds for each token, of a prompt or decoded [default: 27e-6]
    #[arg(long, value_name = "SECONDS")]
    token_seconds: Option<f64>,
    /// Fewer tokens take as long as so many [default: 178]
    #[arg(long, value_name = "TOKENS")]
    knee_tokens: Option<f64>,
    /// Seconds for each request that decodes, beside its token [default: 10e-6]
    #[arg(long, value_name = "SECONDS")]
    decode_sequence_seconds: Option<f64>,
    /// Seconds for each token before one that is decoded [default: 45e-9]
    #[arg(long, value_name = "SECONDS")]
    decode_context_token_seconds: Option<f64>,
    /// Seconds for each token before one of a prompt [default: 1e-9]
    #[arg(long, value_name = "SECONDS")]
    prefill_context_token_seconds: Option<f64>,
    /// Seconds of a request outside the scheduler [default: 0.002]
    #[arg(long, value_name = "SECONDS")]
    frontend_seconds: Option<f64>,
    /// Seconds of every step outside the accelerator, on top of the rest [default: 0]
    #[arg(long, value_name = "SECONDS")]
    host_seconds: Option<f64>,
    /// sglang: shows the time of its forward passes on the accelerator
    #[arg(long)]
    device_timer: bool,
    /// Most sequences of a decode step that captured graphs hold [default: any]
    #[arg(long, value_name = "N")]
    graph_max_sequences: Option<u32>,
    /// Decode steps beyond them take the accelerator this many times as long [default: 1]
    #[arg(long, value_name = "FACTOR")]
    eager_factor: Option<f64>,
    /// Share of guessed tokens that are right, with --speculative-config [default: 0.7]
    #[arg(long, value_name = "RATIO")]
    acceptance_ratio: Option<f64>,
}

const TEACHING: &str = "Examples:
  perfagent simulate --max-num-seqs 4 --clients 32
  perfagent simulate --engine sglang --port 30000 --replicas 2 --rate 20 --speed 20
  perfagent collect --url http://127.0.0.1:9001/metrics

While it runs, on the machine itself (each replica on its own port):
  curl 127.0.0.1:9001/simulator
  curl 127.0.0.1:9001/simulator/faults -d '{\"stalled\": true}'
  curl 127.0.0.1:9001/simulator/faults -d '{\"stalled\": false, \"slowness\": 3, \"failure_ratio\": 0.1}'
  curl 127.0.0.1:9001/simulator/restart -d '{\"settings\": {\"max_num_seqs\": 32}, \"load_seconds\": 20}'
  curl 127.0.0.1:9001/control/settings           # what an actuator of type `simulator` reads, and writes with PUT
A restart fails what runs, empties the cache, counts from 0, and answers 503 while the engine loads.

A scenario:
  cause = \"too few sequences at once\"   # for those who check a diagnosis; not in the metrics
  engine = \"vllm\"
  replicas = 2
  settings = { max_num_seqs = 4, max_num_batched_tokens = 2048 }
  load = { rate = 3, prompt_tokens = \"48..96\", output_tokens = \"lognormal 200 0.8 2000\" }
  timing = { fixed_seconds = 0.01 }
  [[faults]]
  at_seconds = 60
  replica = 1
  slowness = 3
Only a scenario has:
  load.drift = { factor = 2, from_seconds = 60, over_seconds = 120 }   # becomes twice the rate, or twice the clients
  load.bursts = { factor = 4, seconds = 2, period_seconds = 20 }
  load.length_correlation = 0.5    # outputs are longer where prompts are; -1 to 1
  load.classes                     # kinds of requests, each with its weight
  memory = { device_gib = 80, weights_gib = 20, kv_bytes_per_token = 131072 }   # what --gpu-memory-utilization is of
  timing.jitter_sigma = 0.1        # steps that differ: standard deviation of the logarithm of their time
  timing.pause_ratio = 0.001       # share of steps that the host pauses in, for timing.pause_seconds on average
  timing.padded_decodes = true     # decodes are computed for the next captured size: 1, 2, 4, 8, 16, 24 …
  timing.knee_sharpness = 3        # a soft knee; 1 adds memory and computing
  timing.token_exponent = 0.9      # beyond the knee, time grows with this power of the tokens

Exit codes: 0 ended by Ctrl-C; 1 failed; 2 wrong usage or scenario.";

/// The engines' own flags.
#[derive(Debug, Default)]
struct EngineFlags(FlagValues);

impl EngineFlags {
    /// Flags by name: engines share some.
    fn by_name() -> Vec<(&'static str, Vec<&'static Flag>)> {
        let mut all: Vec<(&str, Vec<&Flag>)> = Vec::new();
        for flag in FLAGS {
            match all.iter_mut().find(|(name, _)| *name == flag.name) {
                Some((_, flags)) => flags.push(flag),
                None => all.push((flag.name, vec![flag])),
            }
        }
        all
    }
}

impl Args for EngineFlags {
    fn augment_args(command: Command) -> Command {
        Self::by_name()
            .into_iter()
            .fold(command, |command, (name, flags)| {
                let help: Vec<String> = flags
                    .iter()
                    .map(|flag| format!("{}: {}", engine_name(flag.engine), flag.help))
                    .collect();
                let arg = Arg::new(name)
                    .long(name)
                    .help(help.join("; "))
                    .help_heading("Flags of the engines");
                command.arg(match flags.first().and_then(|flag| flag.value) {
                    Some(value) => arg.value_name(value).allow_hyphen_values(true),
                    None => arg.action(ArgAction::SetTrue),
                })
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EngineFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for (name, flags) in Self::by_name() {
            if flags.iter().all(|flag| flag.value.is_none()) {
                if matches.get_flag(name) {
                    self.0.set(name, "true");
                }
            } else if let Some(value) = matches.get_one::<String>(name) {
                self.0.set(name, value.clone());
            }
        }
        Ok(())
    }
}

impl SimulateArgs {
    fn deployment(&self) -> Result<Deployment, String> {
        let mut scenario = match &self.scenario {
            None => Scenario::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        self.put_into(&mut scenario);
        scenario.deployment().map_err(|error| match &self.scenario {
            Some(path) => format!("{}: {error}", path.display()),
            None => error.to_string(),
        })
    }

    fn put_into(&self, scenario: &mut Scenario) {
        fn put<T: Clone>(from: &Option<T>, into: &mut Option<T>) {
            if from.is_some() {
                into.clone_from(from);
            }
        }
        put(&self.engine, &mut scenario.engine);
        put(&self.replicas, &mut scenario.replicas);
        put(&self.speed, &mut scenario.speed);
        put(&self.model, &mut scenario.model);
        for (name, value) in self.flags.0.iter() {
            scenario
                .settings
                .retain(|known, _| known.replace('_', "-") != name);
            scenario
                .settings
                .insert(name.to_owned(), Value::String(value.to_owned()));
        }
        let (args, load) = (&self.load, &mut scenario.load);
        // the one replaces the other
        if args.rate.is_some() {
            load.clients = None;
        }
        if args.clients.is_some() {
            (load.rate, load.bursts) = (None, None);
        }
        put(&args.rate, &mut load.rate);
        put(&args.clients, &mut load.clients);
        put(&args.think, &mut load.think_seconds);
        put(&args.split, &mut load.split);
        put(&args.seed, &mut load.seed);
        let request = &mut load.request;
        put(
            &args.prompt_tokens.clone().map(Value::String),
            &mut request.prompt_tokens,
        );
        put(
            &args.output_tokens.clone().map(Value::String),
            &mut request.output_tokens,
        );
        put(&args.shared_prefix, &mut request.shared_prefix_tokens);
        put(
            &args.shared_prefix_groups,
            &mut request.shared_prefix_groups,
        );
        put(&args.abort_ratio, &mut request.abort_ratio);
        put(&args.patience, &mut request.patience_seconds);
        put(&args.stop_ratio, &mut request.stop_ratio);
        put(&args.deferred, &mut request.deferred_seconds);
        let (args, timing) = (&self.timing, &mut scenario.timing);
        put(&args.fixed_seconds, &mut timing.fixed_seconds);
        put(&args.token_seconds, &mut timing.token_seconds);
        put(&args.knee_tokens, &mut timing.knee_tokens);
        put(
            &args.decode_sequence_seconds,
            &mut timing.decode_sequence_seconds,
        );
        put(
            &args.decode_context_token_seconds,
            &mut timing.decode_context_token_seconds,
        );
        put(
            &args.prefill_context_token_seconds,
            &mut timing.prefill_context_token_seconds,
        );
        put(&args.frontend_seconds, &mut timing.frontend_seconds);
        put(&args.host_seconds, &mut timing.host_seconds);
        put(&args.device_timer.then_some(true), &mut timing.device_timer);
        put(&args.graph_max_sequences, &mut timing.graph_max_sequences);
        put(&args.eager_factor, &mut timing.eager_factor);
        put(&args.acceptance_ratio, &mut timing.acceptance_ratio);
    }
}

pub(super) async fn run(args: SimulateArgs) -> Outcome {
    let deployment = match args.deployment() {
        Ok(deployment) => deployment,
        Err(message) => {
            complain(
                &message,
                Some("perfagent simulate --help shows flags, and a scenario"),
            );
            return Outcome::Usage;
        }
    };
    let (engine, speed) = (engine_name(deployment.engine), deployment.speed);
    let simulated = match Simulated::bind(deployment, args.host, args.port).await {
        Ok(simulated) => simulated,
        Err(error) => {
            let hint = match error {
                SimulateError::Listen { .. } => "give another --port, or 0 for a free one",
                _ => "perfagent simulate --help shows what can be",
            };
            complain(&error.to_string(), Some(hint));
            return Outcome::Failed;
        }
    };
    simulated.load_for(args.load_time);
    let pace = if speed == 1.0 {
        "in real time".to_owned()
    } else {
        format!("{speed} times as fast")
    };
    for url in simulated.urls() {
        print(&format!(
            "SIMULATED {engine} at {url} {pace}; stop with Ctrl-C\n"
        ));
    }
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            interrupted().await;
            stop.cancel();
        }
    });
    let progress = tokio::spawn(show(simulated.watcher(), stop.clone()));
    let served = simulated.serve(stop).await;
    // it ends by itself
    let _ = progress.await;
    match served {
        Ok(()) => Outcome::Done,
        Err(error) => {
            complain(&error.to_string(), None);
            Outcome::Failed
        }
    }
}

/// Ctrl-C, or being told to end.
async fn interrupted() {
    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// A line that is written over each second, where there is a terminal; and a word if it cannot keep up.
async fn show(look: impl Fn() -> Vec<Glance>, stop: CancellationToken) {
    let live = std::io::stderr().is_terminal();
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let glances = look();
        if !told && glances.iter().any(|glance| glance.lags) {
            told = true;
            note(
                "warning",
                "this machine is too slow for this load at this speed: simulated time lags behind",
            );
        }
        if live {
            let parts: Vec<String> = glances.iter().map(line).collect();
            let seconds = glances.first().map_or(0.0, |glance| glance.seconds);
            // nobody is left to be told when standard error is closed
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K{seconds:.0} s simulated: {}",
                parts.join(" | ")
            );
        }
    }
    if live {
        let _ = writeln!(std::io::stderr());
    }
}

fn line(of: &Glance) -> String {
    match of.up {
        true => format!("{} running, {} waiting", of.running, of.waiting),
        false => "loading".to_owned(),
    }
}
