"""An agent that is not there, of which a test says when its streams break off: what a real one does only by chance."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from perfagent.v1 import workflow_pb2, workflow_pb2_grpc
from perfagent.v1.workflow_state_pb2 import WORKFLOW_STATUS_COMPLETED, Workflow, WorkflowEvent

WORKFLOW = "0197c1a2-6a51-7d58-8f64-2a0c1f7f2d10"
Context = grpc.ServicerContext


# what is abstract to the types is answered as not implemented
if TYPE_CHECKING:
    Servicer = object
else:
    Servicer = workflow_pb2_grpc.WorkflowServiceServicer


class FakeWorkflows(Servicer):
    """One workflow, whose log has so many events, every third revision of another workflow's."""

    def __init__(self, events: int) -> None:
        self.log = [
            WorkflowEvent(revision=revision, workflow_id=WORKFLOW, type="paused")
            for revision in range(1, events + 1)
            if revision % 3
        ]
        self.last = events
        self.breaks: list[tuple[int, str]] = []
        """Streams end after so many messages, for that reason; those after the last to the end."""
        self.oldest = 0
        """Events up to this revision are not kept."""
        self.requests: list[Any] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8))
        servicer = cast(workflow_pb2_grpc.WorkflowServiceServicer, self)
        workflow_pb2_grpc.add_WorkflowServiceServicer_to_server(servicer, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def took(self, request: Any) -> None:
        # the client's own may change while it is looked at
        copy = type(request)()
        copy.CopyFrom(request)
        with self._lock:
            self.requests.append(copy)

    def StartWorkflow(self, request: Any, context: Context) -> workflow_pb2.StartWorkflowResponse:
        self.took(request)
        return workflow_pb2.StartWorkflowResponse(workflow=Workflow(workflow_id=WORKFLOW))

    def GetWorkflow(self, request: Any, context: Context) -> workflow_pb2.GetWorkflowResponse:
        workflow = Workflow(workflow_id=request.workflow_id, status=WORKFLOW_STATUS_COMPLETED, done=True)
        return workflow_pb2.GetWorkflowResponse(workflow=workflow)

    def ApproveWorkflow(self, request: Any, context: Context) -> workflow_pb2.ApproveWorkflowResponse:
        self.took(request)
        return workflow_pb2.ApproveWorkflowResponse(workflow=Workflow(workflow_id=request.workflow_id))

    def ListWorkflowEvents(self, request: Any, context: Context) -> workflow_pb2.ListWorkflowEventsResponse:
        self.took(request)
        events = [event for event in self.log if event.revision > request.after_revision]
        return workflow_pb2.ListWorkflowEventsResponse(events=events, next_after_revision=self.last)

    def ListWorkflows(self, request: Any, context: Context) -> workflow_pb2.ListWorkflowsResponse:
        self.took(request)
        token = "second" if not request.page_token else ""
        workflow = Workflow(workflow_id=request.page_token or "first")
        return workflow_pb2.ListWorkflowsResponse(workflows=[workflow], next_page_token=token)

    def WatchWorkflow(self, request: Any, context: Context) -> Iterator[workflow_pb2.WatchWorkflowResponse]:
        return self._watch(request, context, workflow_pb2.WatchWorkflowResponse)

    def WatchWorkflows(self, request: Any, context: Context) -> Iterator[workflow_pb2.WatchWorkflowsResponse]:
        return self._watch(request, context, workflow_pb2.WatchWorkflowsResponse)

    def _watch(self, request: Any, context: Context, response: Any) -> Iterator[Any]:
        self.took(request)
        with self._lock:
            most, reason = self.breaks.pop(0) if self.breaks else (len(self.log) * 2 + 2, "")
        after = request.after_revision
        if 0 < after < self.oldest:
            refuse(context, grpc.StatusCode.OUT_OF_RANGE, "LOG_COMPACTED", {"oldest_revision": str(self.oldest)})
        messages = list(self._messages(after, request.include_snapshot, response))
        yield from messages[:most]
        if most <= len(messages):
            left = messages[most:]
            told = left[0].revision - 1 if left else self.last
            code = grpc.StatusCode.UNAVAILABLE
            if reason == "WATCHER_TOO_SLOW":
                code = grpc.StatusCode.RESOURCE_EXHAUSTED
            refuse(context, code, reason, {"revision": str(told)})

    def _messages(self, after: int, with_snapshot: bool, response: Any) -> Iterator[Any]:
        if with_snapshot and after == 0:
            yield response(revision=self.last, snapshot=Workflow(workflow_id=WORKFLOW))
            after = self.last
        for event in self.log:
            if event.revision > after:
                yield response(revision=event.revision, event=event)
                # nothing of this workflow happened up to the next revision
                yield response(revision=event.revision, bookmark=workflow_pb2.WatchBookmark(synced=True))


def refuse(context: Context, code: grpc.StatusCode, reason: str, metadata: Mapping[str, str]) -> None:
    """Ends a call as the agent does: with details, or without a reason as what lies between does."""
    if reason:
        status = Status(code=code.value[0], message="no")
        for detail in (
            ErrorInfo(reason=reason, domain="perfagent", metadata=metadata),
            RetryInfo(retry_delay=Duration(nanos=1_000_000)),
        ):
            status.details.add().Pack(detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "no")
