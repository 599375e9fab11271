//! A target of a workflow as it is found, beside what the plan says of it.

use super::came::Came;
use crate::actuator::{TargetSettings, content_digest};
use crate::workflow::{Command, PlanTarget, TargetPhase, TargetState, Workflow};

/// A target, what the plan says of it, and how it is.
pub(super) struct Place<'p> {
    pub(super) number: u32,
    pub(super) plan: &'p PlanTarget,
    pub(super) state: &'p TargetState,
    pub(super) now: TargetSettings,
    pub(super) digest: String,
}

impl Place<'_> {
    /// Digest of what the workflow left there.
    pub(super) fn expected(&self) -> &String {
        match self.state.phase {
            TargetPhase::Untouched | TargetPhase::Draining => &self.plan.digest_before,
            _ => &self.plan.digest_after,
        }
    }

    pub(super) fn drifted(&self) -> Came {
        Came::command(Command::Drifted {
            target: Some(self.number),
            digest: self.digest.clone(),
            message: format!(
                "Somebody else changed the settings of {}: they are at revision {}. Resume to go on with them, roll back \
                 to restore those from before.",
                self.plan.name, self.now.revision
            ),
        })
    }
}

/// The target of this number.
pub(super) fn place<'s>(
    state: &'s Workflow,
    number: u32,
    settings: &[TargetSettings],
) -> Result<Place<'s>, String> {
    let target = state.target(number).ok_or("there is no such target")?;
    let plan = state.plan.as_ref().ok_or("there is no plan")?;
    let plan = plan
        .draft
        .targets
        .iter()
        .find(|one| one.name == target.name);
    let now = settings.iter().find(|one| one.name == target.name);
    let now = now.ok_or_else(|| format!("the actuator has no target {} any more", target.name))?;
    Ok(Place {
        number,
        plan: plan.ok_or("the plan has no such target")?,
        state: target,
        digest: content_digest(&now.content),
        now: now.clone(),
    })
}

/// A restart takes a replica away: so many others have to serve meanwhile.
pub(super) fn too_few_ready(
    state: &Workflow,
    next: u32,
    settings: &[TargetSettings],
) -> Option<String> {
    let least = state.canary()?.least_ready;
    let name = &state.target(next)?.name;
    let others = settings
        .iter()
        .filter(|one| one.ready && one.name != *name)
        .count();
    (u32::try_from(others).unwrap_or(u32::MAX) < least)
        .then(|| format!("only {others} other targets are ready, and {least} have to be"))
}
