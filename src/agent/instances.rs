//! Registering, changing and finding instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use super::fleet::InstanceState;
use super::{Agent, Caller, Error, FieldViolation, LIMITS};
use crate::instance::{Instance, InstanceSpec, Source, label_violations, shortened};
use crate::scrape::{ScrapeFailure, shown_url};
use crate::store::{Once, Store, StoreError, Written};

/// What is to become of an instance; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SpecChange {
    /// Engine; none within means that it is recognised.
    pub instance_type: Option<Option<String>>,
    /// One URL a replica.
    pub metrics_urls: Option<Vec<String>>,
    /// Time between scrapes.
    pub scrape_interval: Option<Duration>,
    /// How far back a measurement reaches.
    pub window: Option<Duration>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
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
        spec: InstanceSpec,
        request_id: &str,
    ) -> Result<Arc<InstanceState>, Error> {
        let mut violations = spec.violations(self.engines());
        violations.extend(request_id_violation(request_id));
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        self.check_urls(&spec.metrics_urls)?;
        let once = once(caller, "RegisterInstance", request_id, &spec);
        self.write(move |agent, store| async move {
            let id = &spec.instance_id;
            let known = agent.fleet.get(id);
            if known.is_some_and(|known| known.instance.source == Source::ConfigFile) {
                return Err(StoreError::Exists(id.clone()).into());
            }
            agent.check_room(&spec)?;
            let now = SystemTime::now();
            let written = store.create_instance(&spec, once.as_ref(), now).await?;
            Ok(agent.watch_written(written))
        })
        .await
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
        self.write(move |agent, store| async move {
            agent.check_registered(&id)?;
            let changed = |mut spec: InstanceSpec| {
                change.clone().apply(&mut spec);
                let violations = spec.violations(agent.engines());
                if violations.is_empty() {
                    Ok(spec)
                } else {
                    Err(violations)
                }
            };
            let now = SystemTime::now();
            let written = store
                .update_instance(&id, expected, &changed, once.as_ref(), now)
                .await?;
            Ok(agent.watch_written(written))
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
        self.write(move |agent, store| async move {
            agent.check_registered(&id)?;
            let now = SystemTime::now();
            let written = store
                .delete_instance(&id, expected, once.as_ref(), now)
                .await?;
            if !written.repeated {
                agent.fleet.remove(&id);
            }
            Ok(())
        })
        .await
    }

    /// Carries out a write to its end, whether or not the caller waits for it: what was committed is watched.
    async fn write<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>, Arc<dyn Store>) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let store = self.store.clone().ok_or(Error::NoStore)?;
        let agent = self.clone();
        let written = tokio::spawn(async move {
            // the fleet follows the store in the order of the commits
            let _turn = agent.writes.clone().lock_owned().await;
            work(agent, store).await
        });
        written.await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!("the write was broken off: {error}")).into())
        })
    }

    /// The instance as it was written, and as it is watched.
    fn watch_written(self: &Arc<Self>, written: Written) -> Arc<InstanceState> {
        let Written { instance, repeated } = written;
        let id = instance.id().to_owned();
        if !repeated {
            self.fleet.put(instance.clone(), Duration::ZERO);
        }
        let state = self.fleet.get(&id).map_or_else(
            || InstanceState::new(Arc::new(instance.clone()), SystemTime::now()),
            |state| InstanceState::clone(&state),
        );
        // a repeat gets the answer of then
        let instance = Arc::new(instance);
        Arc::new(InstanceState { instance, ..state })
    }

    fn check_urls<'u>(&self, urls: impl IntoIterator<Item = &'u String>) -> Result<(), Error> {
        for url in urls {
            let checked = self.fetcher.policy().check(url);
            checked.map_err(|refusal| ScrapeFailure::from(refusal).at(shown_url(url)))?;
        }
        Ok(())
    }

    fn check_room(&self, spec: &InstanceSpec) -> Result<(), Error> {
        let (instances, replicas) = self.fleet.size();
        let is_new = self.fleet.get(&spec.instance_id).is_none();
        if is_new && instances >= LIMITS.instances {
            return Err(Error::TooManyInstances {
                what: "instances",
                limit: LIMITS.instances,
            });
        }
        if is_new && replicas + spec.metrics_urls.len() > LIMITS.watched_replicas {
            return Err(Error::TooManyInstances {
                what: "replicas",
                limit: LIMITS.watched_replicas,
            });
        }
        Ok(())
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

impl SpecChange {
    fn apply(self, spec: &mut InstanceSpec) {
        let Self {
            instance_type,
            metrics_urls,
            scrape_interval,
            window,
            labels,
        } = self;
        spec.instance_type = instance_type.unwrap_or_else(|| spec.instance_type.take());
        spec.scrape_interval = scrape_interval.unwrap_or(spec.scrape_interval);
        spec.window = window.unwrap_or(spec.window);
        if let Some(urls) = metrics_urls {
            spec.metrics_urls = urls;
        }
        if let Some(labels) = labels {
            spec.labels = labels;
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

fn request_id_violation(request_id: &str) -> Option<FieldViolation> {
    let wrong = !request_id.is_empty() && Uuid::try_parse(request_id).is_err();
    wrong.then(|| {
        FieldViolation::new(
            "request_id",
            "must be a UUID, a new one for each request, or empty",
        )
    })
}

/// What makes a request the same as one before; none where the caller gave it no id.
fn once(
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
