"""Three agents on one PostgreSQL behind a real Envoy, killed and drained at random: watchers in Python and Go miss nothing and
are told nothing twice, and every call of a client with the retry policy succeeds."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perfagent
from support.agent import PATIENCE, ROOT, Agent, wait_until
from support.envoy import Envoy, find_envoy, write_descriptors
from support.postgres import Postgres
from support.simulator import Simulator

AGENTS = 3
INSTANCES = 2
# how often an agent is killed or drained
ROUNDS = int(os.environ.get("PERFAGENT_TEST_SEVERAL_ROUNDS", "10"))
ENDED = "COMPLETED", "ROLLED_BACK", "CANCELLED"


@pytest.fixture
def agents(start_agent: Callable[..., Agent], binary: Path) -> Iterator[tuple[Agent, ...]]:
    with Postgres() as postgres, contextlib.ExitStack() as stack:
        config = f'[store]\nurl = "{postgres.url}"\nlease = "2s"\n[server]\ntrusted_proxies = ["127.0.0.1"]\n'
        config += '[workflows]\nauto_approve = true\n[[actuators]]\nname = "sim"\ntype = "simulator"\n'
        for number in range(INSTANCES):
            engine = stack.enter_context(Simulator(binary))
            config += f'[[instances]]\ninstance_id = "sim-{number}"\nactuator = "sim"\nmetrics_url = "{engine.url}"\n'
            config += 'scrape_interval = "200ms"\nwindow = "1s"\n'
        yield tuple(start_agent(config) for _ in range(AGENTS))


@pytest.fixture
def envoy(agents: tuple[Agent, ...], tmp_path: Path) -> Iterator[Envoy]:
    descriptors = write_descriptors(tmp_path / "perfagent.binpb")
    envoy = Envoy(find_envoy(), tmp_path, descriptors, agents, {}, tls=False)
    yield envoy
    envoy.kill()


class GoWatcher:
    """The Go client's example."""

    def __init__(self, directory: Path, address: str) -> None:
        program = directory / "events"
        build = ["go", "build", "-o", str(program), "./examples/events"]
        subprocess.run(build, cwd=ROOT / "clients/go", check=True, timeout=300)
        self._process = subprocess.Popen(
            [program], env={"PERFAGENT_SERVER": address, "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, text=True
        )
        self.told: list[int] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.told.append(int(line.split()[0]))

    def close(self) -> None:
        self._process.kill()
        self._reading.join(PATIENCE)
        self._process.communicate(timeout=PATIENCE)


class PythonWatcher:
    """The Python client's watch."""

    def __init__(self, address: str) -> None:
        self.told: list[int] = []
        self._client = perfagent.Client(address)
        self._watch = self._client.watch_workflows()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for message in self._watch:
            self.told.append(message.event.revision)

    def close(self) -> None:
        self._watch.close()
        self._client.close()


class Caller:
    """Changes settings of an instance again and again, and looks on. Any call that fails ends it."""

    def __init__(self, address: str, instance_id: str) -> None:
        self._address, self._instance_id = address, instance_id
        self.stop = threading.Event()
        self.calls = 0
        self.ended: list[str] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with perfagent.Client(self._address) as client:
                cap = 4
                while not self.stop.is_set():
                    cap = 4 if cap == 6 else 6
                    workflow = client.start_workflow(
                        self._instance_id, workflow_type="config_change", changes={"max_num_seqs": cap}, auto_approve=True
                    )
                    self.calls += 1
                    while True:
                        workflow = client.get_workflow(workflow.workflow_id)
                        client.list_instances()
                        self.calls += 2
                        if workflow.done:
                            break
                        assert workflow.status != perfagent.WorkflowStatus.WORKFLOW_STATUS_PAUSED, workflow
                        time.sleep(0.05)
                    status = perfagent.WorkflowStatus.Name(workflow.status)
                    self.ended.append(status.removeprefix("WORKFLOW_STATUS_"))
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        self.stop.set()
        self._thread.join(6 * PATIENCE)
        assert not self._thread.is_alive(), f"{self._instance_id}: a workflow does not end"


def has_come(told: list[int], revision: int) -> bool:
    return told[-1] == revision


def test_whoever_of_them_goes_nobody_misses_anything(
    agents: tuple[Agent, ...], envoy: Envoy, tmp_path: Path
) -> None:
    seed = int(os.environ.get("PERFAGENT_TEST_SEED", time.time_ns()))
    print(f"PERFAGENT_TEST_SEED={seed}")
    chance = random.Random(seed)
    watchers: list[PythonWatcher | GoWatcher] = [PythonWatcher(envoy.address), GoWatcher(tmp_path, envoy.address)]
    callers = [Caller(envoy.address, f"sim-{number}") for number in range(INSTANCES)]
    wait_until("both watch", lambda: all(watcher.told for watcher in watchers))
    killed = drained = 0
    for _ in range(ROUNDS):
        victim = chance.choice(agents)
        if chance.random() < 0.5:
            victim.kill()
            killed += 1
        else:
            victim.stop()
            drained += 1
        time.sleep(chance.uniform(0.0, 2.0))
        victim.start()
        # one after the other: some are there always
        wait_until("Envoy finds all well", lambda: envoy.are_healthy(*(True for _ in agents)))
        time.sleep(chance.uniform(0.0, 1.0))
    for caller in callers:
        caller.finish()
    log: list[int] = []
    with perfagent.Client(agents[0].address) as client:
        while True:
            page = client.list_workflow_events(after_revision=log[-1] if log else 0, page_size=500)
            log += [event.revision for event in page.events]
            if not page.events:
                break
    for watcher in watchers:
        told, last = watcher.told, log[-1]
        wait_until("the last event", functools.partial(has_come, told, last))
        # from where it came in: each once, in order
        assert told == log[log.index(told[0]) :], type(watcher).__name__
        watcher.close()
    ended = [status for caller in callers for status in caller.ended]
    calls = sum(caller.calls for caller in callers)
    print(f"{killed} killed, {drained} drained; {len(log)} events to each watcher; {calls} calls, none failed; {len(ended)} workflows")
    assert [caller.error for caller in callers] == [None] * INSTANCES
    assert ended and set(ended) <= set(ENDED), ended
