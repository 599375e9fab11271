//! MetricsService.

use std::sync::Arc;

use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status};

use super::auth::caller_of;
use super::deadline::Deadline;
use super::encoded::{self, BatchCollectMetricsResponse, Framed, View, WatchMetricsResponse};
use super::pb::metrics_service_server::MetricsService;
use super::pb::{
    BatchCollectMetricsRequest, CollectMetricsRequest, CollectMetricsResponse,
    CompareMetricsRequest, CompareMetricsResponse, WatchMetricsRequest,
};
use super::ready::{self, Nothing};
use super::status::{failure_of, refusal, scrape_failure, status_of};
use super::{compare, convert, convert_instance, pb};
use crate::agent::{Agent, Answer, Error, LIMITS, Reason, Target, WatchEvent, WindowRequest};

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
        let view = View::of(request.get_ref().view);
        let (target, window) =
            parsed(request.into_inner(), deadline).map_err(|error| status_of(&error))?;
        let measured = self.0.measure(&caller, &target, window).await;
        let answer = encoded::answer(&measured.map_err(|error| status_of(&error))?, view);
        fits(answer.message_bytes())?;
        Ok(ready::one(answer))
    }

    type BatchCollectMetricsStream = Nothing<pb::BatchCollectMetricsResponse>;

    async fn batch_collect_metrics(
        &self,
        request: Request<BatchCollectMetricsRequest>,
    ) -> Result<Response<Self::BatchCollectMetricsStream>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let requests = request.into_inner().requests;
        let asked: Vec<(String, View)> = requests
            .iter()
            // what is longer is no id, and would be sent back with its refusal
            .map(|one| {
                let id = one.instance_id.chars().take(MAX_ID_CHARS).collect();
                (id, View::of(one.view))
            })
            .collect();
        let targets = requests
            .into_iter()
            .map(|one| parsed(one, deadline))
            .collect();
        let agent = self.0.clone();
        let results = agent
            .collect_batch(caller, targets)
            .map_err(|error| status_of(&error))?;
        let answers = results.map(move |(at, measured)| {
            let (instance_id, view) = match asked.get(at) {
                Some((id, view)) => (id.clone(), *view),
                None => (String::new(), View::Full),
            };
            Framed::of(&batch_answer(at, instance_id, measured, view))
        });
        Ok(ready::many(answers))
    }

    type WatchMetricsStream = Nothing<pb::WatchMetricsResponse>;

    async fn watch_metrics(
        &self,
        request: Request<WatchMetricsRequest>,
    ) -> Result<Response<Self::WatchMetricsStream>, Status> {
        let request = request.into_inner();
        let view = View::of(request.view);
        let labels = request.labels.into_iter().collect();
        let events = self.0.watch(&request.instance_ids, labels);
        let events = events.map_err(|error| status_of(&error))?;
        Ok(ready::many(events.map(move |event| told(&event, view))))
    }

    async fn compare_metrics(
        &self,
        request: Request<CompareMetricsRequest>,
    ) -> Result<Response<CompareMetricsResponse>, Status> {
        let answer = compare::answer(request.into_inner()).map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }
}

/// Ids are not longer.
const MAX_ID_CHARS: usize = 63;

fn batch_answer(
    at: usize,
    instance_id: String,
    measured: Result<Answer, Error>,
    view: View,
) -> BatchCollectMetricsResponse {
    let answer = BatchCollectMetricsResponse {
        index: u32::try_from(at).unwrap_or(u32::MAX),
        instance_id,
        ..BatchCollectMetricsResponse::default()
    };
    let measured = match measured {
        Ok(measured) => encoded::parts(&measured, view),
        Err(error) => {
            return BatchCollectMetricsResponse {
                failure: Some(failure_of(&error)),
                ..answer
            };
        }
    };
    let whole = BatchCollectMetricsResponse {
        measurement: measured.measurement,
        stale: measured.stale,
        last_failure: measured.last_failure,
        ..answer.clone()
    };
    match fits(whole.encoded_len()) {
        Ok(()) => whole,
        Err(status) => BatchCollectMetricsResponse {
            failure: Some(too_large(&status)),
            ..answer
        },
    }
}

/// What watchers are told, which is the same for all that missed nothing.
fn told(event: &WatchEvent, view: View) -> Framed {
    match event {
        WatchEvent::State { state, missed: 0 } => Framed::kept(&state.forms, view as usize, || {
            Framed::of(&watch_answer(event, view))
        }),
        other => Framed::of(&watch_answer(other, view)),
    }
}

fn watch_answer(event: &WatchEvent, view: View) -> WatchMetricsResponse {
    let (state, missed) = match event {
        WatchEvent::State { state, missed } => (state, *missed),
        WatchEvent::Removed { instance_id } => {
            return WatchMetricsResponse {
                event: pb::WatchEvent::Removed.into(),
                instance_id: instance_id.to_string(),
                ..WatchMetricsResponse::default()
            };
        }
        WatchEvent::Heartbeat => {
            return WatchMetricsResponse {
                event: pb::WatchEvent::Heartbeat.into(),
                ..WatchMetricsResponse::default()
            };
        }
    };
    let answer = WatchMetricsResponse {
        event: pb::WatchEvent::Missing.into(),
        instance_id: state.instance.id().to_owned(),
        state: convert_instance::health(state.health).into(),
        sequence: state.sequence,
        missed_windows: missed,
        measurement: None,
        failure: state.failure().map(scrape_failure),
        window_end_time: convert_instance::window_end(state),
    };
    let Some(latest) = state.latest.as_ref().filter(|_| !state.is_missing()) else {
        return answer;
    };
    let whole = WatchMetricsResponse {
        event: pb::WatchEvent::Window.into(),
        measurement: Some(encoded::encoded(latest, view)),
        ..answer.clone()
    };
    match fits(whole.encoded_len()) {
        Ok(()) => whole,
        Err(status) => WatchMetricsResponse {
            failure: Some(too_large(&status)),
            ..answer
        },
    }
}

pub(super) fn deadline_of<T>(request: &Request<T>) -> Option<Deadline> {
    request.extensions().get::<Deadline>().copied()
}

fn parsed(
    request: CollectMetricsRequest,
    deadline: Option<Deadline>,
) -> Result<(Target, WindowRequest), Error> {
    let (target, window) = convert::target_of(request);
    let mut window = window.map_err(|violation| Error::Invalid(vec![violation]))?;
    window.deadline_in = deadline.map(Deadline::left);
    Ok((target, window))
}

/// Clients refuse messages above 4 MiB, and proxies buffer them: ours stay well below.
pub(super) fn fits(bytes: usize) -> Result<(), Status> {
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

fn too_large(status: &Status) -> pb::CollectFailure {
    pb::CollectFailure {
        code: status.code() as i32,
        reason: Reason::ResponseTooLarge.as_str().to_owned(),
        message: status.message().to_owned(),
        hint: None,
    }
}
