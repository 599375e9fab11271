"""Requests about workflows from Python values, and where a watch of them goes on: one place for both clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from perfagent._requests import Settings, Span, duration, new_request_id, settings_of
from perfagent.errors import PerfagentError
from perfagent.v1 import workflow_pb2
from perfagent.v1.workflow_state_pb2 import Workflow, WorkflowCanary, WorkflowGate, WorkflowStatus, WorkflowType

_DRY_RUN_WAIT: Final = 60.0
"""Seconds that an agent waits for the plan of a dry run where no other time is given."""

WatchRequest = TypeVar("WatchRequest", workflow_pb2.WatchWorkflowRequest, workflow_pb2.WatchWorkflowsRequest)
WatchResponse = TypeVar("WatchResponse", workflow_pb2.WatchWorkflowResponse, workflow_pb2.WatchWorkflowsResponse)


def start(
    instance_id: str,
    instance_type: str,
    workflow_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    changes: Settings | None,
    snapshot_id: str,
    optimization_id: str,
    no_restart: bool,
    no_answer_change: bool,
    auto_approve: bool,
    gate: WorkflowGate | None,
    canary: WorkflowCanary | None,
    plan_timeout: Span | None,
    ready_timeout: Span | None,
    observe_timeout: Span | None,
    rollback_timeout: Span | None,
    note: str,
    wait: Span | None,
    validate_only: bool,
    request_id: str | None,
) -> workflow_pb2.StartWorkflowRequest:
    if isinstance(metrics_urls, str):
        raise TypeError("give a list of strings, not one string")
    return workflow_pb2.StartWorkflowRequest(
        request_id=request_id or new_request_id(),
        instance_id=instance_id,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=metrics_urls,
        workflow_type=workflow_type,
        changes=settings_of(changes),
        snapshot_id=snapshot_id,
        optimization_id=optimization_id,
        no_restart=no_restart,
        no_answer_change=no_answer_change,
        auto_approve=auto_approve,
        gate=gate,
        canary=canary,
        plan_timeout=duration(plan_timeout),
        ready_timeout=duration(ready_timeout),
        observe_timeout=duration(observe_timeout),
        rollback_timeout=duration(rollback_timeout),
        note=note,
        wait=duration(wait),
        validate_only=validate_only,
    )


def wait_seconds(request: workflow_pb2.StartWorkflowRequest | workflow_pb2.ListWorkflowEventsRequest) -> float:
    """How long the agent holds its answer back."""
    if request.HasField("wait"):
        return request.wait.ToTimedelta().total_seconds()
    is_dry = isinstance(request, workflow_pb2.StartWorkflowRequest) and request.validate_only
    return _DRY_RUN_WAIT if is_dry else 0.0


def page(
    instance_id: str,
    statuses: Sequence[WorkflowStatus.ValueType],
    workflow_type: WorkflowType.ValueType,
    page_size: int,
    page_token: str,
) -> workflow_pb2.ListWorkflowsRequest:
    return workflow_pb2.ListWorkflowsRequest(
        page_size=page_size,
        page_token=page_token,
        instance_id=instance_id,
        statuses=statuses,
        workflow_type=workflow_type,
    )


def approve(
    workflow: str | Workflow, plan_etag: str, note: str, request_id: str | None
) -> workflow_pb2.ApproveWorkflowRequest:
    read = "" if isinstance(workflow, str) else workflow.plan.etag
    return workflow_pb2.ApproveWorkflowRequest(
        request_id=request_id or new_request_id(),
        workflow_id=id_of(workflow),
        plan_etag=plan_etag or read,
        note=note,
    )


def id_of(workflow: str | Workflow) -> str:
    return workflow if isinstance(workflow, str) else workflow.workflow_id


def events(
    workflow: str | Workflow, instance_id: str, after_revision: int, page_size: int, wait: Span | None
) -> workflow_pb2.ListWorkflowEventsRequest:
    return workflow_pb2.ListWorkflowEventsRequest(
        workflow_id=id_of(workflow),
        instance_id=instance_id,
        after_revision=after_revision,
        page_size=page_size,
        wait=duration(wait),
    )


def moving(request: WatchRequest, bookmarks: bool) -> Callable[[WatchResponse], bool]:
    """Moves the request on with each message, so that another attempt begins after it; whether the message is shown."""

    def shown(message: WatchResponse) -> bool:
        request.after_revision = max(request.after_revision, message.revision)
        return bookmarks or message.WhichOneof("told") != "bookmark"

    return shown


def broken_off(request: WatchRequest) -> Callable[[PerfagentError], None]:
    """Where a watch that broke off before its first message goes on: what happens meanwhile is not to be missed."""

    def broke(failure: PerfagentError) -> None:
        told = failure.metadata.get("revision", "")
        if request.after_revision == 0 and not request.include_snapshot and told.isdecimal():
            request.after_revision = int(told)

    return broke
