"""Workflows: requests as they should be, and watches that go on where they broke off."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import perfagent
from conftest import Connect
from support.workflows import WORKFLOW, FakeWorkflows


@pytest.fixture
def fake() -> Iterator[FakeWorkflows]:
    with FakeWorkflows(events=60) as fake:
        yield fake


REASONS = ["STREAM_LIFETIME", "DRAINING", "WATCHER_TOO_SLOW", ""]


@pytest.mark.parametrize("seed", range(4))
def test_a_watch_that_breaks_off_has_neither_gap_nor_duplicate(connect: Connect, fake: FakeWorkflows, seed: int) -> None:
    chance = random.Random(seed)
    # the first has to be heard of, else a wrong address would be waited for
    fake.breaks = [(chance.randint(1, 12), chance.choice(REASONS)) for _ in range(8)]
    with connect(fake.address).watch_workflow(WORKFLOW) as watch:
        told = [message.event.revision for message in watch]
        assert watch.resumed == 8
    assert told == [event.revision for event in fake.log]
    # each begins after what was read of the one before
    afters = [request.after_revision for request in fake.requests]
    assert afters == sorted(afters) and len(afters) == 9


def test_a_watch_of_all_goes_on_too(connect: Connect, fake: FakeWorkflows) -> None:
    fake.breaks = [(5, "DRAINING"), (0, "STREAM_LIFETIME"), (7, "")]
    with connect(fake.address).watch_workflows(after_revision=1) as watch:
        told = [message.event.revision for message in watch]
    assert told == [event.revision for event in fake.log if event.revision > 1]


def test_what_happens_before_the_first_message_is_not_missed(connect: Connect, fake: FakeWorkflows) -> None:
    # from now on, which is revision 0 here; the agent says up to where nothing is left to tell
    fake.breaks = [(0, "STREAM_LIFETIME")]
    fake.log = fake.log[10:]
    first = fake.log[0].revision
    with connect(fake.address).watch_workflows() as watch:
        assert next(watch).event.revision == first
    assert [request.after_revision for request in fake.requests] == [0, first - 1]


def test_a_snapshot_comes_once(connect: Connect, fake: FakeWorkflows) -> None:
    fake.breaks = [(1, "DRAINING")]
    with connect(fake.address).watch_workflow(WORKFLOW, include_snapshot=True) as watch:
        told = list(watch)
    assert [message.WhichOneof("told") for message in told] == ["snapshot"]
    assert [request.after_revision for request in fake.requests] == [0, 60]


def test_bookmarks_are_shown_when_asked_for(connect: Connect, fake: FakeWorkflows) -> None:
    with connect(fake.address).watch_workflow(WORKFLOW, bookmarks=True) as watch:
        kinds = {message.WhichOneof("told") for message in watch}
    assert kinds == {"event", "bookmark"}


def test_events_that_are_not_kept_are_said_to_be_missed(connect: Connect, fake: FakeWorkflows) -> None:
    fake.breaks = [(3, "DRAINING")]
    with connect(fake.address).watch_workflow(WORKFLOW) as watch:
        next(watch)
        fake.oldest = 30
        with pytest.raises(perfagent.OutOfRange) as gone:
            list(watch)
    assert gone.value.reason == "LOG_COMPACTED" and gone.value.metadata["oldest_revision"] == "30"


def test_completion_is_waited_for_whatever_breaks(connect: Connect, fake: FakeWorkflows) -> None:
    fake.breaks = [(1, "DRAINING"), (1, "STREAM_LIFETIME")]
    # what was between is not kept any more the first time, which does not matter here
    fake.oldest = 100
    client = connect(fake.address)
    ended = client.wait_for_completion(WORKFLOW)
    assert ended.done and ended.status == perfagent.WorkflowStatus.WORKFLOW_STATUS_COMPLETED
    assert [request.after_revision for request in fake.requests][:3] == [0, 60, 0]


def test_a_start_says_all_that_it_is_told(connect: Connect, fake: FakeWorkflows) -> None:
    client = connect(fake.address)
    gate = perfagent.WorkflowGate(approvals=2)
    changes = {"max_num_seqs": 64, "quantization": None, "enforce_eager": True}
    started = client.start_workflow(
        "vllm-1", "vllm", "config_change", changes=changes, gate=gate, ready_timeout=90, wait=2.5, note="why"
    )
    assert started.workflow_id == WORKFLOW
    request = fake.requests[0]
    assert (request.instance_id, request.instance_type, request.workflow_type) == ("vllm-1", "vllm", "config_change")
    assert dict(request.changes) == changes and request.gate.approvals == 2 and not request.auto_approve
    assert request.ready_timeout.seconds == 90 and request.wait.nanos == 500_000_000 and request.note == "why"
    assert not request.HasField("plan_timeout")
    client.start_workflow("vllm-1")
    assert len({each.request_id for each in fake.requests} - {""}) == 2
    with pytest.raises(TypeError):
        client.start_workflow("vllm-1", metrics_urls="http://a")


def test_the_plan_that_was_read_is_approved(connect: Connect, fake: FakeWorkflows) -> None:
    client = connect(fake.address)
    read = perfagent.Workflow(workflow_id=WORKFLOW)
    read.plan.etag = "e1"
    client.approve_workflow(read, note="go")
    client.approve_workflow(WORKFLOW, "e2")
    client.approve_workflow(WORKFLOW)
    assert [request.plan_etag for request in fake.requests] == ["e1", "e2", ""]
    assert {request.workflow_id for request in fake.requests} == {WORKFLOW}


def test_lists_are_read_to_their_end(connect: Connect, fake: FakeWorkflows) -> None:
    client = connect(fake.address)
    paused = perfagent.WorkflowStatus.WORKFLOW_STATUS_PAUSED
    ids = [workflow.workflow_id for workflow in client.list_workflows(instance_id="vllm-1", statuses=[paused])]
    assert ids == ["first", "second"]
    assert all(list(request.statuses) == [paused] for request in fake.requests)
    page = client.list_workflow_events(WORKFLOW, after_revision=57, wait=1)
    assert [event.revision for event in page.events] == [58, 59] and page.next_after_revision == 60
