//! WebhookService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::auth::caller_of;
use super::context::note_resource;
use super::convert_webhook as convert;
use super::instances::{carried_through, page_start, page_token};
use super::pb;
use super::pb::webhook_service_server::WebhookService;
use super::status::status_of;
use super::workflow::{as_many_as_fit, sized};
use crate::agent::{Agent, Error, FieldViolation};

/// WebhookService over the agent.
#[derive(Debug, Clone)]
pub(super) struct WebhookHandler(pub(super) Arc<Agent>);

const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

#[tonic::async_trait]
impl WebhookService for WebhookHandler {
    async fn create_webhook(
        &self,
        request: Request<pb::CreateWebhookRequest>,
    ) -> Result<Response<pb::CreateWebhookResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().webhook_id);
        let (agent, means) = (self.0.clone(), caller.clone());
        let created = carried_through(request, move |request| async move {
            let (spec, secret, request_id) = convert::spec_of(request)?;
            agent
                .create_webhook(&means, spec, secret, &request_id)
                .await
        });
        let created = created.await?;
        Ok(Response::new(pb::CreateWebhookResponse {
            webhook: Some(convert::webhook(&created.webhook, &caller)),
            secret: created.secret.expose().to_owned(),
        }))
    }

    async fn get_webhook(
        &self,
        request: Request<pb::GetWebhookRequest>,
    ) -> Result<Response<pb::GetWebhookResponse>, Status> {
        let caller = caller_of(&request);
        let found = self.0.webhook(&request.get_ref().webhook_id).await;
        let webhook = found.map_err(told)?;
        Ok(Response::new(pb::GetWebhookResponse {
            webhook: Some(convert::webhook(&webhook, &caller)),
        }))
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        let caller = caller_of(&request);
        let all = self.0.all_webhooks().await.map_err(told)?;
        let webhooks = all.iter().map(|one| convert::webhook(one, &caller));
        Ok(Response::new(pb::ListWebhooksResponse {
            webhooks: webhooks.collect(),
        }))
    }

    async fn enable_webhook(
        &self,
        request: Request<pb::EnableWebhookRequest>,
    ) -> Result<Response<pb::EnableWebhookResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().webhook_id);
        let agent = self.0.clone();
        let enabled = carried_through(request, move |request| async move {
            agent.enable_webhook(&request.webhook_id).await
        });
        Ok(Response::new(pb::EnableWebhookResponse {
            webhook: Some(convert::webhook(&enabled.await?, &caller)),
        }))
    }

    async fn disable_webhook(
        &self,
        request: Request<pb::DisableWebhookRequest>,
    ) -> Result<Response<pb::DisableWebhookResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().webhook_id);
        let agent = self.0.clone();
        let disabled = carried_through(request, move |request| async move {
            agent.disable_webhook(&request.webhook_id).await
        });
        Ok(Response::new(pb::DisableWebhookResponse {
            webhook: Some(convert::webhook(&disabled.await?, &caller)),
        }))
    }

    async fn delete_webhook(
        &self,
        request: Request<pb::DeleteWebhookRequest>,
    ) -> Result<Response<pb::DeleteWebhookResponse>, Status> {
        note_resource(&request, &request.get_ref().webhook_id);
        let agent = self.0.clone();
        let deleted = carried_through(request, move |request| async move {
            agent.delete_webhook(&request.webhook_id).await
        });
        deleted.await?;
        Ok(Response::new(pb::DeleteWebhookResponse {}))
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<pb::RotateWebhookSecretRequest>,
    ) -> Result<Response<pb::RotateWebhookSecretResponse>, Status> {
        let caller = caller_of(&request);
        note_resource(&request, &request.get_ref().webhook_id);
        let (agent, means) = (self.0.clone(), caller.clone());
        let rotated = carried_through(request, move |request| async move {
            let secret = convert::secret_of(&request.secret);
            let secret = secret.map_err(|violation| Error::Invalid(vec![violation]))?;
            let (id, request_id) = (&request.webhook_id, &request.request_id);
            agent
                .rotate_webhook_secret(&means, id, secret, request_id)
                .await
        });
        let rotated = rotated.await?;
        Ok(Response::new(pb::RotateWebhookSecretResponse {
            webhook: Some(convert::webhook(&rotated.webhook, &caller)),
            secret: rotated.secret.expose().to_owned(),
        }))
    }

    async fn test_webhook(
        &self,
        request: Request<pb::TestWebhookRequest>,
    ) -> Result<Response<pb::TestWebhookResponse>, Status> {
        note_resource(&request, &request.get_ref().webhook_id);
        let tested = self.0.test_webhook(&request.get_ref().webhook_id).await;
        let attempt = tested.map_err(told)?;
        Ok(Response::new(pb::TestWebhookResponse {
            attempt: Some(convert::attempt(&attempt)),
        }))
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<pb::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<pb::ListWebhookDeliveriesResponse>, Status> {
        let request = request.into_inner();
        let filter = convert::filter_of(&request).map_err(told)?;
        let before = place_of(&request.page_token).map_err(told)?;
        let size = sized(request.page_size, DEFAULT_PAGE, MAX_PAGE);
        let page = self.0.webhook_deliveries(&filter, before, size).await;
        let page = page.map_err(told)?;
        let (deliveries, cut) = as_many_as_fit(page.deliveries.iter().map(convert::delivery));
        let last = page.deliveries.get(deliveries.len().saturating_sub(1));
        let last = last.filter(|_| page.more || cut);
        Ok(Response::new(pb::ListWebhookDeliveriesResponse {
            next_page_token: last
                .map_or_else(String::new, |last| page_token(&last.place.to_string())),
            deliveries,
        }))
    }

    async fn get_webhook_delivery(
        &self,
        request: Request<pb::GetWebhookDeliveryRequest>,
    ) -> Result<Response<pb::GetWebhookDeliveryResponse>, Status> {
        let found = self
            .0
            .webhook_delivery(&request.get_ref().delivery_id)
            .await;
        let (delivery, attempts) = found.map_err(told)?;
        Ok(Response::new(pb::GetWebhookDeliveryResponse {
            delivery: Some(convert::delivery(&delivery)),
            attempts: attempts.iter().map(convert::attempt).collect(),
        }))
    }

    async fn redeliver_webhook(
        &self,
        request: Request<pb::RedeliverWebhookRequest>,
    ) -> Result<Response<pb::RedeliverWebhookResponse>, Status> {
        note_resource(&request, &request.get_ref().delivery_id);
        let agent = self.0.clone();
        let asked = carried_through(request, move |request| async move {
            agent.redeliver(&request.delivery_id).await
        });
        Ok(Response::new(pb::RedeliverWebhookResponse {
            delivery: Some(convert::delivery(&asked.await?)),
        }))
    }
}

fn told(error: Error) -> Status {
    status_of(&error)
}

/// The place that a page begins before; none for the first.
fn place_of(token: &str) -> Result<Option<u64>, Error> {
    let text = page_start(token)?;
    match (text.is_empty(), text.parse()) {
        (true, _) => Ok(None),
        (false, Ok(place)) => Ok(Some(place)),
        (false, Err(_)) => {
            let why = "must be next_page_token of an answer, or empty";
            Err(Error::Invalid(vec![FieldViolation::new("page_token", why)]))
        }
    }
}
