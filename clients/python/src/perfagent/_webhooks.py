"""Webhooks: be told of what happens, and see what came of the telling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from perfagent import _contract as contract
from perfagent._requests import new_request_id
from perfagent._workflows import WorkflowCalls
from perfagent.v1 import webhook_pb2
from perfagent.v1.bottleneck_pb2 import SEVERITY_UNSPECIFIED, Severity
from perfagent.v1.webhook_pb2 import (
    WEBHOOK_DELIVERY_STATE_UNSPECIFIED,
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookDeliveryState,
)


class WebhookCalls(WorkflowCalls):
    """Calls of WebhookService."""

    def create_webhook(
        self,
        webhook_id: str,
        url: str,
        types: Sequence[str] = (),
        *,
        instance_ids: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        min_severity: Severity.ValueType = SEVERITY_UNSPECIFIED,
        description: str = "",
        secret: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> webhook_pb2.CreateWebhookResponse:
        """Creates a webhook. The answer's `secret` is shown by no other call; the receiver verifies deliveries with it.
        `types` is `workflow.status_changed` where none is given."""
        request = webhook_pb2.CreateWebhookRequest(
            request_id=request_id or new_request_id(),
            webhook_id=webhook_id,
            url=url,
            types=types,
            instance_ids=instance_ids,
            labels=labels,
            min_severity=min_severity,
            description=description,
            secret=secret,
        )
        return self._unary(self._webhooks.CreateWebhook, contract.CREATE_WEBHOOK, request, timeout)

    def get_webhook(self, webhook_id: str, *, timeout: float | None = None) -> Webhook:
        """A webhook and how it is."""
        request = webhook_pb2.GetWebhookRequest(webhook_id=webhook_id)
        return self._unary(self._webhooks.GetWebhook, contract.GET_WEBHOOK, request, timeout).webhook

    def list_webhooks(self, *, timeout: float | None = None) -> Sequence[Webhook]:
        """All webhooks, by id."""
        request = webhook_pb2.ListWebhooksRequest()
        return self._unary(self._webhooks.ListWebhooks, contract.LIST_WEBHOOKS, request, timeout).webhooks

    def enable_webhook(self, webhook_id: str, *, timeout: float | None = None) -> Webhook:
        """Has it be told again, at once of what it is owed."""
        request = webhook_pb2.EnableWebhookRequest(webhook_id=webhook_id)
        return self._unary(self._webhooks.EnableWebhook, contract.ENABLE_WEBHOOK, request, timeout).webhook

    def disable_webhook(self, webhook_id: str, *, timeout: float | None = None) -> Webhook:
        """Has it be told nothing more."""
        request = webhook_pb2.DisableWebhookRequest(webhook_id=webhook_id)
        return self._unary(self._webhooks.DisableWebhook, contract.DISABLE_WEBHOOK, request, timeout).webhook

    def delete_webhook(self, webhook_id: str, *, timeout: float | None = None) -> None:
        """Forgets it with what it is owed."""
        request = webhook_pb2.DeleteWebhookRequest(webhook_id=webhook_id)
        self._unary(self._webhooks.DeleteWebhook, contract.DELETE_WEBHOOK, request, timeout)

    def rotate_webhook_secret(
        self, webhook_id: str, secret: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> str:
        """Gives it a new secret, and answers with it. For 24 hours deliveries are signed with the one before as well."""
        request = webhook_pb2.RotateWebhookSecretRequest(
            request_id=request_id or new_request_id(), webhook_id=webhook_id, secret=secret
        )
        return self._unary(
            self._webhooks.RotateWebhookSecret, contract.ROTATE_WEBHOOK_SECRET, request, timeout
        ).secret

    def test_webhook(self, webhook_id: str, *, timeout: float | None = None) -> WebhookAttempt:
        """Posts a signed ping, and says what came of it: see `taken`."""
        request = webhook_pb2.TestWebhookRequest(webhook_id=webhook_id)
        return self._unary(self._webhooks.TestWebhook, contract.TEST_WEBHOOK, request, timeout).attempt

    def list_webhook_deliveries(
        self,
        *,
        webhook_id: str = "",
        workflow_id: str = "",
        instance_id: str = "",
        state: WebhookDeliveryState.ValueType = WEBHOOK_DELIVERY_STATE_UNSPECIFIED,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[WebhookDelivery]:
        """Deliveries, the newest first, fetched a page at a time. `timeout` is of each page."""
        token = ""
        while True:
            request = webhook_pb2.ListWebhookDeliveriesRequest(
                page_size=page_size,
                page_token=token,
                webhook_id=webhook_id,
                workflow_id=workflow_id,
                instance_id=instance_id,
                state=state,
            )
            answer = self._unary(
                self._webhooks.ListWebhookDeliveries, contract.LIST_WEBHOOK_DELIVERIES, request, timeout
            )
            yield from answer.deliveries
            token = answer.next_page_token
            if not token:
                return

    def get_webhook_delivery(
        self, delivery_id: str, *, timeout: float | None = None
    ) -> webhook_pb2.GetWebhookDeliveryResponse:
        """A delivery with its attempts."""
        request = webhook_pb2.GetWebhookDeliveryRequest(delivery_id=delivery_id)
        return self._unary(self._webhooks.GetWebhookDelivery, contract.GET_WEBHOOK_DELIVERY, request, timeout)

    def redeliver_webhook(self, delivery_id: str, *, timeout: float | None = None) -> WebhookDelivery:
        """Has it tried again from the beginning of the schedule, under the same id."""
        request = webhook_pb2.RedeliverWebhookRequest(delivery_id=delivery_id)
        return self._unary(self._webhooks.RedeliverWebhook, contract.REDELIVER_WEBHOOK, request, timeout).delivery
