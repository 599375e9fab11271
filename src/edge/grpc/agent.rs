//! AgentService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use super::pb::agent_service_server::AgentService;
use super::pb::{
    GetAgentInfoRequest, GetAgentInfoResponse, GetCapabilitiesRequest, GetCapabilitiesResponse,
};
use crate::agent::Agent;

/// AgentService over the agent.
#[derive(Debug, Clone)]
pub(super) struct AgentHandler(pub(super) Arc<Agent>);

#[tonic::async_trait]
impl AgentService for AgentHandler {
    async fn get_agent_info(
        &self,
        _: Request<GetAgentInfoRequest>,
    ) -> Result<Response<GetAgentInfoResponse>, Status> {
        Ok(Response::new(convert::agent_info(&self.0.info())))
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        let engines = self.0.engines().iter().map(AsRef::as_ref);
        Ok(Response::new(convert::capabilities(
            engines,
            self.0.thresholds(),
            self.0.optimizers(),
            self.0.actuators(),
        )))
    }
}
