//! What another agent found of an instance that it measures: all that is known here of it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::state::{Forms, Health, InstanceState, next_version};
use super::{Entry, Fleet};
use crate::store::{Found, micros};

/// Found again it is told again after this long: before the store forgets it, and where others lost it.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// What another agent found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Who measures the instance.
    #[serde(skip)]
    pub agent_id: String,
    /// How it is.
    pub health: Health,
    /// Since when, unix time in microseconds.
    pub since_us: i64,
    /// Of the instance as it was registered. One that was deleted and registered again is told of anew.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Name of the engine.
    pub engine: Option<String>,
    /// Version as the engine writes it.
    pub engine_version: Option<String>,
    /// Served model, as the engine labels its series.
    pub model_name: Option<String>,
    /// The endpoint says that it is simulated.
    pub simulated: bool,
}

impl Elsewhere {
    /// As it was found here; none of what was not scraped yet.
    fn found_here(state: &InstanceState) -> Option<Self> {
        if state.elsewhere.is_some() || state.health == Health::Pending {
            return None;
        }
        let latest = state.latest.as_ref();
        let text = |of: Option<&str>| of.map(str::to_owned);
        Some(Self {
            agent_id: String::new(),
            health: state.health,
            since_us: micros(state.since),
            revision: state.instance.revision,
            engine: text(latest.map(|latest| latest.engine())),
            engine_version: text(latest.and_then(|latest| latest.engine_version())),
            model_name: text(latest.and_then(|latest| latest.model_name())),
            simulated: latest.is_some_and(|latest| latest.simulated()),
        })
    }

    /// Of an instance of which nobody has told anything yet.
    fn unknown(agent_id: String, now: SystemTime) -> Self {
        Self {
            agent_id,
            health: Health::Pending,
            since_us: micros(now),
            revision: None,
            engine: None,
            engine_version: None,
            model_name: None,
            simulated: false,
        }
    }

    fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(u64::try_from(self.since_us).unwrap_or(0))
    }
}

/// What was told of each instance, as a digest, and when.
#[derive(Debug, Default)]
pub(in crate::agent) struct ToldOthers(HashMap<Arc<str>, (u64, Instant)>);

impl ToldOthers {
    /// What is to be told has been. What others told of the same instances stands in its place, and is told anew.
    pub(in crate::agent) fn told(&mut self, news: &[(String, String)], by_others: &[Found]) {
        let now = Instant::now();
        for (instance_id, found) in news {
            self.0
                .insert(instance_id.as_str().into(), (digest(found), now));
        }
        for found in by_others {
            self.0.remove(&*found.instance_id);
        }
    }
}

fn digest(found: &str) -> u64 {
    FxBuildHasher.hash_one(found)
}

impl Fleet {
    /// What there is to tell others of the instances that are this agent's business: instance and JSON, in order.
    pub(in crate::agent) fn news_for_others(&self, told: &mut ToldOthers) -> Vec<(String, String)> {
        // what another tells meanwhile is to be told anew when it comes back
        told.0
            .retain(|id, _| self.get(id).is_some() && self.is_ours(id));
        let now = Instant::now();
        let mut news = Vec::new();
        for state in self.after("") {
            let id = state.instance.id();
            if !self.is_ours(id) {
                continue;
            }
            // plain data always becomes JSON
            let found = Elsewhere::found_here(&state);
            let Some(found) = found.and_then(|found| serde_json::to_string(&found).ok()) else {
                continue;
            };
            let is_known = told.0.get(id).is_some_and(|(before, at)| {
                *before == digest(&found) && now.duration_since(*at) < TELL_AGAIN
            });
            if !is_known {
                news.push((id.to_owned(), found));
            }
        }
        news
    }

    /// Takes note of what others found.
    pub(in crate::agent) fn found_elsewhere(&self, found: Vec<Found>) {
        for one in found {
            let Some(entry) = self.read().get(&*one.instance_id).cloned() else {
                continue;
            };
            // what a later version tells may be more than this one understands
            let Ok(told) = serde_json::from_str::<Elsewhere>(&one.found) else {
                continue;
            };
            *entry.found_elsewhere() = Some(Arc::new(Elsewhere {
                agent_id: one.agent_id,
                ..told
            }));
            entry.wanted.changed.notify_one();
        }
    }

    /// Shows an instance as another agent found it, if that is news.
    pub(super) fn show_elsewhere(&self, entry: &Entry) {
        let Some(owner) = self.duty.owner(&entry.id) else {
            return;
        };
        let found = entry.found_elsewhere().clone();
        // one that is gone does not know any more how it is
        let found = found.filter(|found| self.duty.is_there(&found.agent_id));
        let known = entry.state().elsewhere.clone();
        let found = match (found, known) {
            (Some(found), _) => found,
            (None, Some(known)) if known.agent_id == owner => known,
            (None, _) => Arc::new(Elsewhere::unknown(owner, SystemTime::now())),
        };
        if entry.state().elsewhere.as_ref() == Some(&found) {
            return;
        }
        entry.update(|before| InstanceState {
            version: next_version(),
            health: found.health,
            since: found.since(),
            scraped_at: None,
            latest: None,
            bottlenecks: Arc::default(),
            load_range: Arc::default(),
            replicas: Vec::new(),
            forms: Forms::default(),
            elsewhere: Some(found.clone()),
            ..before.clone()
        });
        self.hub.changed(&entry.id);
    }
}
