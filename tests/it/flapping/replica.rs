//! A replica of an engine that flaps: it answers with errors, not at all, with numbers that are none, and dies and starts
//! anew, again and again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use perfagent::model::Policy;
use perfagent::simulator::{
    Deployment, FlagValues, NewSettings, ReplicaSettings, Scenario, SettingsRefusal,
};
use serde_json::{Value, json};

use crate::fake::{Answer, Asked, FakeEngine};
use crate::slowed::Served;

/// After a restart.
const LOADS: Duration = Duration::from_millis(300);
/// What it does is of one kind for so long.
const SPELL: Duration = Duration::from_millis(700);

/// Settings before anything, written as nobody else would.
pub(super) const BEFORE: &str = "[ \"--max-num-seqs\",\t\"4\" ]\n\n";

/// A replica that is served.
pub(super) struct Replica {
    pub(super) engine: FakeEngine,
    state: Arc<Mutex<State>>,
}

/// What goes wrong, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    pub(super) errors: u32,
    pub(super) hangs: u32,
    pub(super) nonsense: u32,
    pub(super) resets: u32,
    pub(super) deaths: u32,
    pub(super) control: u32,
}

struct State {
    number: u64,
    begin: Instant,
    deployment: Deployment,
    settings: ReplicaSettings,
    /// Spell that it died in last.
    died_in: Option<u64>,
    ready_at: Instant,
    served: Served,
    control_asked: u64,
    troubles: Troubles,
}

impl Replica {
    pub(super) async fn start(number: u64) -> Self {
        let deployment = Scenario::default().deployment().unwrap();
        let flags = FlagValues::default();
        let mut settings = ReplicaSettings::of(&flags, Policy::Vllm);
        let new = NewSettings {
            operation_id: "setup".to_owned(),
            epoch: 0,
            expect_revision: settings.revision(),
            content: BEFORE.as_bytes().to_vec(),
        };
        settings.write(new, &deployment, &flags).unwrap();
        let now = Instant::now();
        let state = Arc::new(Mutex::new(State {
            number,
            begin: now,
            deployment,
            settings,
            died_in: None,
            ready_at: now,
            served: Served::nothing(number as u32),
            control_asked: 0,
            troubles: Troubles::default(),
        }));
        let answering = state.clone();
        let engine = FakeEngine::answering(move |asked, _| {
            let mut state = answering.lock().unwrap();
            match (asked.method.as_str(), asked.path.as_str()) {
                ("GET", "/metrics") => state.metrics(),
                ("GET" | "PUT", "/control/settings") => state.control(asked),
                _ => Answer::Plain(404, Vec::new()),
            }
        })
        .await;
        Self { engine, state }
    }

    pub(super) fn troubles(&self) -> Troubles {
        self.state.lock().unwrap().troubles
    }

    pub(super) fn content(&self) -> String {
        let state = self.state.lock().unwrap();
        String::from_utf8(state.settings.content().to_vec()).unwrap()
    }

    /// How often operations of a workflow changed something.
    pub(super) fn applies(&self, workflow_id: &str) -> u32 {
        let state = self.state.lock().unwrap();
        let prefix = format!("{workflow_id}.");
        let applies = state.settings.applies().iter();
        applies
            .filter(|(operation, _)| operation.starts_with(&prefix))
            .map(|(_, times)| times)
            .sum()
    }
}

impl State {
    fn cap(&self) -> Option<u32> {
        self.settings.launch_args().get(1)?.parse().ok()
    }

    /// A number that is the same for a spell and looks like any other.
    fn chance(&self) -> u64 {
        let mut bits = self.spell().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.number << 17);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (bits >> 33) % 100
    }

    fn spell(&self) -> u64 {
        (self.begin.elapsed().as_millis() / SPELL.as_millis()) as u64
    }

    fn start_anew(&mut self) {
        self.ready_at = Instant::now() + LOADS;
        self.served.start_anew(self.ready_at);
    }

    fn metrics(&mut self) -> Answer {
        let chance = self.chance();
        let spell = self.spell();
        match chance {
            0..2 => {
                self.troubles.errors += 1;
                return Answer::Plain(503, Vec::new());
            }
            2..3 => {
                self.troubles.hangs += 1;
                return Answer::Hang;
            }
            3..5 => {
                self.troubles.resets += 1;
                return Answer::Reset;
            }
            // out of memory
            5..7 if self.died_in != Some(spell) => {
                self.troubles.deaths += 1;
                self.died_in = Some(spell);
                self.start_anew();
            }
            _ => {}
        }
        if Instant::now() < self.ready_at {
            return Answer::Reset;
        }
        self.served.serve(self.cap());
        let page = self.served.page();
        match chance {
            7..9 => {
                self.troubles.nonsense += 1;
                Answer::ok(
                    page.replace("_sum{", "_sum{bad=\"1\",")
                        .replace("} 2\n", "} NaN\n"),
                )
            }
            _ => Answer::ok(page),
        }
    }

    fn control(&mut self, asked: &Asked) -> Answer {
        self.control_asked += 1;
        let writes = asked.method == "PUT";
        let number = self.control_asked + self.number * 17;
        if number % 61 == 5 {
            self.troubles.control += 1;
            return Answer::Plain(503, b"{}".to_vec());
        }
        let (status, answer) = match asked.method.as_str() {
            "GET" => (200, self.shown()),
            _ => self.write(&asked.body),
        };
        // it was done, and nobody is told
        if writes && number % 5 == 2 {
            self.troubles.control += 1;
            return Answer::Reset;
        }
        Answer::Plain(status, answer.to_string().into_bytes())
    }

    fn write(&mut self, body: &[u8]) -> (u16, Value) {
        let put: Value = serde_json::from_slice(body).unwrap();
        let text = |name: &str| put[name].as_str().unwrap().to_owned();
        let new = NewSettings {
            operation_id: text("operation_id"),
            epoch: put["epoch"].as_u64().unwrap(),
            expect_revision: text("expect_revision"),
            content: STANDARD.decode(text("content_base64")).unwrap(),
        };
        let written = self
            .settings
            .write(new, &self.deployment, &FlagValues::default());
        match written {
            Ok(restart) => {
                if restart.is_some() {
                    self.start_anew();
                }
                (200, self.shown())
            }
            Err(SettingsRefusal::StaleRevision { current }) => (
                409,
                json!({ "code": "STALE_REVISION", "current_revision": current }),
            ),
            Err(SettingsRefusal::StaleEpoch { current }) => (
                409,
                json!({ "code": "STALE_EPOCH", "current_epoch": current }),
            ),
            Err(error) => (400, json!({ "error": error.to_string() })),
        }
    }

    fn shown(&self) -> Value {
        json!({
            "revision": self.settings.revision(),
            "content_base64": STANDARD.encode(self.settings.content()),
            "launch_args": self.settings.launch_args(),
            "ready": Instant::now() >= self.ready_at,
            "operation_id": self.settings.operation_id(),
            "epoch": self.settings.epoch(),
        })
    }
}
