//! Registering, changing and finding instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use super::fleet::InstanceState;
use super::{Agent, Caller, Error, FieldViolation, LIMITS};
use crate::actuator::Actuators;
use crate::analysis::Slo;
use crate::instance::{
    Instance, InstanceSpec, LaunchArgs, Source, default_window, label_violations, shortened,
};
use crate::scrape::{ScrapeFailure, shown_url};
use crate::store::{Once, Store, StoreError, Written};

/// What is to become of an instance; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SpecChange {
    /// Engine; none within means that it is recognised.
    pub instance_type: Option<Option<String>>,
    /// One URL a replica.
    pub metrics_urls: Option<Vec<String>>,
    /// Time between scrapes.
    pub scrape_interval: Option<Duration>,
    /// How far back a measurement reaches; none within means what the interval asks for.
    pub window: Option<Option<Duration>>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// All SLOs; none within means those of the agent's operator, or the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slos: Option<Vec<Slo>>,
    /// Launch arguments that the engine runs with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_args: Option<Vec<String>>,
    /// Name of its actuator; none within for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actuator: Option<Option<String>>,
}

/// Which version of an instance a change is meant for, and what makes a repeat of it the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// Etag that the caller read; empty for whatever it is now.
    pub etag: String,
    /// UUID that the caller gives the request; empty for none.
    pub request_id: String,
}

/// A part of the list of instances.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Instances, by id.
    pub instances: Vec<Arc<InstanceState>>,
    /// There are more.
    pub more: bool,
}

impl Agent {
    /// Registers an instance and begins to watch it. A repeat of the same request answers as before.
    ///
    /// # Errors
    /// A spec that is wrong, a URL that may not be fetched, an id that is taken, too many instances, the store.
    pub async fn register_instance(
        self: &Arc<Self>,
        caller: &Caller,
        mut spec: InstanceSpec,
        request_id: &str,
    ) -> Result<Arc<InstanceState>, Error> {
        let mut violations = spec.violations(self.engines());
        violations.extend(self.actuator_violation(&spec));
        violations.extend(request_id_violation(request_id));
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        spec.hide_launch_args(self.engines());
        self.check_urls(&spec.metrics_urls)?;
        let once = once(caller, "RegisterInstance", request_id, &spec);
        self.write(once, move |agent, store, once| async move {
            let id = &spec.instance_id;
            let known = agent.fleet.get(id);
            if known.is_some_and(|known| known.instance.source == Source::ConfigFile) {
                return Err(StoreError::Exists(id.clone()).into());
            }
            agent.check_room(id, spec.metrics_urls.len())?;
            let now = SystemTime::now();
            let written = store.create_instance(&spec, once.as_ref(), now).await?;
            Ok(Done::There(written))
        })
        .await
    }

    /// Flags of declared launch arguments whose values are not kept, since they set nothing that the agent knows of this
    /// engine.
    pub fn hidden_launch_args(&self, engine: Option<&str>, args: &[String]) -> Vec<String> {
        LaunchArgs::of(args, engine, self.engines()).hidden
    }

    /// An instance.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]
    pub fn instance(&self, id: &str) -> Result<Arc<InstanceState>, Error> {
        let found = self.fleet.get(id);
        found.ok_or_else(|| StoreError::NotFound(shortened(id)).into())
    }

    /// Instances with these labels, by id, after this one.
    ///
    /// # Errors
    /// Labels that no instance can have.
    pub fn instances(
        &self,
        labels: &BTreeMap<String, String>,
        after: &str,
        size: usize,
    ) -> Result<Page, Error> {
        let violations = label_violations(labels);
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let later = self.fleet.after(after).into_iter();
        let mut found = later.filter(|state| has_labels(&state.instance, labels));
        let instances = found.by_ref().take(size).collect();
        let more = found.next().is_some();
        Ok(Page { instances, more })
    }

    /// Changes an instance. A repeat of the same request answers as before.
    ///
    /// # Errors
    /// A change that makes it wrong, an etag that is not its own any more, an instance that there is not or that is of
    /// the config file, a URL that may not be fetched, the store.
    pub async fn update_instance(
        self: &Arc<Self>,
        caller: &Caller,
        id: &str,
        change: SpecChange,
        precondition: &Precondition,
    ) -> Result<Arc<InstanceState>, Error> {
        let expected = precondition.expected()?;
        self.check_urls(change.metrics_urls.iter().flatten())?;
        let asked = (id, &change, &precondition.etag);
        let once = once(caller, "UpdateInstance", &precondition.request_id, &asked);
        let id = id.to_owned();
        self.write(once, move |agent, store, once| async move {
            agent.check_registered(&id)?;
            if let Some(urls) = &change.metrics_urls {
                agent.check_room(&id, urls.len())?;
            }
            let changed = |mut spec: InstanceSpec| {
                change.clone().apply(&mut spec);
                let mut violations = spec.violations(agent.engines());
                violations.extend(agent.actuator_violation(&spec));
                if violations.is_empty() {
                    spec.hide_launch_args(agent.engines());
                    Ok(spec)
                } else {
                    Err(violations)
                }
            };
            let now = SystemTime::now();
            let written = store
                .update_instance(&id, expected, &changed, once.as_ref(), now)
                .await?;
            Ok(Done::There(written))
        })
        .await
    }

    /// Forgets an instance. A repeat of the same request answers as before.
    ///
    /// # Errors
    /// An etag that is not its own any more, an instance that there is not or that is of the config file, the store.
    pub async fn delete_instance(
        self: &Arc<Self>,
        caller: &Caller,
        id: &str,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        let expected = precondition.expected()?;
        let asked = (id, &precondition.etag);
        let once = once(caller, "DeleteInstance", &precondition.request_id, &asked);
        let id = id.to_owned();
        let deleted = self.write(once, move |agent, store, once| async move {
            agent.check_registered(&id)?;
            let now = SystemTime::now();
            let turn = agent.ledger.turn().await;
            let deleted = store
                .delete_instance(&id, expected, once.as_ref(), now)
                .await?;
            agent.ledger.forget(&id);
            agent.actuated.forget(&id);
            drop(turn);
            Ok(Done::Gone(deleted))
        });
        deleted.await.map(|_| ())
    }

    /// Carries out a write to its end, whether or not the caller waits for it, and has the fleet follow it. What was
    /// carried out before is answered as it was then, whatever has changed since.
    async fn write<F>(
        self: &Arc<Self>,
        once: Option<Once>,
        work: impl FnOnce(Arc<Self>, Arc<dyn Store>, Option<Once>) -> F + Send + 'static,
    ) -> Result<Arc<InstanceState>, Error>
    where
        F: Future<Output = Result<Done, Error>> + Send,
    {
        self.may_act()?;
        let store = self.store.clone().ok_or(Error::NoStore)?;
        // a disk that hangs is not waited for by ever more
        let waiting = self.writes_waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| Error::TooManyWrites)?;
        let agent = self.clone();
        let written = tokio::spawn(async move {
            let _waiting = waiting;
            // the fleet follows the store in the order of the commits
            let _turn = agent.writes.clone().lock_owned().await;
            if let Some(once) = &once
                && let Some(before) = store.answered(once, SystemTime::now()).await?
            {
                agent.follow(&*store, before.instance.id()).await?;
                return Ok(agent.state_of(before));
            }
            let done = work(agent.clone(), store.clone(), once).await?;
            Ok(match done {
                Done::There(written) => {
                    agent.fleet.put(written.instance.clone(), Duration::ZERO);
                    agent.state_of(written)
                }
                Done::Gone(written) => {
                    agent.fleet.remove(written.instance.id());
                    agent.state_of(written)
                }
            })
        });
        written.await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!("the write was broken off: {error}")).into())
        })
    }

    /// Has the fleet watch what the store holds. They differ where a commit was reported as failed and was not.
    pub(super) async fn follow(
        self: &Arc<Self>,
        store: &dyn Store,
        id: &str,
    ) -> Result<(), StoreError> {
        let stored = store
            .instances()
            .await?
            .into_iter()
            .find(|stored| stored.id() == id);
        let watched = self.fleet.get(id);
        let revision = watched
            .as_ref()
            .and_then(|watched| watched.instance.revision);
        match stored {
            Some(stored) if stored.revision != revision => self.fleet.put(stored, Duration::ZERO),
            None if revision.is_some() => self.fleet.remove(id),
            _ => {}
        }
        Ok(())
    }

    /// Has the fleet watch what the store holds now, whoever changed it. Instances of the config file stay.
    pub(super) async fn follow_all(self: &Arc<Self>, store: &dyn Store) -> Result<(), StoreError> {
        // the fleet follows the store in the order of the commits
        let _turn = self.writes.lock().await;
        let stored = store.instances().await?;
        for watched in self.fleet.after("") {
            let id = watched.instance.id();
            let is_stored = stored.iter().any(|stored| stored.id() == id);
            if watched.instance.source == Source::Registered && !is_stored {
                self.fleet.remove(id);
                self.ledger.forget(id);
                self.actuated.forget(id);
            }
        }
        for instance in stored {
            let watched = self.fleet.get(instance.id());
            let is_known = watched.is_some_and(|watched| {
                watched.instance.source == Source::ConfigFile
                    || watched.instance.revision == instance.revision
            });
            if !is_known {
                self.fleet.put(instance, Duration::ZERO);
            }
        }
        Ok(())
    }

    /// The instance as it was written, and how it is.
    fn state_of(&self, written: Written) -> Arc<InstanceState> {
        let instance = Arc::new(written.instance);
        let state = self.fleet.get(instance.id()).map_or_else(
            || self.fleet.new_state(instance.clone()),
            |state| InstanceState::clone(&state),
        );
        let slos = self.fleet.slos_of(&instance);
        Arc::new(InstanceState {
            instance,
            slos,
            ..state
        })
    }

    pub(super) fn check_urls<'u>(
        &self,
        urls: impl IntoIterator<Item = &'u String>,
    ) -> Result<(), Error> {
        for url in urls {
            let checked = self.fetcher.policy().check(url);
            checked.map_err(|refusal| ScrapeFailure::from(refusal).at(shown_url(url)))?;
        }
        Ok(())
    }

    /// Whether there is room for this many replicas of this instance, in place of those that it has.
    pub(super) fn check_room(&self, id: &str, replicas: usize) -> Result<(), Error> {
        let (instances, watched) = self.fleet.size();
        let known = self.fleet.get(id);
        let before = known
            .as_ref()
            .map_or(0, |known| known.instance.spec.metrics_urls.len());
        let too_many = |what, limit| Err(Error::TooManyInstances { what, limit });
        if known.is_none() && instances >= LIMITS.instances {
            return too_many("instances", LIMITS.instances);
        }
        if replicas > before && watched - before + replicas > LIMITS.watched_replicas {
            return too_many("replicas", LIMITS.watched_replicas);
        }
        Ok(())
    }

    /// What reads and writes the settings of instances.
    pub fn actuators(&self) -> &Actuators {
        &self.actuators
    }

    fn actuator_violation(&self, spec: &InstanceSpec) -> Option<FieldViolation> {
        self.actuators.violation(spec.actuator.as_deref()?)
    }

    fn check_registered(&self, id: &str) -> Result<(), Error> {
        match self.fleet.get(id) {
            Some(known) if known.instance.source == Source::ConfigFile => {
                Err(Error::ReadOnly(id.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// What a write left behind.
enum Done {
    /// The instance is there.
    There(Written),
    /// It was deleted.
    Gone(Written),
}

impl SpecChange {
    fn apply(self, spec: &mut InstanceSpec) {
        let Self {
            instance_type,
            metrics_urls,
            scrape_interval,
            window,
            labels,
            slos,
            launch_args,
            actuator,
        } = self;
        spec.instance_type = instance_type.unwrap_or_else(|| spec.instance_type.take());
        // a window that the interval chose follows it
        let chosen = spec.window == default_window(spec.scrape_interval);
        spec.scrape_interval = scrape_interval.unwrap_or(spec.scrape_interval);
        spec.window = match window {
            Some(Some(window)) => window,
            Some(None) => default_window(spec.scrape_interval),
            None if chosen => default_window(spec.scrape_interval),
            None => spec.window,
        };
        if let Some(urls) = metrics_urls {
            spec.metrics_urls = urls;
        }
        if let Some(labels) = labels {
            spec.labels = labels;
        }
        if let Some(slos) = slos {
            spec.slos = slos;
        }
        if let Some(launch_args) = launch_args {
            spec.launch_args = launch_args;
        }
        if let Some(actuator) = actuator {
            spec.actuator = actuator;
        }
    }
}

impl Precondition {
    fn expected(&self) -> Result<Option<u64>, Error> {
        let mut violations: Vec<FieldViolation> =
            request_id_violation(&self.request_id).into_iter().collect();
        let revision = match self.etag.as_str() {
            "" => None,
            etag => {
                let revision = etag
                    .strip_prefix('r')
                    .and_then(|number| number.parse().ok());
                if revision.is_none() {
                    let description = "must be the etag of an instance as it was read, or empty";
                    violations.push(FieldViolation::new("etag", description));
                }
                revision
            }
        };
        if violations.is_empty() {
            Ok(revision)
        } else {
            Err(Error::Invalid(violations))
        }
    }
}

/// Whether an instance has all these labels.
pub(super) fn has_labels(instance: &Instance, labels: &BTreeMap<String, String>) -> bool {
    let has = |(name, value): (&String, &String)| instance.spec.labels.get(name) == Some(value);
    labels.iter().all(has)
}

pub(super) fn request_id_violation(request_id: &str) -> Option<FieldViolation> {
    let wrong = !request_id.is_empty() && Uuid::try_parse(request_id).is_err();
    wrong.then(|| {
        FieldViolation::new(
            "request_id",
            "must be a UUID, a new one for each request, or empty",
        )
    })
}

/// What makes a request the same as one before; none where the caller gave it no id.
pub(super) fn once(
    caller: &Caller,
    method: &'static str,
    request_id: &str,
    asked: &impl Serialize,
) -> Option<Once> {
    let request_id = Uuid::try_parse(request_id).ok()?;
    // plain data with string keys always becomes JSON
    let content = serde_json::to_vec(asked).unwrap_or_default();
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &content).as_ref());
    Some(Once {
        principal: caller.principal.clone(),
        method,
        request_id: request_id.to_string(),
        digest: hash,
    })
}
