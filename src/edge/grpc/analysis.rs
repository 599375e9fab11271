//! AnalysisService.

use std::sync::Arc;

use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::auth::caller_of;
use super::encoded::Framed;
use super::metrics::{deadline_of, fits};
use super::pb::analysis_service_server::AnalysisService;
use super::pb::{
    DetectBottlenecksRequest, DetectBottlenecksResponse, EvaluateSlosRequest, EvaluateSlosResponse,
    WatchBottlenecksRequest,
};
use super::ready::{self, Nothing};
use super::status::{scrape_failure, status_of};
use super::{convert_analysis, convert_instance, detect, pb};
use crate::agent::{Agent, BottleneckEvent, InstanceState};
use crate::analysis::ChangeKind;

/// AnalysisService over the agent.
#[derive(Debug, Clone)]
pub(super) struct AnalysisHandler(pub(super) Arc<Agent>);

#[tonic::async_trait]
impl AnalysisService for AnalysisHandler {
    async fn detect_bottlenecks(
        &self,
        request: Request<DetectBottlenecksRequest>,
    ) -> Result<Response<DetectBottlenecksResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let found = detect::answer(&self.0, &caller, request.into_inner(), deadline).await;
        let answer = found.map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    async fn evaluate_slos(
        &self,
        request: Request<EvaluateSlosRequest>,
    ) -> Result<Response<EvaluateSlosResponse>, Status> {
        let caller = caller_of(&request);
        let deadline = deadline_of(&request);
        let found = detect::evaluated(&self.0, &caller, request.into_inner(), deadline).await;
        let answer = found.map_err(|error| status_of(&error))?;
        fits(answer.encoded_len())?;
        Ok(Response::new(answer))
    }

    type WatchBottlenecksStream = Nothing<pb::WatchBottlenecksResponse>;

    async fn watch_bottlenecks(
        &self,
        request: Request<WatchBottlenecksRequest>,
    ) -> Result<Response<Self::WatchBottlenecksStream>, Status> {
        let request = request.into_inner();
        let labels = request.labels.into_iter().collect();
        let events = self.0.watch_bottlenecks(&request.instance_ids, labels);
        let events = events.map_err(|error| status_of(&error))?;
        Ok(ready::many(events.map(|event| Framed::of(&told(event)))))
    }
}

fn told(event: BottleneckEvent) -> pb::WatchBottlenecksResponse {
    use pb::BottleneckEvent as Event;
    let (event, state, bottleneck) = match event {
        BottleneckEvent::Current(state) => (Event::Current, state, None),
        BottleneckEvent::Missing(state) => (Event::Missing, state, None),
        BottleneckEvent::Change { state, change } => {
            let event = match change.kind {
                ChangeKind::Opened => Event::Opened,
                ChangeKind::Changed => Event::Changed,
                ChangeKind::Resolved => Event::Resolved,
            };
            (
                event,
                state,
                Some(convert_analysis::open(&change.bottleneck)),
            )
        }
        BottleneckEvent::Removed { instance_id } => {
            return pb::WatchBottlenecksResponse {
                event: Event::Removed.into(),
                instance_id: instance_id.to_string(),
                ..pb::WatchBottlenecksResponse::default()
            };
        }
        BottleneckEvent::Heartbeat => {
            return pb::WatchBottlenecksResponse {
                event: Event::Heartbeat.into(),
                ..pb::WatchBottlenecksResponse::default()
            };
        }
    };
    pb::WatchBottlenecksResponse {
        event: event.into(),
        bottleneck,
        ..how_it_is(&state)
    }
}

fn how_it_is(state: &InstanceState) -> pb::WatchBottlenecksResponse {
    let open = state.bottlenecks.open();
    pb::WatchBottlenecksResponse {
        instance_id: state.instance.id().to_owned(),
        state: convert_instance::health(state.health).into(),
        sequence: state.sequence,
        open: open.into_iter().map(convert_analysis::open).collect(),
        failure: state.failure().map(scrape_failure),
        window_end_time: convert_instance::window_end(state),
        simulated: state
            .latest
            .as_ref()
            .is_some_and(|latest| latest.diagnosed().simulated),
        ..pb::WatchBottlenecksResponse::default()
    }
}
