//! `grpc.health.v1` as its proto specifies it.
//!
//! tonic-health answers NOT_FOUND to a Watch of an unknown service and has no List.

use std::collections::BTreeSet;
use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

use super::health_pb::health_check_response::ServingStatus;
use super::health_pb::health_server::Health;
use super::health_pb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use super::status::refusal;
use crate::agent::Reason;

/// Serving status of the server (service "") and of each of its services.
#[derive(Debug, Clone)]
pub(super) struct HealthService {
    services: BTreeSet<String>,
    /// All services share the server's fate.
    serving: watch::Receiver<bool>,
}

impl HealthService {
    pub(super) fn new(
        services: impl IntoIterator<Item = String>,
        serving: watch::Receiver<bool>,
    ) -> Self {
        let mut services: BTreeSet<String> = services.into_iter().collect();
        services.insert(String::new());
        Self { services, serving }
    }

    fn answer(serving: bool) -> HealthCheckResponse {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        HealthCheckResponse {
            status: status.into(),
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.services.contains(&request.get_ref().service) {
            let message = "unknown service; List shows those that there are";
            return Err(refusal(Code::NotFound, Reason::UnknownService, message));
        }
        Ok(Response::new(Self::answer(*self.serving.borrow())))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let answer = Self::answer(*self.serving.borrow());
        let statuses = self
            .services
            .iter()
            .map(|service| (service.clone(), answer))
            .collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.services.contains(&request.get_ref().service);
        let states = states(self.serving.clone(), known);
        Ok(Response::new(Box::pin(states)))
    }
}

/// The state now and each change of it; of an unknown service that it is unknown, which will not change. It is ended
/// from outside.
fn states(
    serving: watch::Receiver<bool>,
    known: bool,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + Send {
    let begin = (serving, true);
    futures_util::stream::unfold(begin, move |(mut serving, first)| async move {
        if !first {
            match known {
                true => serving.changed().await.ok()?,
                false => std::future::pending().await,
            }
        }
        let answer = if known {
            HealthService::answer(*serving.borrow_and_update())
        } else {
            HealthCheckResponse {
                status: ServingStatus::ServiceUnknown.into(),
            }
        };
        Some((Ok(answer), (serving, false)))
    })
}
