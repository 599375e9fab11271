//! OptimizationService.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::auth::caller_of;
use super::metrics::{deadline_of, fits};
use super::optimize;
use super::pb::optimization_service_server::OptimizationService;
use super::pb::{
    GetInstanceConfigRequest, GetInstanceConfigResponse, ListPredictionsRequest,
    ListPredictionsResponse, PredictPerformanceRequest, PredictPerformanceResponse,
    RecommendOptimizationsRequest, RecommendOptimizationsResponse,
};
use super::status::status_of;
use crate::agent::Agent;

/// OptimizationService over the agent.
#[derive(Debug, Clone)]
pub(super) struct OptimizationHandler(pub(super) Arc<Agent>);

#[tonic::async_trait]
impl OptimizationService for OptimizationHandler {
    async fn recommend_optimizations(
        &self,
        request: Request<RecommendOptimizationsRequest>,
    ) -> Result<Response<RecommendOptimizationsResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let found = optimize::recommended(&self.0, &caller, request.into_inner(), deadline).await;
        let answer = found.map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    async fn get_instance_config(
        &self,
        request: Request<GetInstanceConfigRequest>,
    ) -> Result<Response<GetInstanceConfigResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let found = optimize::config(&self.0, &caller, request.into_inner(), deadline).await;
        let answer = found.map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    async fn predict_performance(
        &self,
        request: Request<PredictPerformanceRequest>,
    ) -> Result<Response<PredictPerformanceResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let found = optimize::predicted(&self.0, &caller, request.into_inner(), deadline).await;
        let answer = found.map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    async fn list_predictions(
        &self,
        request: Request<ListPredictionsRequest>,
    ) -> Result<Response<ListPredictionsResponse>, Status> {
        let page = optimize::listed(&self.0, request.into_inner()).await;
        Ok(Response::new(page.map_err(|error| status_of(&error))?))
    }
}
