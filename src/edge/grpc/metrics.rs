//! MetricsService.

use std::pin::Pin;
use std::sync::Arc;

use prost::Message;
use tokio_stream::Stream;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status};

use super::auth::caller_of;
use super::deadline::Deadline;
use super::pb::batch_collect_metrics_response::Result as BatchResult;
use super::pb::metrics_service_server::MetricsService;
use super::pb::{
    BatchCollectMetricsRequest, BatchCollectMetricsResponse, CollectMetricsRequest,
    CollectMetricsResponse,
};
use super::status::{failure_of, refusal, status_of};
use super::{compare, convert, pb};
use crate::agent::{Agent, Error, LIMITS, Reason, Target, WindowRequest};

/// MetricsService over the agent.
#[derive(Debug, Clone)]
pub(super) struct MetricsHandler(pub(super) Arc<Agent>);

#[tonic::async_trait]
impl MetricsService for MetricsHandler {
    async fn collect_metrics(
        &self,
        request: Request<CollectMetricsRequest>,
    ) -> Result<Response<CollectMetricsResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let (target, window) =
            parsed(request.into_inner(), deadline).map_err(|error| status_of(&error))?;
        let measured = self.0.collect(&caller, &target, window, &|_| {}).await;
        let measurement = measured.map_err(|error| status_of(&error))?;
        let answer = CollectMetricsResponse {
            measurement: Some(convert::measurement(&measurement)),
        };
        fits(&answer)?;
        Ok(Response::new(answer))
    }

    type BatchCollectMetricsStream =
        Pin<Box<dyn Stream<Item = Result<BatchCollectMetricsResponse, Status>> + Send>>;

    async fn batch_collect_metrics(
        &self,
        request: Request<BatchCollectMetricsRequest>,
    ) -> Result<Response<Self::BatchCollectMetricsStream>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let requests = request.into_inner().requests;
        let ids: Vec<String> = requests.iter().map(|one| one.instance_id.clone()).collect();
        let targets = requests
            .into_iter()
            .map(|one| parsed(one, deadline))
            .collect();
        let agent = self.0.clone();
        let results = agent
            .collect_batch(caller, targets)
            .map_err(|error| status_of(&error))?;
        let answers = results.map(move |(at, measured)| {
            let result = match measured {
                Ok(measurement) => BatchResult::Measurement(convert::measurement(&measurement)),
                Err(error) => BatchResult::Failure(failure_of(&error)),
            };
            let answer = BatchCollectMetricsResponse {
                index: u32::try_from(at).unwrap_or(u32::MAX),
                instance_id: ids.get(at).cloned().unwrap_or_default(),
                result: Some(result),
            };
            Ok(match fits(&answer) {
                Ok(()) => answer,
                Err(status) => too_large(answer, &status),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn compare_metrics(
        &self,
        request: Request<pb::CompareMetricsRequest>,
    ) -> Result<Response<pb::CompareMetricsResponse>, Status> {
        let answer = compare::answer(request.into_inner()).map_err(|error| status_of(&error))?;
        fits(&answer)?;
        Ok(Response::new(answer))
    }
}

fn deadline_of<T>(request: &Request<T>) -> Option<Deadline> {
    request.extensions().get::<Deadline>().copied()
}

fn parsed(
    request: CollectMetricsRequest,
    deadline: Option<Deadline>,
) -> Result<(Target, WindowRequest), Error> {
    let (target, window) = convert::target_of(request);
    let mut window = window.map_err(|violation| Error::Invalid(vec![violation]))?;
    window.deadline_in =
        deadline.map(|Deadline(at)| at.saturating_duration_since(tokio::time::Instant::now()));
    Ok((target, window))
}

/// Clients refuse messages above 4 MiB, and proxies buffer them: ours stay well below.
fn fits(answer: &impl Message) -> Result<(), Status> {
    let bytes = answer.encoded_len();
    if bytes <= LIMITS.response_bytes {
        return Ok(());
    }
    Err(refusal(
        Code::FailedPrecondition,
        Reason::ResponseTooLarge,
        format!(
            "the answer has {bytes} bytes, and at most {} are sent; ask for fewer replicas at once",
            LIMITS.response_bytes
        ),
    ))
}

fn too_large(answer: BatchCollectMetricsResponse, status: &Status) -> BatchCollectMetricsResponse {
    BatchCollectMetricsResponse {
        result: Some(BatchResult::Failure(pb::CollectFailure {
            code: status.code() as i32,
            reason: Reason::ResponseTooLarge.as_str().to_owned(),
            message: status.message().to_owned(),
            hint: None,
        })),
        ..answer
    }
}
