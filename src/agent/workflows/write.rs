//! How settings are written and restored: what is there is read before and after, and nothing of others is overwritten.

use std::time::Duration;

use super::came::Came;
use super::lease::Held;
use super::place::{Place, place, too_few_ready};
use super::route::is_to_drain;
use super::site::{Site, failure};
use crate::actuator::{ActuatorError, Purpose, SettingsWrite, TargetSettings, content_digest};
use crate::agent::{Agent, Error};
use crate::store::SnapshotTarget;
use crate::workflow::{Command, Failure, TargetPhase, Workflow};

/// Between two reads of a target that is not ready yet.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// Tries at restoring a target; the time between two doubles from a second on.
const TRIES: u32 = 5;

/// Reason of a failure: what became of it is not known.
const TIMED_OUT: &str = "ACTUATOR_TIMED_OUT";

impl Agent {
    /// Sees that the targets that were not touched are as the plan found them, before the next of them is written.
    pub(super) async fn begin_write(&self, site: &Site, state: &Workflow, held: &Held) -> Came {
        let Some(next) = state.next_target() else {
            return Came::command(Command::Fail(failure(
                "INTERNAL",
                &"no target is left to write",
            )));
        };
        // known before anything is touched
        if let Some(error) = site.actuator.refuses().await {
            return Came::command(Command::Fail(actuator_failure(&error)));
        }
        let settings = match site.actuator.read(&site.instance).await {
            Ok(settings) => settings,
            Err(error) => return Came::command(Command::Fail(actuator_failure(&error))),
        };
        let first = !state.has_touched();
        for number in next..u32::try_from(state.targets.len()).unwrap_or(u32::MAX) {
            // of those behind the first only whether the plan still holds
            if number > next && !first {
                break;
            }
            let place = match place(state, number, &settings) {
                Ok(place) => place,
                Err(message) if first => return Came::command(Command::PlanOutdated { message }),
                Err(message) => {
                    return Came::command(Command::Fail(failure("ACTUATOR_FAILED", &message)));
                }
            };
            let accepted = place.state.accepted_digest.as_deref() == Some(&place.digest);
            if place.digest != place.plan.digest_before && !accepted {
                return match first {
                    true => Came::command(Command::PlanOutdated {
                        message: format!(
                            "The settings of {} have changed since the plan was made.",
                            place.plan.name
                        ),
                    }),
                    false => place.drifted(),
                };
            }
        }
        if let Some(problem) = too_few_ready(state, next, &settings) {
            return Came::later(POLL, &problem);
        }
        let takes_requests = settings
            .iter()
            .find(|one| {
                state
                    .target(next)
                    .is_some_and(|target| target.name == one.name)
            })
            .and_then(|target| target.takes_requests);
        if is_to_drain(state, next, takes_requests.is_some()) {
            return Came::command(Command::Drain {
                leaves_traffic: takes_requests == Some(true),
            });
        }
        let baseline = match state.has_written() {
            false => self.baseline(site).await.map(Box::new),
            true => None,
        };
        Came::command(Command::Intend {
            epoch: held.epoch(),
            baseline,
        })
    }

    /// Writes the settings of a target as planned, whatever came of an earlier try.
    pub(super) async fn write_target(
        &self,
        site: &Site,
        state: &Workflow,
        target: u32,
        held: &Held,
    ) -> Came {
        let planned = state
            .plan
            .as_ref()
            .and_then(|plan| plan.draft.planned_snapshot_id.as_deref());
        let content = match self.content_of(planned, state, target).await {
            Ok(content) => content,
            Err(came) => return came,
        };
        let place = match self.look_at_target(site, state, target).await {
            Ok(place) => place,
            Err(came) => return came,
        };
        let is_planned = place.digest == place.plan.digest_after;
        let accepted = place.state.accepted_digest.as_deref() == Some(place.digest.as_str());
        if !is_planned && place.digest != place.plan.digest_before && !accepted {
            return place.drifted();
        }
        match self
            .bring(site, state, &place, (Purpose::Apply, content.content), held)
            .await
        {
            Brought::There(settings) => {
                self.heard(site, &settings.launch_args);
                Came::command(Command::Written {
                    revision: settings.revision,
                })
            }
            Brought::NotOurs => Came::NotOurs,
            Brought::Moved => Came::later(
                Duration::ZERO,
                &"the settings changed while they were written",
            ),
            Brought::Failed(error) => Came::command(Command::Fail(actuator_failure(&error))),
            Brought::Other(message) => Came::command(Command::Fail(lied(&message))),
        }
    }

    /// Restores the settings of a target byte for byte. `tries` is how often this failed before.
    pub(super) async fn restore_target(
        &self,
        site: &Site,
        state: &Workflow,
        target: u32,
        held: &Held,
        tries: u32,
    ) -> Came {
        let snapshot = state
            .plan
            .as_ref()
            .and_then(|plan| plan.draft.snapshot_id.as_deref());
        let content = match self.content_of(snapshot, state, target).await {
            Ok(content) => content,
            Err(came) => return came,
        };
        let again = |failure: Failure| match tries + 1 >= TRIES {
            true => Came::command(Command::Fail(failure)),
            false => Came::later(Duration::from_secs(1 << tries.min(6)), &failure.message),
        };
        let place = match self.look_at_target(site, state, target).await {
            Ok(place) => place,
            Err(Came::Command(command, _)) => match *command {
                Command::Fail(failure) => return again(failure),
                other => return Came::command(other),
            },
            Err(came) => return came,
        };
        let known = [
            Some(place.plan.digest_before.as_str()),
            Some(place.plan.digest_after.as_str()),
            place.state.accepted_digest.as_deref(),
        ];
        let overwrites = state
            .rollback
            .as_ref()
            .is_some_and(|rollback| rollback.overwrites);
        if !known.contains(&Some(place.digest.as_str())) && !overwrites {
            return Came::command(Command::Fail(Failure {
                reason: "DRIFT".to_owned(),
                message: format!(
                    "Somebody else changed the settings of {} to what neither the plan nor the snapshot has.",
                    place.plan.name
                ),
                hint:
                    "Roll back again to overwrite them, or cancel with `acknowledge` to leave them."
                        .to_owned(),
            }));
        }
        // where it cannot be taken out of traffic, it is restored all the same
        if place.digest != place.plan.digest_before
            && let Err(Came::NotOurs) = self.route(site, &place, false, held).await
        {
            return Came::NotOurs;
        }
        match self
            .bring(
                site,
                state,
                &place,
                (Purpose::Restore, content.content),
                held,
            )
            .await
        {
            Brought::There(settings) => {
                self.heard(site, &settings.launch_args);
                Came::command(Command::Written {
                    revision: settings.revision,
                })
            }
            Brought::NotOurs => Came::NotOurs,
            Brought::Moved => again(failure(
                "ACTUATOR_FAILED",
                &"the settings changed while they were restored",
            )),
            Brought::Failed(error) => again(actuator_failure(&error)),
            Brought::Other(message) => again(lied(&message)),
        }
    }

    /// Waits until a target is ready with its settings, and takes requests.
    pub(super) async fn await_ready(
        &self,
        site: &Site,
        state: &Workflow,
        target: u32,
        held: &Held,
    ) -> Came {
        let place = match self.look_at_target(site, state, target).await {
            Ok(place) => place,
            // a program may fail while its engine starts
            Err(Came::Command(command, _)) => match *command {
                Command::Fail(failure) => return Came::later(POLL, &failure.message),
                other => return Came::command(other),
            },
            Err(came) => return came,
        };
        let is_back = state.phase.is_rollback();
        let wanted = match is_back {
            true => &place.plan.digest_before,
            false => &place.plan.digest_after,
        };
        let accepted = place.state.accepted_digest.as_deref() == Some(place.digest.as_str());
        match (place.digest == *wanted || (accepted && !is_back), is_back) {
            // capacity is back before traffic is
            (true, _) if place.now.ready => match self.route(site, &place, true, held).await {
                Ok(()) => Came::command(Command::Ready),
                Err(came) => came,
            },
            (true, _) => Came::later(POLL, &format!("{} is not ready yet", place.plan.name)),
            (false, false) => place.drifted(),
            (false, true) => Came::command(Command::Fail(failure(
                "DRIFT",
                &format!(
                    "somebody else changed the settings of {} while they were restored",
                    place.plan.name
                ),
            ))),
        }
    }

    /// Whether somebody else changed the settings of a target while what came of the change is measured.
    pub(super) async fn drift_while_measuring(
        &self,
        site: &Site,
        state: &Workflow,
    ) -> Option<Came> {
        // what cannot be read now is no drift
        let settings = site.actuator.read(&site.instance).await.ok()?;
        let all = 0..u32::try_from(state.targets.len()).unwrap_or(u32::MAX);
        let places = all.filter_map(|number| place(state, number, &settings).ok());
        places
            .into_iter()
            .find(|place| {
                let accepted =
                    place.state.accepted_digest.as_deref() == Some(place.digest.as_str());
                place.digest != *place.expected() && !accepted
            })
            .map(|place| place.drifted())
    }

    /// A target that has the change and does not serve. What cannot be read now is not known to serve.
    pub(super) async fn unready(&self, site: &Site, state: &Workflow) -> Option<String> {
        let settings = match site.actuator.read(&site.instance).await {
            Ok(settings) => settings,
            Err(error) => return Some(error.to_string()),
        };
        let changed = state
            .targets
            .iter()
            .filter(|target| target.phase == TargetPhase::Ready);
        let serves = |name: &str| {
            let now = settings.iter().find(|one| one.name == name);
            now.is_some_and(|now| now.ready)
        };
        let mut names = changed.map(|target| target.name.as_str());
        names.find(|name| !serves(name)).map(str::to_owned)
    }

    pub(super) async fn look_at_target<'s>(
        &self,
        site: &Site,
        state: &'s Workflow,
        target: u32,
    ) -> Result<Place<'s>, Came> {
        let settings = site.actuator.read(&site.instance).await;
        let settings =
            settings.map_err(|error| Came::command(Command::Fail(actuator_failure(&error))))?;
        place(state, target, &settings)
            .map_err(|message| Came::command(Command::Fail(failure("ACTUATOR_FAILED", &message))))
    }

    /// Has a target have a content, and reads whether it has.
    async fn bring(
        &self,
        site: &Site,
        state: &Workflow,
        place: &Place<'_>,
        (purpose, content): (Purpose, Vec<u8>),
        held: &Held,
    ) -> Brought {
        let Some(operation_id) = place.state.operation_id.clone() else {
            return Brought::Other("there is no operation".to_owned());
        };
        let digest = content_digest(&content);
        let done = |settings: &TargetSettings| {
            content_digest(&settings.content) == digest
                && settings.operation_id.as_deref() == Some(&operation_id)
        };
        // what is done and runs is not done again
        if done(&place.now) && place.now.ready {
            return Brought::There(place.now.clone());
        }
        if !held.may_act() {
            return Brought::NotOurs;
        }
        let write = SettingsWrite {
            target: place.plan.name.clone(),
            purpose,
            operation_id: operation_id.clone(),
            epoch: held.epoch(),
            expect_revision: place.now.revision.clone(),
            content,
        };
        tracing::info!(
            workflow_id = state.workflow_id,
            target = write.target,
            operation_id = write.operation_id,
            epoch = write.epoch,
            ?purpose,
            "writing settings"
        );
        failpoint!("actuator::before_write");
        let written = site.actuator.write(&site.instance, &write).await;
        failpoint!("actuator::after_write");
        match &written {
            Err(ActuatorError::StaleEpoch { .. }) => return Brought::NotOurs,
            Err(ActuatorError::StaleRevision { .. }) => return Brought::Moved,
            Err(error) => {
                tracing::warn!(workflow_id = state.workflow_id, "writing settings: {error}")
            }
            Ok(_) => {}
        }
        // what is there counts, not what is said
        let settings = match site.actuator.read(&site.instance).await {
            Ok(settings) => settings,
            Err(error) => return Brought::Failed(error),
        };
        let now = settings
            .into_iter()
            .find(|target| target.name == place.plan.name);
        match (now, written) {
            (Some(now), Ok(_)) if content_digest(&now.content) == digest => Brought::There(now),
            (Some(now), Err(_)) if done(&now) => Brought::There(now),
            // the same content of another write is not enough where one may come late: only this one keeps that out
            (Some(now), Err(error))
                if content_digest(&now.content) == digest
                    && self.none_comes_late(state, &error) =>
            {
                Brought::There(now)
            }
            (_, Err(error)) => Brought::Failed(error),
            (_, Ok(_)) => Brought::Other(format!(
                "{} said that it had written the settings of {}, and they are others",
                site.actuator.name(),
                place.plan.name
            )),
        }
    }

    /// Whether no write of this workflow can take effect any more that failed: no other agent has begun one, and each that
    /// this one began has come to its end.
    fn none_comes_late(&self, state: &Workflow, error: &ActuatorError) -> bool {
        let is_shared = self.store.as_ref().is_some_and(|store| store.is_shared());
        let timed_out = |failure: &Failure| failure.reason == TIMED_OUT;
        !is_shared
            && !matches!(error, ActuatorError::TimedOut { .. })
            && !state.failure.as_ref().is_some_and(timed_out)
    }

    /// What a target is to have, from a snapshot of the store.
    async fn content_of(
        &self,
        snapshot_id: Option<&str>,
        state: &Workflow,
        target: u32,
    ) -> Result<SnapshotTarget, Came> {
        let missing = |message: String| Came::command(Command::Fail(failure("INTERNAL", &message)));
        let id = snapshot_id.ok_or_else(|| missing("the plan has no snapshot".to_owned()))?;
        let snapshot = match self.stored_snapshot(id).await {
            Ok(snapshot) => snapshot,
            Err(error @ Error::NoSnapshot(_)) => return Err(missing(error.to_string())),
            Err(error) => return Err(Came::later(POLL, &error)),
        };
        let name = state.target(target).map(|target| target.name.as_str());
        let found = snapshot
            .targets
            .into_iter()
            .find(|one| Some(one.name.as_str()) == name);
        found.ok_or_else(|| missing(format!("snapshot {id} has no settings of target {target}")))
    }
}

/// What came of bringing a target to a content.
enum Brought {
    /// It has it.
    There(TargetSettings),
    /// A later holder acts for the workflow.
    NotOurs,
    /// Somebody changed it in between.
    Moved,
    /// It is not known to have it.
    Failed(ActuatorError),
    /// It has another.
    Other(String),
}

fn actuator_failure(error: &ActuatorError) -> Failure {
    let reason = match error {
        ActuatorError::TimedOut { .. } => TIMED_OUT,
        _ => "ACTUATOR_FAILED",
    };
    Failure {
        hint: "See the actuator's own log, and try `perfagent actuator check`.".to_owned(),
        ..failure(reason, error)
    }
}

fn lied(message: &str) -> Failure {
    Failure {
        hint: "Prove the actuator with `perfagent actuator check`.".to_owned(),
        ..failure("ACTUATOR_FAILED", &message)
    }
}
