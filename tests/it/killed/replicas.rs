//! Replicas that serve as the settings on the desk have it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::fake::{Answer, FakeEngine};
use crate::slowed::Served;

/// The replica of a target of the instance with this file on the desk.
pub(super) async fn engine(desk: PathBuf, target: usize) -> FakeEngine {
    let served = Mutex::new(Served::nothing(target as u32));
    FakeEngine::start(move |path, _| {
        if path != "/metrics" {
            return Answer::Plain(404, Vec::new());
        }
        let mut served = served.lock().unwrap();
        served.serve(cap(&desk, target));
        Answer::ok(served.page())
    })
    .await
}

/// The cap that the target has now.
fn cap(desk: &Path, target: usize) -> Option<u32> {
    let state: Value = serde_json::from_str(&std::fs::read_to_string(desk).ok()?).ok()?;
    let content = state["targets"][target]["content_base64"].as_str()?;
    let content = STANDARD.decode(content).ok()?;
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let words: Vec<String> = serde_json::from_slice(&content[..end]).ok()?;
    words.get(1)?.parse().ok()
}
