"""What the tests call: a real agent, engines that are not there, and both clients behind one face."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import perfagent
from support.agent import Agent, find_binary
from support.bridge import Bridge, Loop
from support.engine import Engine

Connect = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """What the caller's shell says must not decide."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PERFAGENT_SERVER", "PERFAGENT_TOKEN", "PERFAGENT_CA_CERT", "PERFAGENT_CONFIG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def binary() -> Path:
    return find_binary()


@pytest.fixture
def start_agent(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Agent]]:
    """Starts agents, each with a state of its own, which end with the test."""
    agents: list[Agent] = []

    def start(config: str = "", *arguments: str) -> Agent:
        agent = Agent(binary, tmp_path_factory.mktemp("agent"), config, arguments)
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.kill()


@pytest.fixture
def agent(start_agent: Callable[..., Agent]) -> Agent:
    return start_agent()


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture(params=["threads", "asyncio"])
def connect(request: pytest.FixtureRequest, loop: Loop) -> Iterator[Connect]:
    """Makes clients of one kind, closed with the test."""
    make: Connect = perfagent.Client if request.param == "threads" else functools.partial(Bridge, loop)
    clients: list[Any] = []

    def connect(*arguments: Any, **named: Any) -> Any:
        clients.append(make(*arguments, **named))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect, agent: Agent) -> Any:
    return connect(agent.address)
