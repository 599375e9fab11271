//! A desk of settings that outlives the agents: it counts how often each operation took effect, and notes each write that
//! it accepted. Their actuator's program is a line of the shell, which carries what it is asked to the test and the answer
//! back: some thousand calls cost little, and what was asked takes effect whatever becomes of who asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::rig::Random;

/// Asks the desk on the port that it is given.
const PROGRAM: &str = "exec 3<>/dev/tcp/127.0.0.1/$1; IFS= read -r ask || exit; printf '%s\\n' \"$ask\" >&3; \
                       exec cat <&3";
/// Engines take a while to load.
const LOADS: Duration = Duration::from_millis(200);

/// Settings of all instances.
pub(super) struct Desk {
    address: SocketAddr,
    state: Mutex<State>,
}

struct State {
    instances: BTreeMap<String, OnDesk>,
    /// The share of writes, from 0 to 1, that take effect and say that they failed.
    told_failed: f64,
    random: Random,
}

/// Settings of an instance, and what became of them.
#[derive(Debug, Clone, Default)]
pub(super) struct OnDesk {
    targets: Vec<Target>,
    /// How often each operation took effect.
    pub(super) applies: BTreeMap<String, u64>,
    pub(super) writes: Vec<Accepted>,
    pub(super) told_failed: u64,
}

#[derive(Debug, Clone)]
struct Target {
    content: Vec<u8>,
    revision: u64,
    operation_id: Option<String>,
    epoch: Option<i64>,
    metrics_url: String,
    ready_at: Option<Instant>,
}

/// A write that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) operation_id: String,
    pub(super) epoch: i64,
    /// Unix time in seconds.
    pub(super) at: f64,
}

/// What is answered: what was asked for, or why not.
type Answer = Result<Value, Value>;

impl Desk {
    /// Begins to answer.
    pub(super) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let desk = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            state: Mutex::new(State {
                instances: BTreeMap::new(),
                told_failed: 0.0,
                random: Random(u64::from(std::process::id()) | 1),
            }),
        });
        let answers = desk.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answers.clone().answer(stream));
            }
        });
        desk
    }

    /// As the config file has it.
    pub(super) fn command(&self) -> [String; 5] {
        let bash = Command::new("bash")
            .args(["-c", "printf %s \"$BASH\""])
            .output()
            .expect("bash is there");
        let bash = String::from_utf8(bash.stdout).unwrap();
        let port = self.address.port().to_string();
        [
            bash,
            "-c".to_owned(),
            PROGRAM.to_owned(),
            "desk".to_owned(),
            port,
        ]
    }

    /// Settings of an instance, with the metrics of each target.
    pub(super) fn put(&self, instance: &str, targets: Vec<(Vec<u8>, String)>) {
        let target = |(content, metrics_url)| Target {
            content,
            revision: 1,
            operation_id: None,
            epoch: None,
            metrics_url,
            ready_at: None,
        };
        let on_desk = OnDesk {
            targets: targets.into_iter().map(target).collect(),
            ..OnDesk::default()
        };
        self.state().instances.insert(instance.to_owned(), on_desk);
    }

    /// How those of an instance are now; none of what is not there yet.
    pub(super) fn of(&self, instance: &str) -> OnDesk {
        let state = self.state();
        state.instances.get(instance).cloned().unwrap_or_default()
    }

    /// From now on.
    pub(super) fn tell_failed(&self, share: f64) {
        self.state().told_failed = share;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        // who was killed meanwhile asked for nothing
        if stream.read_line(&mut line).await.is_err() || !line.ends_with('\n') {
            return;
        }
        let ask: Value = serde_json::from_str(&line).unwrap();
        let answer = match self.carried_out(&ask) {
            Ok(ok) => json!({"protocol": 1, "ok": ok}),
            Err(error) => json!({"protocol": 1, "error": error}),
        };
        let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
    }

    fn carried_out(&self, ask: &Value) -> Answer {
        if ask["op"] == "plan" {
            return Ok(planned(ask));
        }
        let mut state = self.state();
        let State {
            instances,
            told_failed,
            random,
        } = &mut *state;
        let on_desk = instances
            .get_mut(ask["instance"]["instance_id"].as_str().unwrap())
            .expect("an instance of the desk");
        if ask["op"] == "read" {
            let targets = on_desk.targets.iter().enumerate();
            let targets: Vec<Value> = targets.map(|(place, one)| one.shown(place)).collect();
            return Ok(json!({ "targets": targets }));
        }
        let written = on_desk.write(ask)?;
        if (random.below(1 << 32) as f64) < *told_failed * f64::from(u32::MAX) {
            on_desk.told_failed += 1;
            return Err(json!({"code": "FAILED", "message": "a failure that is none"}));
        }
        Ok(json!({ "target": written }))
    }
}

impl OnDesk {
    /// The content of each target.
    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let targets = self.targets.iter();
        targets.map(|target| target.content.clone()).collect()
    }

    fn write(&mut self, ask: &Value) -> Answer {
        let place: usize = ask["target"].as_str().unwrap()[1..].parse().unwrap();
        let target = &mut self.targets[place];
        let epoch = ask["epoch"].as_i64().unwrap();
        if let Some(current) = target.epoch.filter(|current| *current > epoch) {
            return Err(json!({
                "code": "STALE_EPOCH", "message": "a later one wrote", "current_epoch": current,
            }));
        }
        let operation_id = ask["operation_id"].as_str().unwrap().to_owned();
        let content = content(ask);
        if target.content != content || target.operation_id.as_ref() != Some(&operation_id) {
            let current = target.revision.to_string();
            if ask["expect_revision"] != current {
                return Err(json!({
                    "code": "STALE_REVISION", "message": "it is another", "current_revision": current,
                }));
            }
            target.content = content;
            target.operation_id = Some(operation_id.clone());
            target.revision += 1;
            target.ready_at = Some(Instant::now() + LOADS);
            *self.applies.entry(operation_id.clone()).or_default() += 1;
        }
        target.epoch = Some(epoch);
        let shown = target.shown(place);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.writes.push(Accepted {
            operation_id,
            epoch,
            at: now.as_secs_f64(),
        });
        Ok(shown)
    }
}

impl Target {
    fn shown(&self, place: usize) -> Value {
        let (args, _) = split(&self.content);
        let args: Value = serde_json::from_slice(args).unwrap();
        json!({
            "name": format!("t{place}"),
            "revision": self.revision.to_string(),
            "content_base64": STANDARD.encode(&self.content),
            "operation_id": self.operation_id,
            "epoch": self.epoch,
            "metrics_url": self.metrics_url,
            "launch_args": args,
            "ready": self.ready_at.is_none_or(|at| Instant::now() >= at),
        })
    }
}

fn planned(ask: &Value) -> Value {
    let content = content(ask);
    let (_, rest) = split(&content);
    let planned = [ask["launch_args"].to_string().as_bytes(), rest].concat();
    json!({"content_base64": STANDARD.encode(planned), "needs_restart": true})
}

fn content(ask: &Value) -> Vec<u8> {
    let text = ask["content_base64"].as_str().unwrap();
    STANDARD.decode(text).unwrap()
}

/// The launch arguments, and the rest with the end of their line.
pub(super) fn split(content: &[u8]) -> (&[u8], &[u8]) {
    let end = content.iter().position(|byte| *byte == b'\n').unwrap();
    content.split_at(end)
}
