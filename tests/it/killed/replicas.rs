//! Replicas that serve as the settings on the desk have it.

use std::sync::{Arc, Mutex};

use super::desk::{Desk, split};
use crate::fake::{Answer, FakeEngine};
use crate::slowed::Served;

/// The replica of a target of this instance.
pub(super) async fn engine(desk: Arc<Desk>, instance: String, target: usize) -> FakeEngine {
    let served = Mutex::new(Served::nothing(target as u32));
    FakeEngine::start(move |path, _| {
        if path != "/metrics" {
            return Answer::Plain(404, Vec::new());
        }
        let mut served = served.lock().unwrap();
        served.serve(cap(&desk, &instance, target));
        Answer::ok(served.page())
    })
    .await
}

/// The cap that the target has now.
fn cap(desk: &Desk, instance: &str, target: usize) -> Option<u32> {
    let contents = desk.of(instance).contents();
    let (args, _) = split(contents.get(target)?);
    let words: Vec<String> = serde_json::from_slice(args).ok()?;
    words.get(1)?.parse().ok()
}
