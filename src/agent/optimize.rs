//! What is set, what to change, and what a change would do: of an instance, a target, or what is given.

mod answer;
mod calls;
mod looked;

use std::collections::BTreeMap;

use uuid::Uuid;

use super::ledger::unix_seconds;
use super::{Agent, Caller, Error, FieldViolation, Target, WindowRequest};
use crate::instance::slo_violations;
use crate::optimization::{
    CustomOptimizer, Effect, InForce, KnobChange, LedgerEntry, Limits, Made, Origin, Prediction,
    TrackRecord, predict, recommend,
};

use calls::{changes_of, promises};
use looked::Looked;

pub(super) use calls::settings_in_force;

pub use answer::{Advised, ConfigAnswer, Predicted, Subject};

/// The lever of changes that somebody asked about.
pub const ASKED_LEVER: &str = "custom";

/// Most settings that are given or asked about: more than any engine has.
const MAX_SETTINGS: usize = 256;

/// Settings by name or launch flag; none for one that is not set.
type Settings = BTreeMap<String, Option<String>>;

impl Agent {
    /// Optimizers that the operator defined.
    pub fn optimizers(&self) -> &[CustomOptimizer] {
        &self.optimizers
    }

    /// Says which settings a target runs with: an inline one is measured now; of an instance it is about the last window,
    /// or about one measured now where a window is asked for.
    ///
    /// # Errors
    /// What [`Agent::measure`] gives.
    pub async fn instance_config(
        &self,
        caller: &Caller,
        target: &Target,
        window: WindowRequest,
    ) -> Result<ConfigAnswer, Error> {
        let subject = Subject::Target(target.clone(), window);
        let looked = self.look_at(caller, subject).await?;
        let (in_force, _) = looked.in_force(&Settings::new());
        Ok(ConfigAnswer::new(looked.about, in_force))
    }

    /// Says what to change. `given` are settings that the caller knows of. What is predicted of a registered instance is
    /// kept.
    ///
    /// # Errors
    /// What [`Agent::measure`] gives, limits or settings that cannot be, more advice at once than the agent works on.
    pub async fn recommend(
        &self,
        caller: &Caller,
        subject: Subject,
        given: &BTreeMap<String, Option<String>>,
        limits: Limits,
    ) -> Result<Advised, Error> {
        self.advise(caller, subject, given, limits, true).await
    }

    /// The same; `keeps`: what is predicted of a registered instance is kept.
    pub(super) async fn advise(
        &self,
        caller: &Caller,
        subject: Subject,
        given: &BTreeMap<String, Option<String>>,
        limits: Limits,
        keeps: bool,
    ) -> Result<Advised, Error> {
        // before the window passes
        check(&[("current_config", given)], &limits)?;
        let looked = self.look_at(caller, subject).await?;
        let (in_force, remarks) = looked.in_force(given);
        let record = self.ledger.record(looked.about.simulated);
        let by = record.clone();
        let custom = self.optimizers.clone();
        let work = self.heavy.run(move || {
            let recommendation = looked.with(&in_force, &limits, |situation, windows| {
                recommend(situation, windows, &custom, &by)
            });
            (looked, in_force, recommendation)
        });
        let (looked, in_force, mut recommendation) = work.await?;
        recommendation.notes.extend(remarks);
        let mut made = Vec::new();
        for one in &recommendation.optimizations {
            if let Effect::Predicted(prediction) = &one.effect {
                made.push(ToKeep {
                    key: one.id.clone(),
                    lever: &one.lever,
                    changes: &one.changes,
                    replicas: one.replicas,
                    prediction,
                    origin: Origin::Recommended,
                });
            }
        }
        made.retain(|_| keeps);
        let predictions = self.keep(&looked, &in_force, &record, &made).await;
        Ok(Advised::new(
            looked.about,
            in_force,
            recommendation,
            predictions,
        ))
    }

    /// Says what changes would do: what each setting becomes, none where its flag is taken away. `given` are settings that
    /// the caller knows of. What is predicted of a registered instance is kept.
    ///
    /// # Errors
    /// What [`Agent::recommend`] gives, and changes that cannot be.
    pub async fn predict(
        &self,
        caller: &Caller,
        subject: Subject,
        given: &BTreeMap<String, Option<String>>,
        changes: &BTreeMap<String, Option<String>>,
        limits: Limits,
    ) -> Result<Predicted, Error> {
        self.foresee(caller, subject, given, changes, limits, true)
            .await
    }

    /// The same; `keeps`: what is predicted of a registered instance is kept.
    pub(super) async fn foresee(
        &self,
        caller: &Caller,
        subject: Subject,
        given: &BTreeMap<String, Option<String>>,
        changes: &BTreeMap<String, Option<String>>,
        limits: Limits,
        keeps: bool,
    ) -> Result<Predicted, Error> {
        check(&[("current_config", given), ("changes", changes)], &limits)?;
        let looked = self.look_at(caller, subject).await?;
        let (in_force, mut remarks) = looked.in_force(given);
        let asked = changes_of(&looked.profile, &in_force, changes, &limits);
        let asked = asked.map_err(Error::Invalid)?;
        remarks.extend(asked.remarks);
        let changes = asked.changes;
        let must_hold = limits.must_hold.clone();
        let record = self.ledger.record(looked.about.simulated);
        let by = record.factor(ASKED_LEVER);
        let work = self.heavy.run(move || {
            let effect = match changes.is_empty() {
                true => Effect::NotPredictable(
                    "these settings are in force: nothing changes".to_owned(),
                ),
                false => looked.with(&in_force, &limits, |situation, windows| {
                    predict(situation, windows, &changes, by)
                }),
            };
            (looked, in_force, changes, effect)
        });
        let (looked, in_force, changes, effect) = work.await?;
        remarks.extend(promises(&effect, &must_hold));
        let mut made = Vec::new();
        if let (Effect::Predicted(prediction), true) = (&effect, keeps) {
            made.push(ToKeep {
                key: String::new(),
                lever: ASKED_LEVER,
                changes: &changes,
                replicas: None,
                prediction,
                origin: Origin::Asked,
            });
        }
        let kept = self.keep(&looked, &in_force, &record, &made).await;
        let prediction_id = kept.into_values().next();
        Ok(Predicted::new(
            looked.about,
            in_force,
            changes,
            effect,
            remarks,
            prediction_id,
        ))
    }

    /// Whether a registered instance could be given these settings, as far as can be told before it is measured.
    ///
    /// # Errors
    /// What is no setting, or no value of it, or what the engine would refuse.
    pub(super) async fn check_changes(
        &self,
        instance_id: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<(), Error> {
        let target = Target {
            metrics_urls: Vec::new(),
            ..self.instance(instance_id)?.instance.spec.target()
        };
        let subject = Subject::Target(target, WindowRequest::default());
        let Ok(looked) = self.look_at(&Caller::anonymous(), subject).await else {
            return Ok(());
        };
        let (in_force, _) = looked.in_force(&Settings::new());
        let asked = changes_of(&looked.profile, &in_force, changes, &Limits::default());
        asked.map(|_| ()).map_err(Error::Invalid)
    }

    /// Keeps what was predicted of a registered instance, and says under which ids. What cannot be kept is answered all
    /// the same.
    async fn keep(
        &self,
        looked: &Looked,
        in_force: &InForce,
        record: &TrackRecord,
        made: &[ToKeep<'_>],
    ) -> BTreeMap<String, String> {
        let (Some(store), Some(measurement), true) =
            (&self.store, &looked.measurement, looked.is_ours)
        else {
            return BTreeMap::new();
        };
        let (mut keys, mut entries) = (Vec::new(), Vec::new());
        for one in made {
            let entry = LedgerEntry::of(Made {
                prediction_id: &Uuid::now_v7().to_string(),
                lever: one.lever,
                changes: one.changes,
                replicas: one.replicas,
                prediction: one.prediction,
                widened_by: record.factor(one.lever).0,
                origin: one.origin,
                in_force,
                measurement,
                now_unix_seconds: unix_seconds(),
            });
            if let Some(entry) = entry {
                keys.push(one.key.clone());
                entries.push(entry);
            }
        }
        match self.ledger.keep(&**store, entries).await {
            Ok(ids) => keys.into_iter().zip(ids).collect(),
            Err(error) => {
                let instance_id = &looked.about.instance_id;
                tracing::warn!(instance_id, "a prediction could not be kept: {error}");
                BTreeMap::new()
            }
        }
    }
}

/// A prediction that is to be kept.
struct ToKeep<'p> {
    /// What the caller knows it by.
    key: String,
    lever: &'p str,
    changes: &'p [KnobChange],
    replicas: Option<(u32, u32)>,
    prediction: &'p Prediction,
    origin: Origin,
}

/// What is wrong with what was asked, whatever it is about.
fn check(given: &[(&str, &Settings)], limits: &Limits) -> Result<(), Error> {
    let mut wrong = slo_violations("constraints.must_hold", &limits.must_hold);
    for (field, settings) in given {
        if settings.len() > MAX_SETTINGS {
            let description = format!("{} settings; at most {MAX_SETTINGS}", settings.len());
            wrong.push(FieldViolation::new(*field, description));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Invalid(wrong)),
    }
}
