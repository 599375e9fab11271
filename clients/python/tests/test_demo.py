"""The demo's two canaries, told to the receiver of the examples: each step verified, in order, and none missing."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import perfagent
from support.agent import wait_until
from test_webhooks import SECRET, receiver

ENDED = {"completed", "rolled_back"}
WORKFLOWS = 3  # one that is measured before and after, and two canaries
BEGIN = ["ANALYSIS", "RECOMMENDATION", "APPROVAL", "CANARY", "VALIDATION"]


@dataclass
class Told:
    """A line of the receiver."""

    type: str
    data: dict[str, str]

    @classmethod
    def of(cls, line: str) -> Told:
        begin, _, reason = line.partition(" reason=")
        verified, kind, *words = begin.split()
        assert verified == "verified", line
        return cls(kind, dict(word.split("=", 1) for word in words) | {"reason": reason})

    @property
    def revision(self) -> int:
        return int(self.data["revision"])


def way(told: list[Told], kind: str) -> list[str]:
    """From where to where it went, in steps that follow from one another."""
    steps = [one.data for one in told if one.type == kind]
    assert [step.get("from") for step in steps] == [None, *(step["to"] for step in steps[:-1])]
    return [step["to"] for step in steps]


def test_a_win_and_a_lose_are_told_step_by_step(binary: Path, tmp_path: Path) -> None:
    log: dict[str, list[perfagent.WorkflowEvent]] = {}
    with receiver(SECRET, tmp_path / "receiver") as url, (tmp_path / "demo").open("w") as out:
        process = subprocess.Popen(
            [binary, "demo", "--once", "--listen", "127.0.0.1:0", "--webhook", url],
            env=os.environ | {"WEBHOOK_SECRET": SECRET},
            stdout=out,
            stderr=out,
        )
        try:
            wait_until("the demo's agent", lambda: "serves gRPC at " in shown_by(tmp_path))
            address = shown_by(tmp_path).partition("serves gRPC at ")[2].split()[0]
            with perfagent.Client(address) as client, client.watch_workflows() as watch:
                for message in watch:
                    log.setdefault(message.event.workflow_id, []).append(message.event)
                    if message.event.type in ENDED and len(log) == WORKFLOWS:
                        break
            assert process.wait(timeout=60) == 0, shown_by(tmp_path)
        finally:
            process.kill()
            process.wait(timeout=60)
        told = [Told.of(line) for line in (tmp_path / "receiver").read_text().splitlines()[1:]]

    shown = shown_by(tmp_path)
    assert told[0].type == "webhook.test"
    assert {one.data["instance_id"] for one in told[1:]} == {"demo-vllm", "demo-sglang", "demo-tgi", "demo-pool"}
    of_workflows = [one for one in told if one.type.startswith("workflow.")]
    known = {event.revision for events in log.values() for event in events}
    assert {one.revision for one in of_workflows} <= known

    _, winner, loser = log.values()
    for events, stages, end, verdict in (
        (winner, [*BEGIN, "ROLLOUT", "COMPLETION"], "COMPLETED", "PASS"),
        (loser, [*BEGIN, "ROLLBACK"], "ROLLED_BACK", "FAIL"),
    ):
        mine = [one for one in of_workflows if one.revision in {event.revision for event in events}]
        assert {one.data["instance_id"] for one in mine} == {"demo-pool"}
        assert [one.revision for one in mine] == sorted(one.revision for one in mine)
        # it is known once the instance was analysed
        assert all(one.data.get("simulated") == "True" for one in mine if one.revision != events[0].revision)
        assert way(mine, "workflow.stage_changed") == stages
        assert way(mine, "workflow.status_changed") == ["IN_PROGRESS", "APPROVED", "IN_PROGRESS", end]
        assert mine[0].revision == events[0].revision and mine[-1].revision == events[-1].revision
        # each verdict of its log, in the same words
        verdicts = [
            (one.revision, one.data["verdict"], one.data["reason"]) for one in mine if one.type == "workflow.verdict"
        ]
        judged = [event for event in events if event.HasField("verdict")]
        assert verdicts == [(event.revision, event.verdict.verdict, event.verdict.reason) for event in judged]
        assert verdicts[-1][1] == verdict and verdicts[-1][2] in shown
        assert all(f"  {event.type:<16}  {event.message}\n" in shown for event in events)


def shown_by(directory: Path) -> str:
    return (directory / "demo").read_text()
