//! InstanceService.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::auth::caller_of;
use super::context::note_resource;
use super::convert_instance::{change_of, instance, spec_of};
use super::pb::instance_service_server::InstanceService;
use super::pb::{
    DeleteInstanceRequest, DeleteInstanceResponse, GetInstanceRequest, GetInstanceResponse,
    ListInstancesRequest, ListInstancesResponse, RegisterInstanceRequest, RegisterInstanceResponse,
    UpdateInstanceRequest, UpdateInstanceResponse,
};
use super::status::status_of;
use crate::agent::{Agent, Error, FieldViolation, InstanceState, LIMITS, Precondition};
use crate::edge::audit::OpenRecord;
use crate::store::StoreError;
use crate::units::hex;

/// InstanceService over the agent.
#[derive(Debug, Clone)]
pub(super) struct InstanceHandler(pub(super) Arc<Agent>);

#[tonic::async_trait]
impl InstanceService for InstanceHandler {
    async fn register_instance(
        &self,
        request: Request<RegisterInstanceRequest>,
    ) -> Result<Response<RegisterInstanceResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().instance_id);
        let (agent, means) = (self.0.clone(), caller.clone());
        let registered = carried_through(request, move |request| async move {
            let (spec, request_id) = spec_of(request)?;
            let args = spec.launch_args.clone();
            let state = agent.register_instance(&means, spec, &request_id).await?;
            Ok((hidden(&agent, &state, &args), state))
        });
        let (hidden_launch_args, state) = registered.await?;
        Ok(Response::new(RegisterInstanceResponse {
            instance: Some(instance(&state, &caller)),
            hidden_launch_args,
        }))
    }

    async fn get_instance(
        &self,
        request: Request<GetInstanceRequest>,
    ) -> Result<Response<GetInstanceResponse>, Status> {
        let caller = caller_of(&request);
        let found = self.0.instance(&request.get_ref().instance_id);
        let state = found.map_err(|error| status_of(&error))?;
        Ok(Response::new(GetInstanceResponse {
            instance: Some(instance(&state, &caller)),
        }))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let caller = caller_of(&request);
        let request = request.into_inner();
        let after = page_start(&request.page_token).map_err(|error| status_of(&error))?;
        let size = match request.page_size {
            0 => DEFAULT_PAGE,
            size => usize::try_from(size).unwrap_or(MAX_PAGE).min(MAX_PAGE),
        };
        let labels: BTreeMap<String, String> = request.labels.into_iter().collect();
        let page = self.0.instances(&labels, &after, size);
        let page = page.map_err(|error| status_of(&error))?;
        let mut answer = ListInstancesResponse::default();
        let mut more = page.more;
        for state in &page.instances {
            let next = instance(state, &caller);
            // with room for the token
            let room = LIMITS.response_bytes - PAGE_MARGIN_BYTES;
            if answer.encoded_len() + next.encoded_len() > room && !answer.instances.is_empty() {
                more = true;
                break;
            }
            answer.instances.push(next);
        }
        if let Some(last) = answer.instances.last().filter(|_| more) {
            answer.next_page_token = page_token(&last.instance_id);
        }
        Ok(Response::new(answer))
    }

    async fn update_instance(
        &self,
        request: Request<UpdateInstanceRequest>,
    ) -> Result<Response<UpdateInstanceResponse>, Status> {
        let caller = caller_of(&request);
        if let Some(instance) = &request.get_ref().instance {
            note_resource(&request, &instance.instance_id);
        }
        let (agent, means) = (self.0.clone(), caller.clone());
        let updated = carried_through(request, move |request| async move {
            let (id, change, precondition) = change_of(request)?;
            let args = change.launch_args.clone().unwrap_or_default();
            let state = agent
                .update_instance(&means, &id, change, &precondition)
                .await?;
            Ok((hidden(&agent, &state, &args), state))
        });
        let (hidden_launch_args, state) = updated.await?;
        Ok(Response::new(UpdateInstanceResponse {
            instance: Some(instance(&state, &caller)),
            hidden_launch_args,
        }))
    }

    async fn delete_instance(
        &self,
        request: Request<DeleteInstanceRequest>,
    ) -> Result<Response<DeleteInstanceResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().instance_id);
        let agent = self.0.clone();
        let deleted = carried_through(request, move |request| async move {
            let precondition = Precondition {
                etag: request.etag,
                request_id: request.request_id,
            };
            agent
                .delete_instance(&caller, &request.instance_id, &precondition)
                .await
        });
        deleted.await?;
        Ok(Response::new(DeleteInstanceResponse {}))
    }
}

/// Flags of declared launch arguments whose values were not kept of an instance.
fn hidden(agent: &Agent, state: &InstanceState, args: &[String]) -> Vec<String> {
    let engine = state.instance.spec.instance_type.as_deref();
    agent.hidden_launch_args(engine, args)
}

/// Carries out a change to its end, whether or not the caller waits for it, and has the audit log say what became of it.
pub(super) async fn carried_through<M, T, F>(
    request: Request<M>,
    change: impl FnOnce(M) -> F,
) -> Result<T, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let record = request.extensions().get::<Arc<OpenRecord>>().cloned();
    let change = change(request.into_inner());
    let carried_out = tokio::spawn(async move {
        let done = change.await.map_err(|error| status_of(&error));
        if let Some(record) = record {
            let code = done.as_ref().err().map_or(Code::Ok, Status::code);
            record.done(super::observe::name(code));
        }
        done
    });
    carried_out.await.unwrap_or_else(|error| {
        let broken = StoreError::Unavailable(format!("the change was broken off: {error}"));
        Err(status_of(&broken.into()))
    })
}

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 500;
const PAGE_MARGIN_BYTES: usize = 1_024;

/// A token that begins the page after this id.
pub(super) fn page_token(id: &str) -> String {
    hex(id.as_bytes())
}

/// The id that a page begins after.
pub(super) fn page_start(token: &str) -> Result<String, Error> {
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = token.as_bytes().chunks(2).map(byte).collect();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    id.filter(|id| page_token(id) == token).ok_or_else(|| {
        let description = "must be next_page_token of an answer, or empty";
        Error::Invalid(vec![FieldViolation::new("page_token", description)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back() {
        for id in ["", "a", "vllm-1.x"] {
            assert_eq!(page_start(&page_token(id)), Ok(id.to_owned()));
        }
        for token in ["6", "zz", "+1", "ff", "6A", "é"] {
            assert!(page_start(token).is_err(), "{token}");
        }
    }
}
