//! The actuator that is the operator's own program.
//!
//! Each call is one run of it: JSON in, JSON out, no shell, none of the agent's variables but those that are listed,
//! bounds on time and output, and nothing of its process group left afterwards.

mod passed;
mod process;
mod protocol;
mod text;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::entry::ActuatorEntry;
use super::{
    ActuatedInstance, Actuator, ActuatorError, PlannedSettings, Routing, SettingsWrite, Slot,
    TargetSettings,
};
use passed::Identity;
use process::{Run, RunError};
use protocol::{Ask, Said, SaidError};
use text::Secrets;

/// An actuator that is the operator's own program.
pub struct CommandActuator {
    name: String,
    argv: Vec<String>,
    env: Vec<String>,
    timeout: Duration,
    slots: Arc<Semaphore>,
    trust: Trust,
}

/// How many workflows may be at a program at once, where its entry does not say: each is a process on the agent's host.
const MAX_CONCURRENT: usize = 16;

/// Why settings may be written with it.
#[derive(Debug)]
enum Trust {
    /// The operator says so, or it is being checked.
    Given,
    /// It passed its check, as this record says.
    Earned(Option<PathBuf>),
}

impl CommandActuator {
    /// The program of an entry, which writes settings where a record in this directory says that it passed its check.
    pub(super) fn new(entry: &ActuatorEntry, records: Option<&std::path::Path>) -> Self {
        let record = records.map(|directory| passed::record_path(directory, &entry.name));
        Self {
            name: entry.name.clone(),
            argv: entry.command.clone(),
            env: entry.env.clone(),
            timeout: entry.timeout,
            slots: Arc::new(Semaphore::new(
                entry.max_concurrent.unwrap_or(MAX_CONCURRENT),
            )),
            trust: match entry.is_unsafe {
                true => Trust::Given,
                false => Trust::Earned(record),
            },
        }
    }

    /// The program of an entry, to be checked: it writes settings whatever was found of it before.
    pub fn to_be_checked(entry: &ActuatorEntry) -> Self {
        Self {
            trust: Trust::Given,
            ..Self::new(entry, None)
        }
    }

    /// Runs a program that never sees the end of its input, and so may wait for ever, for as long as this.
    ///
    /// # Errors
    /// [`ActuatorError::TimedOut`] where it did wait.
    pub async fn hang(
        &self,
        instance: &ActuatedInstance,
        timeout: Duration,
    ) -> Result<(), ActuatorError> {
        let run = self.run(&Ask::Read, instance, true, timeout).await;
        run.map(drop)
    }

    /// Keeps in this directory that the program, as it is now, passed its check.
    ///
    /// # Errors
    /// A file of the program that cannot be read, a record that cannot be written.
    pub fn record_passed(&self, directory: &std::path::Path) -> std::io::Result<PathBuf> {
        self.identity().record(directory)
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            name: &self.name,
            argv: &self.argv,
            env: &self.env,
            timeout: self.timeout,
        }
    }

    fn failed(&self, op: &'static str, message: String) -> ActuatorError {
        ActuatorError::Failed {
            actuator: self.name.clone(),
            op,
            message,
        }
    }

    fn protocol(&self, op: &'static str, message: String) -> ActuatorError {
        ActuatorError::Protocol {
            actuator: self.name.clone(),
            op,
            message,
        }
    }

    async fn run(
        &self,
        ask: &Ask<'_>,
        instance: &ActuatedInstance,
        holds_input_open: bool,
        timeout: Duration,
    ) -> Result<process::Ran, ActuatorError> {
        let op = ask.op();
        let env: Vec<(String, OsString)> = self
            .env
            .iter()
            .filter_map(|name| Some((name.clone(), std::env::var_os(name)?)))
            .collect();
        let input = ask.request(&self.name, instance);
        let ran = process::run(Run {
            argv: &self.argv,
            env: &env,
            input: &input,
            holds_input_open,
            timeout,
        });
        ran.await.map_err(|error| match error {
            RunError::TimedOut => ActuatorError::TimedOut {
                actuator: self.name.clone(),
                op,
                seconds: timeout.as_secs_f64(),
            },
            RunError::TooLarge => self.protocol(op, error.to_string()),
            RunError::Start(_) | RunError::Wait(_) => self.failed(op, error.to_string()),
        })
    }

    async fn ask(
        &self,
        ask: &Ask<'_>,
        instance: &ActuatedInstance,
    ) -> Result<serde_json::Map<String, serde_json::Value>, ActuatorError> {
        let op = ask.op();
        let ran = self.run(ask, instance, false, self.timeout).await?;
        let said = protocol::said(&ran.stdout);
        let secrets = secrets_of(ask);
        match said {
            Ok(Said::Ok(ok)) if ran.status.success() => Ok(ok),
            Ok(Said::Error(error)) => Err(self.refusal(ask, instance, error, &secrets)),
            Err(problem) if ran.status.success() => Err(self.protocol(op, problem)),
            Ok(Said::Ok(_)) | Err(_) => {
                let message = match secrets.shown(&ran.stderr) {
                    said if said.is_empty() => ran.status.to_string(),
                    said => format!("{}: {said}", ran.status),
                };
                Err(self.failed(op, message))
            }
        }
    }

    /// What a program says of why it did not do it, where that can be.
    fn refusal(
        &self,
        ask: &Ask<'_>,
        instance: &ActuatedInstance,
        error: SaidError,
        secrets: &Secrets,
    ) -> ActuatorError {
        let op = ask.op();
        let cannot_be = |why: &str| self.protocol(op, why.to_owned());
        match (error, ask) {
            (SaidError::Failed(message), _) => self.failed(op, secrets.shown(message.as_bytes())),
            (SaidError::StaleRevision(current), Ask::Write(write)) => {
                if current == write.expect_revision {
                    return cannot_be(
                        "STALE_REVISION, although the revision is the one that was expected",
                    );
                }
                ActuatorError::StaleRevision {
                    target: write.target.clone(),
                    expected: write.expect_revision.clone(),
                    current,
                }
            }
            (SaidError::StaleEpoch(current), Ask::Write(write)) => {
                if current <= write.epoch {
                    return cannot_be("STALE_EPOCH, although no later epoch wrote");
                }
                ActuatorError::StaleEpoch {
                    target: write.target.clone(),
                    epoch: write.epoch,
                    current,
                }
            }
            (SaidError::StaleEpoch(current), Ask::Route(routing)) => {
                if current <= routing.epoch {
                    return cannot_be("STALE_EPOCH, although no later epoch wrote");
                }
                ActuatorError::StaleEpoch {
                    target: routing.target.clone(),
                    epoch: routing.epoch,
                    current,
                }
            }
            (
                SaidError::NoTarget,
                Ask::Write(SettingsWrite { target, .. }) | Ask::Route(Routing { target, .. }),
            ) => self.no_target(instance, target),
            (SaidError::NoTarget, Ask::Plan { target, .. }) => {
                self.no_target(instance, &target.name)
            }
            (SaidError::NoTarget, Ask::Read) => {
                self.failed(op, "it has no target for this instance".to_owned())
            }
            (SaidError::StaleRevision(_) | SaidError::StaleEpoch(_), _) => {
                cannot_be("only apply, restore and route can be stale")
            }
        }
    }

    fn no_target(&self, instance: &ActuatedInstance, target: &str) -> ActuatorError {
        ActuatorError::NoTarget {
            actuator: self.name.clone(),
            instance_id: instance.instance_id.clone(),
            target: target.to_owned(),
        }
    }
}

// arguments can hold secrets: no log shows them
impl std::fmt::Debug for CommandActuator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CommandActuator")
            .field("name", &self.name)
            .field("program", &self.argv.first())
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}

fn secrets_of(ask: &Ask<'_>) -> Secrets {
    let mut secrets = Secrets::default();
    match ask {
        Ask::Read | Ask::Route(_) => {}
        Ask::Plan {
            target,
            launch_args,
        } => {
            secrets.add(&target.content);
            for word in *launch_args {
                secrets.add(word.as_bytes());
            }
        }
        Ask::Write(write) => secrets.add(&write.content),
    }
    secrets
}

#[async_trait]
impl Actuator for CommandActuator {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn slot(&self) -> Slot {
        Slot::of(&self.slots).await
    }

    async fn refuses(&self) -> Option<ActuatorError> {
        let Trust::Earned(record) = &self.trust else {
            return None;
        };
        let reason = match record {
            None => Some("nothing is known of a check of it".to_owned()),
            Some(record) => self.identity().not_passed(record).await,
        };
        reason.map(|reason| ActuatorError::Unchecked {
            actuator: self.name.clone(),
            reason,
        })
    }

    async fn read(
        &self,
        instance: &ActuatedInstance,
    ) -> Result<Vec<TargetSettings>, ActuatorError> {
        let ok = self.ask(&Ask::Read, instance).await?;
        protocol::targets(&ok).map_err(|problem| self.protocol("read", problem))
    }

    async fn plan(
        &self,
        instance: &ActuatedInstance,
        target: &TargetSettings,
        launch_args: &[String],
    ) -> Result<PlannedSettings, ActuatorError> {
        let ask = Ask::Plan {
            target,
            launch_args,
        };
        let ok = self.ask(&ask, instance).await?;
        protocol::planned(&ok).map_err(|problem| self.protocol("plan", problem))
    }

    async fn write(
        &self,
        instance: &ActuatedInstance,
        write: &SettingsWrite,
    ) -> Result<TargetSettings, ActuatorError> {
        if let Some(refusal) = self.refuses().await {
            return Err(refusal);
        }
        let ask = Ask::Write(write);
        let ok = self.ask(&ask, instance).await?;
        protocol::written(&ok, write).map_err(|problem| self.protocol(ask.op(), problem))
    }

    async fn route(
        &self,
        instance: &ActuatedInstance,
        routing: &Routing,
    ) -> Result<TargetSettings, ActuatorError> {
        if let Some(refusal) = self.refuses().await {
            return Err(refusal);
        }
        let ask = Ask::Route(routing);
        let ok = self.ask(&ask, instance).await?;
        protocol::routed(&ok, routing).map_err(|problem| self.protocol(ask.op(), problem))
    }
}
