//! Those who wait for events.

use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::{EventLog, READER_PAGE};
use crate::agent::workflows::site::ACTOR;
use crate::store::{EventFilter, StoreError};
use crate::workflow::{Event, RecordedEvent};

/// Waits for events.
pub(in crate::agent::workflows) struct Waiter {
    log: Arc<EventLog>,
    about: About,
    /// None only while it is dropped.
    news: Option<watch::Receiver<u64>>,
}

/// Tells of what happens to workflows wherever they are carried on.
pub(in crate::agent) struct Hearing {
    log: Arc<EventLog>,
    waiter: Waiter,
    after: u64,
}

/// What somebody waits to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum About {
    All,
    Workflow(String),
    Instance(String),
}

impl EventLog {
    /// Waits for events that match.
    pub(in crate::agent::workflows) fn waiter(self: &Arc<Self>, filter: &EventFilter) -> Waiter {
        let about = match (&filter.workflow_id, &filter.instance_id) {
            (Some(id), _) => About::Workflow(id.clone()),
            (None, Some(id)) => About::Instance(id.clone()),
            (None, None) => About::All,
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let news = waiting.entry(about.clone()).or_default().subscribe();
        Waiter {
            log: self.clone(),
            about,
            news: Some(news),
        }
    }

    /// What happens to workflows from now on, at whatever agent.
    pub(in crate::agent) fn heard_elsewhere(self: &Arc<Self>) -> Hearing {
        Hearing {
            after: self.end(),
            waiter: self.waiter(&EventFilter::default()),
            log: self.clone(),
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(in crate::agent) struct Heard {
    /// Workflows of which callers asked something. What tasks write down themselves is not among it.
    pub(in crate::agent) asked: Vec<String>,
    pub(in crate::agent) changed: Vec<ChangedSettings>,
}

/// A workflow changed settings of a target.
#[derive(Debug)]
pub(in crate::agent) struct ChangedSettings {
    pub(in crate::agent) workflow_id: String,
    pub(in crate::agent) instance_id: String,
    /// They are as planned; else as before.
    pub(in crate::agent) are_planned: bool,
}

impl Hearing {
    /// What happened since.
    pub(in crate::agent) async fn next(&mut self) -> Heard {
        loop {
            self.waiter.look();
            let all = EventFilter::default();
            let part = match self.log.read(self.after, &all, READER_PAGE).await {
                Ok(part) => part,
                Err(StoreError::Compacted { oldest_revision }) => {
                    self.after = oldest_revision;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the log of workflows cannot be read");
                    tokio::time::sleep(self.log.measure.look).await;
                    continue;
                }
            };
            self.after = part.read_to;
            let mut heard = Heard::default();
            for logged in &part.events {
                heard.take(&logged.event);
            }
            if !heard.asked.is_empty() || !heard.changed.is_empty() {
                return heard;
            }
            if !part.more {
                self.waiter.news().await;
            }
        }
    }
}

impl Heard {
    fn take(&mut self, recorded: &RecordedEvent) {
        if recorded.actor != ACTOR {
            self.asked.push(recorded.workflow_id.clone());
        }
        let are_planned = match recorded.event {
            Event::Written { .. } => true,
            Event::Restored { .. } => false,
            _ => return,
        };
        self.changed.push(ChangedSettings {
            workflow_id: recorded.workflow_id.clone(),
            instance_id: recorded.instance_id.clone(),
            are_planned,
        });
    }
}

impl Waiter {
    /// What there is from here on is news.
    pub(in crate::agent::workflows) fn look(&mut self) {
        if let Some(news) = &mut self.news {
            news.borrow_and_update();
        }
    }

    /// Waits until there is something since it was last looked.
    pub(in crate::agent::workflows) async fn news(&mut self) {
        let heard = match &mut self.news {
            Some(news) => news.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            // without a sender, which is there as long as somebody waits
            std::future::pending().await
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.news = None;
        let waiting = &self.log.waiting;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = |sender: &watch::Sender<u64>| sender.receiver_count() == 0;
        if waiting.get(&self.about).is_some_and(alone) {
            waiting.remove(&self.about);
        }
    }
}

/// Waits until there is word of something.
pub(in crate::agent) async fn hinted(hints: &mut Option<watch::Receiver<u64>>) {
    let heard = match hints {
        Some(hints) => hints.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        *hints = None;
        std::future::pending().await
    }
}
