"""Workflows of a real agent that changes the settings of a simulated engine: the guide's fourth use case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perfagent
from conftest import Connect
from support.agent import Agent, wait_until
from support.simulator import Simulator
from test_examples import finished, start


@pytest.fixture
def simulated(start_agent: Callable[..., Agent], binary: Path) -> Iterator[Agent]:
    with Simulator(binary) as simulator:
        agent = start_agent(simulator.config())
        with perfagent.Client(agent.address) as client:
            wait_until("a window", lambda: measured_seconds(client) >= 4)
        yield agent


def measured_seconds(client: perfagent.Client) -> float:
    try:
        return client.collect_metrics("sim-1").measurement.window.observed_seconds
    except perfagent.PerfagentError:
        return 0.0


def test_run_a_workflow(simulated: Agent) -> None:
    printed = finished(start("run_a_workflow.py", simulated, "sim-1"))
    assert printed[0].startswith("Workflow created: ") and "Workflow approved" in printed
    types = [line.partition(":")[0] for line in printed]
    order = ["started", "analysed", "planned", "approved", "write_intended", "written", "ready", "completed"]
    assert [kind for kind in types if kind in order] == order
    assert "Workflow COMPLETED" in printed
    throughput = next(line for line in printed if line.startswith("  generation_tokens_per_second"))
    assert float(throughput.partition(": x")[2].split()[0]) > 1.5


def test_change_and_roll_back(simulated: Agent) -> None:
    printed = finished(start("change_and_roll_back.py", simulated, "sim-1", "max_num_seqs", "2"))
    with perfagent.Client(simulated.address) as client:
        (workflow,) = client.list_workflows(instance_id="sim-1")
        assert workflow.status == perfagent.WorkflowStatus.WORKFLOW_STATUS_ROLLED_BACK, printed

        def is_restored() -> bool:
            settings = client.get_instance_config("sim-1").settings
            return {one.name: one.value for one in settings}["max_num_seqs"] == "4"

        # once it is measured
        wait_until("the settings from before", is_restored)


def test_a_workflow_and_its_watch_outlive_the_agent(connect: Connect, simulated: Agent) -> None:
    client = connect(simulated.address)
    workflow = client.start_workflow("sim-1", wait=30)
    told = []
    with client.watch_workflow(workflow.workflow_id) as watch:
        for message in watch:
            told.append(message.event)
            if message.event.type == "planned":
                client.approve_workflow(workflow)
            if message.event.type == "written":
                simulated.kill()
                simulated.start()
        assert watch.resumed >= 1
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    revisions = [event.revision for event in told]
    assert revisions == sorted(set(revisions))
    ended = client.wait_for_completion(workflow.workflow_id)
    assert ended.status == perfagent.WorkflowStatus.WORKFLOW_STATUS_COMPLETED
    listed = client.list_workflow_events(workflow.workflow_id)
    assert [event.revision for event in listed.events] == revisions


def test_a_plan_that_was_not_read_is_not_approved(connect: Connect, simulated: Agent) -> None:
    client = connect(simulated.address)
    workflow = client.start_workflow("sim-1", wait=30)
    with pytest.raises(perfagent.Aborted) as changed:
        client.approve_workflow(workflow.workflow_id, "another")
    assert changed.value.reason == "PLAN_CHANGED"
    with pytest.raises(perfagent.Aborted) as locked:
        client.start_workflow("sim-1")
    assert locked.value.reason == "INSTANCE_LOCKED"
    rejected = client.reject_workflow(workflow.workflow_id, note="no")
    assert rejected.status == perfagent.WorkflowStatus.WORKFLOW_STATUS_REJECTED
    with pytest.raises(perfagent.FailedPrecondition) as wrong:
        client.pause_workflow(workflow.workflow_id)
    assert wrong.value.reason == "WRONG_STATUS"


def test_kept_settings_are_listed_and_a_dry_run_starts_nothing(connect: Connect, simulated: Agent) -> None:
    client = connect(simulated.address)
    kept = client.create_config_snapshot("sim-1", note="before")
    assert kept.snapshot_id in {one.snapshot_id for one in client.list_config_snapshots(instance_id="sim-1")}
    dry = client.start_workflow("sim-1", validate_only=True)
    assert dry.plan.changes and list(client.list_workflows()) == []
