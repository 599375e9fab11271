"""Workflows: plan a change, approve it, look on, and take it back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from perfagent import _contract as contract
from perfagent import _workflow_requests as requests
from perfagent._calls import Caller
from perfagent._requests import Settings, Span, new_request_id
from perfagent._watch import Watch
from perfagent.errors import OutOfRange
from perfagent.v1 import workflow_pb2
from perfagent.v1.workflow_state_pb2 import (
    WORKFLOW_TYPE_UNSPECIFIED,
    ConfigSnapshot,
    Workflow,
    WorkflowCanary,
    WorkflowGate,
    WorkflowStatus,
    WorkflowType,
)


class WorkflowCalls(Caller):
    """Calls of WorkflowService."""

    def start_workflow(
        self,
        instance_id: str,
        instance_type: str = "",
        workflow_type: str = "",
        *,
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        changes: Settings | None = None,
        snapshot_id: str = "",
        optimization_id: str = "",
        no_restart: bool = False,
        no_answer_change: bool = False,
        auto_approve: bool = False,
        gate: WorkflowGate | None = None,
        canary: WorkflowCanary | None = None,
        plan_timeout: Span | None = None,
        ready_timeout: Span | None = None,
        observe_timeout: Span | None = None,
        rollback_timeout: Span | None = None,
        note: str = "",
        wait: Span | None = None,
        validate_only: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Workflow:
        """Starts a workflow on a registered instance, or with `metrics_url` on one that is registered with it::

            workflow = client.start_workflow("vllm-1", wait=60)

        `workflow_type` is `optimization` (the default), `config_change` with `changes` such as `{"max_num_seqs": 64}`,
        `restore` with `snapshot_id`, or `analysis`. With `wait`, at most 60 seconds, it is answered when the plan is ready;
        else at once. `validate_only` starts nothing and answers with the workflow as it would be. `canary` says how the
        change goes out to a part of the replicas first. A request id is made where none is given, so that a retry starts
        it once."""
        request = requests.start(
            instance_id,
            instance_type,
            workflow_type,
            metrics_url,
            metrics_urls,
            changes,
            snapshot_id,
            optimization_id,
            no_restart,
            no_answer_change,
            auto_approve,
            gate,
            canary,
            plan_timeout,
            ready_timeout,
            observe_timeout,
            rollback_timeout,
            note,
            wait,
            validate_only,
            request_id,
        )
        seconds = requests.wait_seconds(request)
        return self._unary(
            self._workflows.StartWorkflow, contract.START_WORKFLOW, request, timeout, seconds
        ).workflow

    def get_workflow(self, workflow_id: str, *, timeout: float | None = None) -> Workflow:
        """A workflow as it is now."""
        request = workflow_pb2.GetWorkflowRequest(workflow_id=workflow_id)
        return self._unary(self._workflows.GetWorkflow, contract.GET_WORKFLOW, request, timeout).workflow

    def list_workflows(
        self,
        *,
        instance_id: str = "",
        statuses: Sequence[WorkflowStatus.ValueType] = (),
        workflow_type: WorkflowType.ValueType = WORKFLOW_TYPE_UNSPECIFIED,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Workflow]:
        """Workflows, the newest first, fetched a page at a time; plans and effects are in `get_workflow`. `timeout` is of
        each page."""
        token = ""
        while True:
            request = requests.page(instance_id, statuses, workflow_type, page_size, token)
            answer = self._unary(self._workflows.ListWorkflows, contract.LIST_WORKFLOWS, request, timeout)
            yield from answer.workflows
            token = answer.next_page_token
            if not token:
                return

    def approve_workflow(
        self,
        workflow: str | Workflow,
        plan_etag: str = "",
        *,
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Workflow:
        """Agrees to the plan of `plan_etag`; of a workflow as it was read, to the plan that it has. `Aborted`, with reason
        PLAN_CHANGED, is raised where the plan is another one by now. An id without an etag agrees to the plan as it is."""
        request = requests.approve(workflow, plan_etag, note, request_id)
        return self._unary(self._workflows.ApproveWorkflow, contract.APPROVE_WORKFLOW, request, timeout).workflow

    def reject_workflow(
        self, workflow_id: str, *, note: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> Workflow:
        """Refuses the plan, which ends the workflow."""
        request = workflow_pb2.RejectWorkflowRequest(
            request_id=request_id or new_request_id(), workflow_id=workflow_id, note=note
        )
        return self._unary(self._workflows.RejectWorkflow, contract.REJECT_WORKFLOW, request, timeout).workflow

    def pause_workflow(
        self, workflow_id: str, *, note: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> Workflow:
        """Lets it stand still; what it has begun is brought to its end first."""
        request = workflow_pb2.PauseWorkflowRequest(
            request_id=request_id or new_request_id(), workflow_id=workflow_id, note=note
        )
        return self._unary(self._workflows.PauseWorkflow, contract.PAUSE_WORKFLOW, request, timeout).workflow

    def resume_workflow(
        self, workflow_id: str, *, note: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> Workflow:
        """Lets it go on."""
        request = workflow_pb2.ResumeWorkflowRequest(
            request_id=request_id or new_request_id(), workflow_id=workflow_id, note=note
        )
        return self._unary(self._workflows.ResumeWorkflow, contract.RESUME_WORKFLOW, request, timeout).workflow

    def cancel_workflow(
        self,
        workflow_id: str,
        *,
        acknowledge: bool = False,
        note: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Workflow:
        """Ends it: at once where nothing was changed, else by restoring what was. With `acknowledge` one whose rollback
        failed leaves settings as they are and unlocks its instance."""
        request = workflow_pb2.CancelWorkflowRequest(
            request_id=request_id or new_request_id(), workflow_id=workflow_id, acknowledge=acknowledge, note=note
        )
        return self._unary(self._workflows.CancelWorkflow, contract.CANCEL_WORKFLOW, request, timeout).workflow

    def rollback_workflow(
        self, workflow_id: str, *, note: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> Workflow:
        """Restores the settings from before, byte for byte; of one that has completed, too, where nobody has changed them
        since. `wait_for_completion` then waits until they are in force."""
        request = workflow_pb2.RollbackWorkflowRequest(
            request_id=request_id or new_request_id(), workflow_id=workflow_id, note=note
        )
        return self._unary(self._workflows.RollbackWorkflow, contract.ROLLBACK_WORKFLOW, request, timeout).workflow

    def watch_workflow(
        self,
        workflow_id: str,
        *,
        after_revision: int = 0,
        include_snapshot: bool = False,
        bookmarks: bool = False,
        timeout: float | None = None,
        give_up_after: float | None = None,
    ) -> Watch[workflow_pb2.WatchWorkflowResponse]:
        """Each event of a workflow from its first, or after a revision; it ends when the workflow has ended::

            with client.watch_workflow(workflow.workflow_id) as watch:
                for message in watch:
                    print(message.event.type, message.event.message)

        With `include_snapshot` the workflow as it is comes first, and then what happens after it. A watch that breaks off
        goes on after the last revision, without gap or duplicate, also when the agent was started anew. `OutOfRange` is
        raised where events that were missed are not kept any more. `bookmarks` shows the messages, too, that tell only a
        revision. `timeout` and `give_up_after` are as of `watch_metrics`."""
        request = workflow_pb2.WatchWorkflowRequest(
            workflow_id=workflow_id, after_revision=after_revision, include_snapshot=include_snapshot
        )
        shown = requests.moving(request, bookmarks)
        return self._watch(self._workflows.WatchWorkflow, request, timeout, give_up_after, shown)

    def watch_workflows(
        self,
        *,
        instance_id: str = "",
        after_revision: int = 0,
        include_snapshot: bool = False,
        bookmarks: bool = False,
        timeout: float | None = None,
        give_up_after: float | None = None,
    ) -> Watch[workflow_pb2.WatchWorkflowsResponse]:
        """Each event of all workflows, or of those of an instance, from now on or after a revision. It resumes as
        `watch_workflow` does, and ends when it is cancelled. With `include_snapshot` all workflows that have not ended come
        first; they come again where the watch breaks off before the last of them."""
        request = workflow_pb2.WatchWorkflowsRequest(
            instance_id=instance_id, after_revision=after_revision, include_snapshot=include_snapshot
        )
        shown, broke = requests.moving(request, bookmarks), requests.broken_off(request)
        return self._watch(self._workflows.WatchWorkflows, request, timeout, give_up_after, shown, broke)

    def wait_for_completion(
        self, workflow_id: str, *, timeout: float | None = None, give_up_after: float | None = None
    ) -> Workflow:
        """The workflow once it has ended, in whatever way: `status` and `outcome` say how. `DeadlineExceeded` is raised
        after `timeout` seconds; the workflow goes on."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            watch = self.watch_workflow(workflow_id, include_snapshot=True, timeout=left, give_up_after=give_up_after)
            try:
                with watch:
                    for _ in watch:
                        pass
                return self.get_workflow(workflow_id)
            except OutOfRange:
                # only how it ends matters here, and not what led to it
                continue

    def list_workflow_events(
        self,
        workflow: str | Workflow = "",
        *,
        instance_id: str = "",
        after_revision: int = 0,
        page_size: int = 0,
        wait: Span | None = None,
        timeout: float | None = None,
    ) -> workflow_pb2.ListWorkflowEventsResponse:
        """A page of what happened, in order: to a workflow, on an instance, or at all. With `wait`, at most 60 seconds, it
        is answered when there is something after the revision."""
        request = requests.events(workflow, instance_id, after_revision, page_size, wait)
        seconds = requests.wait_seconds(request)
        return self._unary(
            self._workflows.ListWorkflowEvents, contract.LIST_WORKFLOW_EVENTS, request, timeout, seconds
        )

    def create_config_snapshot(
        self, instance_id: str, *, note: str = "", timeout: float | None = None
    ) -> ConfigSnapshot:
        """Keeps the settings of an instance as they are, for a workflow of type `restore`."""
        request = workflow_pb2.CreateConfigSnapshotRequest(instance_id=instance_id, note=note)
        return self._unary(
            self._workflows.CreateConfigSnapshot, contract.CREATE_CONFIG_SNAPSHOT, request, timeout
        ).snapshot

    def list_config_snapshots(
        self, *, instance_id: str = "", page_size: int = 0, timeout: float | None = None
    ) -> Iterator[ConfigSnapshot]:
        """Kept settings, the newest first, fetched a page at a time. `timeout` is of each page."""
        token = ""
        while True:
            request = workflow_pb2.ListConfigSnapshotsRequest(
                instance_id=instance_id, page_size=page_size, page_token=token
            )
            answer = self._unary(
                self._workflows.ListConfigSnapshots, contract.LIST_CONFIG_SNAPSHOTS, request, timeout
            )
            yield from answer.snapshots
            token = answer.next_page_token
            if not token:
                return
