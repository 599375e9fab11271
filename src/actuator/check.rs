//! Whether an actuator keeps what it promises, shown on a real target that is left as it was found.

mod route;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::command::CommandActuator;
use super::{ActuatedInstance, Actuator, ActuatorError, Purpose, SettingsWrite, TargetSettings};

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// The actuator.
    pub actuator: &'a dyn Actuator,
    /// The same, where it is a program: whether it can be ended is then checked too.
    pub program: Option<&'a CommandActuator>,
    /// Whose settings.
    pub instance: &'a ActuatedInstance,
    /// Which target of it; the first where none is named.
    pub target: Option<&'a str>,
    /// The flag that is set for a while and its value; where there is none, the cap on sequences is moved by one.
    pub set: Option<(&'a str, &'a str)>,
    /// How long the engine may take until it serves.
    pub ready_timeout: Duration,
}

/// What was found of one promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The promise.
    pub step: Step,
    /// Whether it is kept.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
}

/// Whether a promise is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is.
    Passed,
    /// It is not.
    Failed,
    /// It could not be seen.
    Skipped,
}

/// What an actuator promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Settings are read, and read again the same.
    Read,
    /// Other launch arguments make other settings, and nothing is changed by working that out.
    Plan,
    /// Settings are written, come into force, and are read back.
    Apply,
    /// A repeat changes and restarts nothing.
    Repeat,
    /// A write over other settings than it names is refused.
    StaleRevision,
    /// A write of an earlier holder is refused.
    StaleEpoch,
    /// What was there is restored byte for byte.
    Restore,
    /// A target that says whether it takes requests is taken out of traffic, and put back.
    Route,
    /// A call that hangs is ended, and the next one works.
    Hang,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Plan,
        Self::Apply,
        Self::Repeat,
        Self::StaleRevision,
        Self::StaleEpoch,
        Self::Restore,
        Self::Route,
        Self::Hang,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Repeat => "repeat",
            Self::StaleRevision => "stale_revision",
            Self::StaleEpoch => "stale_epoch",
            Self::Restore => "restore",
            Self::Route => "route",
            Self::Hang => "hang",
        }
    }
}

/// Between two looks at whether an engine is ready.
const POLL: Duration = Duration::from_millis(500);
/// How long a program may wait for the end of its input that never comes.
const HANG: Duration = Duration::from_secs(2);
/// Flags that cap sequences, of which the one that is there is moved by one.
const CAPS: [&str; 3] = [
    "--max-num-seqs",
    "--max-running-requests",
    "--max-concurrent-requests",
];

/// Why a promise counts as not kept.
type Broken = String;

/// Checks an actuator, and tells of each promise as it is found to be kept or not. Settings are as before when it is over,
/// unless a finding of [`Step::Restore`] says otherwise. Told to stop, it restores them at once.
pub async fn check(
    of: Checked<'_>,
    stop: &CancellationToken,
    mut tell: impl FnMut(&Finding),
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut note = |step, result: Result<String, Broken>| {
        let (outcome, detail) = match result {
            Ok(detail) => (Outcome::Passed, detail),
            Err(detail) => (Outcome::Failed, detail),
        };
        let finding = Finding {
            step,
            outcome,
            detail,
        };
        tell(&finding);
        found.push(finding);
        outcome == Outcome::Passed
    };
    let read = of.read().await;
    let before = read.as_ref().ok().cloned();
    note(
        Step::Read,
        read.map(|target| format!("{} at revision {}", target.name, target.revision)),
    );
    let routes = before
        .as_ref()
        .is_none_or(|before| before.takes_requests.is_some());
    if let Some(before) = before {
        let planned = of.plan(&before).await;
        let plan = planned.as_ref().ok().cloned();
        if note(
            Step::Plan,
            planned.map(|plan| format!("{}, for the time of the check", plan.flag)),
        ) && let Some(plan) = plan
            && !stop.is_cancelled()
        {
            let trial = Trial {
                of,
                before: &before,
                plan: &plan,
                epoch: before.epoch.unwrap_or(0).max(1),
                operation_id: Uuid::new_v4().to_string(),
            };
            let applied = trial.apply(stop).await;
            if note(Step::Apply, applied) && !stop.is_cancelled() {
                note(Step::Repeat, trial.repeat().await);
                note(Step::StaleRevision, trial.stale_revision().await);
                note(Step::StaleEpoch, trial.stale_epoch().await);
            }
            let is_restored = note(Step::Restore, trial.restore().await);
            if before.takes_requests.is_some() && is_restored && !stop.is_cancelled() {
                note(Step::Route, trial.route().await);
            }
        }
        if let Some(program) = of.program.filter(|_| !stop.is_cancelled()) {
            note(Step::Hang, of.hang(program, &before).await);
        }
    }
    let seen = |step: &Step| found.iter().any(|finding| finding.step == *step);
    let applies = |step: &Step| match step {
        Step::Hang => of.program.is_some(),
        Step::Route => routes,
        _ => true,
    };
    let unseen = Step::ALL
        .into_iter()
        .filter(|step| !seen(step) && applies(step));
    let skipped: Vec<Finding> = unseen
        .map(|step| Finding {
            step,
            outcome: Outcome::Skipped,
            detail: "not reached".to_owned(),
        })
        .collect();
    skipped.iter().for_each(&mut tell);
    found.extend(skipped);
    found
}

/// Settings for the time of the check.
#[derive(Clone)]
struct Plan {
    /// The flag with its value.
    flag: String,
    launch_args: Vec<String>,
    content: Vec<u8>,
}

impl Checked<'_> {
    async fn target(&self, name: Option<&str>) -> Result<TargetSettings, Broken> {
        let targets = self.actuator.read(self.instance).await.map_err(told)?;
        let names: Vec<String> = targets.iter().map(|one| one.name.clone()).collect();
        let found = targets
            .into_iter()
            .find(|target| name.is_none_or(|name| target.name == name));
        found.ok_or_else(|| format!("there is no such target; there are {}", names.join(", ")))
    }

    async fn read(&self) -> Result<TargetSettings, Broken> {
        let first = self.target(self.target).await?;
        let second = self.target(Some(&first.name)).await?;
        match first.revision == second.revision && first.content == second.content {
            false => Err("two reads differ, and nobody wrote".to_owned()),
            true if !second.ready => Err(format!(
                "{} is not ready: start it, and check again",
                second.name
            )),
            true => Ok(second),
        }
    }

    async fn plan(&self, before: &TargetSettings) -> Result<Plan, Broken> {
        let same = self
            .actuator
            .plan(self.instance, before, &before.launch_args);
        same.await.map_err(told)?;
        let (flag, value) = match self.set {
            Some((flag, value)) => (flag.to_owned(), value.to_owned()),
            None => moved_cap(&before.launch_args).ok_or(
                "say which flag may be changed for a while, with --set FLAG=VALUE: the launch arguments have no cap on sequences",
            )?,
        };
        let launch_args = with_flag(&before.launch_args, &flag, &value);
        let planned = self.actuator.plan(self.instance, before, &launch_args);
        let planned = planned.await.map_err(told)?;
        if planned.content == before.content {
            return Err(format!("{flag} {value} makes no other settings"));
        }
        let after = self.target(Some(&before.name)).await?;
        match after.revision == before.revision && after.content == before.content {
            true => Ok(Plan {
                flag: format!("{flag} {value}"),
                launch_args,
                content: planned.content,
            }),
            false => Err("settings were changed by working out what they would be".to_owned()),
        }
    }

    async fn hang(
        &self,
        program: &CommandActuator,
        before: &TargetSettings,
    ) -> Result<String, Broken> {
        let detail = match program.hang(self.instance, HANG).await {
            Err(ActuatorError::TimedOut { .. }) => "ended when it waited too long",
            Ok(()) => "answered without the end of its input",
            Err(error) => return Err(told(error)),
        };
        let after = self.target(Some(&before.name)).await?;
        match after.content == before.content {
            true => Ok(format!("{detail}; the next call works")),
            false => Err("settings are others after a call that was ended".to_owned()),
        }
    }
}

/// The part of the check that changes settings.
struct Trial<'a> {
    of: Checked<'a>,
    before: &'a TargetSettings,
    plan: &'a Plan,
    /// No higher than need be: workflows come after it.
    epoch: u64,
    operation_id: String,
}

impl Trial<'_> {
    fn write(&self) -> SettingsWrite {
        SettingsWrite {
            target: self.before.name.clone(),
            purpose: Purpose::Apply,
            operation_id: self.operation_id.clone(),
            epoch: self.epoch,
            expect_revision: self.before.revision.clone(),
            content: self.plan.content.clone(),
        }
    }

    async fn now(&self) -> Result<TargetSettings, Broken> {
        self.of.target(Some(&self.before.name)).await
    }

    /// Once the engine serves with these settings.
    async fn ready(
        &self,
        content: &[u8],
        stop: Option<&CancellationToken>,
    ) -> Result<TargetSettings, Broken> {
        let deadline = tokio::time::Instant::now() + self.of.ready_timeout;
        loop {
            let now = self.now().await?;
            if now.content != content {
                return Err("what is read back is not what was written".to_owned());
            }
            if now.ready {
                return Ok(now);
            }
            if tokio::time::Instant::now() >= deadline {
                let time = humantime::format_duration(self.of.ready_timeout);
                return Err(format!("not ready after {time}"));
            }
            match stop {
                Some(stop) => tokio::select! {
                    () = stop.cancelled() => return Err("stopped".to_owned()),
                    () = tokio::time::sleep(POLL) => {}
                },
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn apply(&self, stop: &CancellationToken) -> Result<String, Broken> {
        let write = self.write();
        let written = self.of.actuator.write(self.of.instance, &write).await;
        let written = written.map_err(told)?;
        let ready = self.ready(&write.content, Some(stop)).await?;
        if ready.is_not(&write).is_some() || ready.revision != written.revision {
            return Err("what is read back is not what was answered".to_owned());
        }
        if ready.revision == self.before.revision {
            return Err("the revision is as before, and the content is not".to_owned());
        }
        if ready.launch_args != self.plan.launch_args {
            return Err("the launch arguments are not those that were planned".to_owned());
        }
        Ok(format!("revision {}, in force", ready.revision))
    }

    async fn repeat(&self) -> Result<String, Broken> {
        let (write, before) = (self.write(), self.now().await?);
        let again = self.of.actuator.write(self.of.instance, &write).await;
        let again = again.map_err(told)?;
        let after = self.now().await?;
        match again.revision == before.revision && after.revision == before.revision {
            false => Err("a repeat changed the revision".to_owned()),
            true if !(again.ready && after.ready) => {
                Err("a repeat restarted the engine".to_owned())
            }
            true => Ok("nothing changed".to_owned()),
        }
    }

    /// That a write which must be refused is, and changes nothing.
    async fn refused(
        &self,
        change: impl FnOnce(&mut SettingsWrite, &TargetSettings),
        is_right: impl FnOnce(&ActuatorError, &TargetSettings) -> bool,
    ) -> Result<String, Broken> {
        let before = self.now().await?;
        let mut write = SettingsWrite {
            operation_id: Uuid::new_v4().to_string(),
            expect_revision: before.revision.clone(),
            content: self.before.content.clone(),
            ..self.write()
        };
        change(&mut write, &before);
        let error = match self.of.actuator.write(self.of.instance, &write).await {
            Ok(_) => return Err("it was written".to_owned()),
            Err(error) => error,
        };
        if !is_right(&error, &before) {
            return Err(format!("refused for another reason: {error}"));
        }
        match self.now().await?.revision == before.revision {
            true => Ok("refused".to_owned()),
            false => Err("refused, and yet the settings are others".to_owned()),
        }
    }

    async fn stale_revision(&self) -> Result<String, Broken> {
        let stale = |write: &mut SettingsWrite, _: &TargetSettings| {
            write.expect_revision = self.before.revision.clone();
        };
        let is_right = |error: &ActuatorError, now: &TargetSettings| matches!(error, ActuatorError::StaleRevision { current, .. } if *current == now.revision);
        self.refused(stale, is_right).await
    }

    async fn stale_epoch(&self) -> Result<String, Broken> {
        let stale = |write: &mut SettingsWrite, _: &TargetSettings| write.epoch -= 1;
        let is_right = |error: &ActuatorError, _: &TargetSettings| matches!(error, ActuatorError::StaleEpoch { current, .. } if *current == self.epoch);
        self.refused(stale, is_right).await
    }

    async fn restore(&self) -> Result<String, Broken> {
        let lost = |why: String| {
            format!(
                "{why}; see that the settings of {} are what they were",
                self.before.name
            )
        };
        let write = SettingsWrite {
            purpose: Purpose::Restore,
            operation_id: Uuid::new_v4().to_string(),
            expect_revision: self.now().await.map_err(lost)?.revision,
            content: self.before.content.clone(),
            ..self.write()
        };
        let written = self.of.actuator.write(self.of.instance, &write).await;
        written.map_err(|error| lost(told(error)))?;
        let ready = self.ready(&self.before.content, None).await.map_err(lost)?;
        match ready.launch_args == self.before.launch_args {
            true => Ok("byte for byte, in force".to_owned()),
            false => Err(lost("the launch arguments are others".to_owned())),
        }
    }
}

fn told(error: ActuatorError) -> Broken {
    error.to_string()
}

/// The cap on sequences that is there, one lower; or higher, where it is 1.
fn moved_cap(words: &[String]) -> Option<(String, String)> {
    CAPS.iter().find_map(|flag| {
        let value: u32 = value_of(words, flag)?.parse().ok()?;
        let moved = if value > 1 { value - 1 } else { 2 };
        Some(((*flag).to_owned(), moved.to_string()))
    })
}

fn value_of<'w>(words: &'w [String], flag: &str) -> Option<&'w str> {
    let at = words.iter().position(|word| is_flag(word, flag))?;
    match words.get(at)?.split_once('=') {
        Some((_, value)) => Some(value),
        None => words.get(at + 1).map(String::as_str),
    }
}

fn is_flag(word: &str, flag: &str) -> bool {
    let rest = word.strip_prefix(flag);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// Launch arguments with a flag at another value, where it stands or at the end.
fn with_flag(words: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut words = words.to_vec();
    let Some(at) = words.iter().position(|word| is_flag(word, flag)) else {
        words.extend([flag.to_owned(), value.to_owned()]);
        return words;
    };
    let inline = words.get(at).is_some_and(|word| word.contains('='));
    if inline && let Some(word) = words.get_mut(at) {
        *word = format!("{flag}={value}");
    } else if let Some(word) = words.get_mut(at + 1) {
        value.clone_into(word);
    }
    words
}
