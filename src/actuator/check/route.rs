//! The part of the check that takes a target out of traffic, and puts it back.

use super::{Broken, Trial, told};
use crate::actuator::{ActuatorError, Routing};

impl Trial<'_> {
    /// Out of traffic, again, and back; and not for an earlier holder.
    pub(super) async fn route(&self) -> Result<String, Broken> {
        let routed = self.route_there_and_back().await;
        // whatever was found, it is left as it was
        let back = self.routing(self.before.takes_requests == Some(true), self.epoch);
        let left = self.of.actuator.route(self.of.instance, &back).await;
        let now = self.now().await?;
        match now.takes_requests == self.before.takes_requests {
            true => routed,
            false => Err(format!(
                "{}; see that {} takes requests",
                routed
                    .err()
                    .or(left.err().map(told))
                    .unwrap_or_else(|| "it stays out of traffic".to_owned()),
                self.before.name
            )),
        }
    }

    fn routing(&self, takes_requests: bool, epoch: u64) -> Routing {
        Routing {
            target: self.before.name.clone(),
            takes_requests,
            epoch,
        }
    }

    async fn route_there_and_back(&self) -> Result<String, Broken> {
        for takes_requests in [false, false, true] {
            let routing = self.routing(takes_requests, self.epoch);
            let routed = self.of.actuator.route(self.of.instance, &routing).await;
            let routed = routed.map_err(told)?;
            let now = self.now().await?;
            if [&routed, &now]
                .iter()
                .any(|target| target.takes_requests != Some(takes_requests))
            {
                return Err("what is read back is not what was asked for".to_owned());
            }
            if now.content != self.before.content {
                return Err("settings are others after it".to_owned());
            }
        }
        let stale = self.routing(false, self.epoch - 1);
        match self.of.actuator.route(self.of.instance, &stale).await {
            Err(ActuatorError::StaleEpoch { .. }) => Ok("out of traffic, and back".to_owned()),
            Err(error) => Err(format!("refused for another reason: {error}")),
            Ok(_) => Err("it was routed for an earlier holder".to_owned()),
        }
    }
}
