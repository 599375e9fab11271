//! Traffic of a target: taken away before it is restarted, given back once it serves.

use super::Agent;
use super::came::Came;
use super::lease::Held;
use super::place::Place;
use super::site::Site;
use super::write::POLL;
use crate::actuator::{ActuatorError, Routing};
use crate::workflow::{Phase, TargetPhase, Workflow};

impl Agent {
    /// Has a target take new requests, or none, and sees that it does. Nothing where the workflow does not take it out of
    /// traffic.
    pub(super) async fn route(
        &self,
        site: &Site,
        place: &Place<'_>,
        takes_requests: bool,
        held: &Held,
    ) -> Result<(), Came> {
        let is_so = |now| now == takes_requests;
        if !place.state.leaves_traffic || place.now.takes_requests.is_none_or(is_so) {
            return Ok(());
        }
        if !held.may_act() {
            return Err(Came::NotOurs);
        }
        let routing = Routing {
            target: place.plan.name.clone(),
            takes_requests,
            epoch: held.epoch(),
        };
        tracing::info!(
            target = routing.target,
            takes_requests,
            epoch = routing.epoch,
            "routing"
        );
        failpoint!("actuator::before_route");
        let routed = site.actuator.route(&site.instance, &routing).await;
        failpoint!("actuator::after_route");
        match routed {
            Ok(now) if now.takes_requests == Some(takes_requests) => Ok(()),
            Ok(_) => {
                let still = format!("{} was told, and is routed as before", routing.target);
                Err(Came::later(POLL, &still))
            }
            Err(ActuatorError::StaleEpoch { .. }) => Err(Came::NotOurs),
            Err(error) => Err(Came::later(POLL, &error)),
        }
    }

    /// Takes a target out of traffic that is about to be restarted.
    pub(super) async fn leave_traffic(
        &self,
        site: &Site,
        state: &Workflow,
        target: u32,
        held: &Held,
    ) -> Result<(), Came> {
        let leaves = state
            .target(target)
            .is_some_and(|target| target.phase == TargetPhase::Draining);
        if !leaves {
            return Ok(());
        }
        let place = self.look_at_target(site, state, target).await?;
        self.route(site, &place, false, held).await
    }
}

/// Whether a target is to finish its requests first. One that can be taken out of traffic leaves it however long that has.
pub(super) fn is_to_drain(state: &Workflow, next: u32, is_routed: bool) -> bool {
    let drains = state
        .canary()
        .is_some_and(|canary| canary.drain_seconds > 0.0 || is_routed);
    let restarts = state.plan.as_ref().is_some_and(|plan| {
        let target = usize::try_from(next)
            .ok()
            .and_then(|at| plan.draft.targets.get(at));
        target.is_some_and(|target| target.needs_restart)
    });
    drains && restarts && !matches!(state.phase, Phase::Draining { .. })
}
