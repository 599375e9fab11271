"""Watches that break off and go on, and that end when asked."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import perfagent
from conftest import Connect
from perfagent import _watch, aio
from perfagent.v1.metrics_pb2 import WATCH_EVENT_HEARTBEAT, WATCH_EVENT_REMOVED, WATCH_EVENT_WINDOW
from support.agent import Agent, run, wait_until
from support.engine import Engine
from support.proxy import Proxy

StartAgent = Callable[..., Agent]


def config_of(engine: Engine, server: str = "") -> str:
    """An agent that has an instance from the start, so that one started anew has it too."""
    instance = f'instance_id = "vllm-1"\nmetrics_url = "{engine.url}"\nscrape_interval = "200ms"\nwindow = "1s"\n'
    return f"[server]\n{server}\n[[instances]]\n{instance}"


@pytest.fixture
def watched(start_agent: StartAgent, engine: Engine) -> Agent:
    return start_agent(config_of(engine))


def next_window(watch: Any) -> Any:
    return next(event for event in watch if event.event == WATCH_EVENT_WINDOW)


@pytest.mark.parametrize("end", [Agent.stop, Agent.kill])
def test_a_watch_outlives_its_agent(connect: Connect, watched: Agent, end: Callable[[Agent], None]) -> None:
    with connect(watched.address).watch_metrics() as watch:
        next_window(watch)
        end(watched)
        watched.start()
        assert next_window(watch).instance_id == "vllm-1"
        # what was underway when it ended may have been read before
        while not watch.resumed:
            next_window(watch)


def test_a_stream_that_has_lived_long_is_begun_again(
    connect: Connect, start_agent: StartAgent, engine: Engine
) -> None:
    agent = start_agent(config_of(engine, 'stream_lifetime = "1s"'))
    with connect(agent.address).watch_metrics() as watch:
        while watch.resumed < 2:
            next_window(watch)
    ended = [call["code"] for call in agent.calls("WatchMetrics")]
    assert ended[:2] == ["UNAVAILABLE", "UNAVAILABLE"]


# with and without pings that measure bandwidth, which keepalive waits for
@pytest.mark.parametrize("bandwidth", [0, 1])
def test_a_peer_that_is_gone_without_a_word_is_noticed(connect: Connect, watched: Agent, bandwidth: int) -> None:
    pings = [
        ("grpc.keepalive_time_ms", 300),
        ("grpc.keepalive_timeout_ms", 300),
        ("grpc.http2.ping_timeout_ms", 300),
        ("grpc.http2.bdp_probe", bandwidth),
    ]
    with Proxy(watched.address) as proxy, connect(proxy.address, options=pings).watch_metrics() as watch:
        next_window(watch)
        proxy.swallow()
        while not watch.resumed:
            next_window(watch)


def test_silence_is_noticed_where_pings_are_answered(
    connect: Connect, start_agent: StartAgent, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as of an agent behind a proxy that answers for it: here one that has nothing to say for a while
    monkeypatch.setattr(_watch, "SILENCE", 0.5)
    agent = start_agent(config_of(engine).replace("200ms", "5m").replace("1s", "5m"))
    with connect(agent.address).watch_metrics() as watch:
        # each time it is told again how things are
        # and settings that come late are a message of their own
        for _ in range(10):
            assert next(watch).instance_id == "vllm-1"
            if watch.resumed >= 2:
                break
        assert watch.resumed >= 2
    wait_until("calls to end", lambda: len(agent.calls("WatchMetrics")) > watch.resumed)
    assert {call["code"] for call in agent.calls("WatchMetrics")} == {"CANCELLED"}


def test_a_connection_that_is_cut_is_made_again(connect: Connect, watched: Agent) -> None:
    with Proxy(watched.address) as proxy, connect(proxy.address).watch_metrics() as watch:
        for cut in range(1, 3):
            next_window(watch)
            proxy.cut()
            while watch.resumed < cut:
                next_window(watch)


def test_two_watchers_at_once(connect: Connect, watched: Agent) -> None:
    client = connect(watched.address)

    def watch_some(_: int) -> list[int]:
        with client.watch_metrics() as watch:
            return [next_window(watch).sequence for _ in range(5)]

    with ThreadPoolExecutor(2) as threads:
        for sequences in threads.map(watch_some, range(2)):
            assert sequences == sorted(sequences)


def test_a_watch_ends_when_it_is_cancelled(connect: Connect, watched: Agent, engine: Engine) -> None:
    watch = connect(watched.address).watch_metrics()
    next_window(watch)
    # nothing comes any more: the reader waits
    engine.answers.clear()
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    watch.cancel()
    reader.join(30)
    assert not reader.is_alive()
    assert watched.wait_for_call("WatchMetrics")
    assert list(watch) == []


def test_a_watch_ends_while_it_waits_for_an_agent(connect: Connect, watched: Agent) -> None:
    watch = connect(watched.address).watch_metrics()
    next_window(watch)
    watched.kill()
    reader = threading.Thread(target=lambda: list(watch))
    reader.start()
    wait_until("the watch to break off", lambda: watch.resumed >= 2)
    watch.cancel()
    reader.join(30)
    assert not reader.is_alive()


def test_a_watch_ends_with_its_block(connect: Connect, watched: Agent) -> None:
    with connect(watched.address).watch_metrics() as watch:
        next_window(watch)
    watched.wait_for_call("WatchMetrics")


def test_a_watch_that_is_dropped_ends(watched: Agent) -> None:
    with perfagent.Client(watched.address) as client:
        for _ in client.watch_metrics():
            break
        gc.collect()
        watched.wait_for_call("WatchMetrics")
    wait_until("its thread to end", lambda: not [t for t in threading.enumerate() if t.name == "perfagent-watch"])


def test_a_watch_ends_with_its_instances(client: Any, engine: Engine) -> None:
    client.register_instance("vllm-1", metrics_url=engine.url)
    watch = client.watch_metrics(["vllm-1"])
    next(watch)
    client.delete_instance("vllm-1")
    # the agent may end the stream before it has told of the removal
    assert {event.event for event in watch} <= {WATCH_EVENT_WINDOW, WATCH_EVENT_REMOVED}
    assert watch.resumed == 0


def test_a_watch_of_what_is_not_there_fails(client: Any) -> None:
    with pytest.raises(perfagent.NotFound):
        next(client.watch_metrics(["unknown"]))


def test_a_watch_of_an_agent_that_never_was_fails(connect: Connect) -> None:
    with pytest.raises(perfagent.Unavailable):
        next(connect("127.0.0.1:1", retries=1).watch_metrics())


def test_a_watch_gives_up_when_told_to(connect: Connect, watched: Agent) -> None:
    watch = connect(watched.address).watch_metrics(give_up_after=1)
    next_window(watch)
    watched.kill()
    with pytest.raises(perfagent.Unavailable):
        list(watch)


def test_a_deadline_in_mid_stream(connect: Connect, watched: Agent) -> None:
    watch = connect(watched.address).watch_metrics(timeout=1)
    next_window(watch)
    with pytest.raises(perfagent.DeadlineExceeded):
        list(watch)


def test_a_credential_that_is_taken_away_ends_a_watch(
    connect: Connect, start_agent: StartAgent, binary: Path, engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    token = run(binary, "token", "create", "--name", "ann", "--role", "viewer", "--file", file)
    agent = start_agent(config_of(engine), "--credentials-file", str(file))
    watch = connect(agent.address, token=token).watch_metrics()
    next_window(watch)
    run(binary, "token", "revoke", "ann", "--file", file)
    with pytest.raises(perfagent.Unauthenticated):
        list(watch)


def test_heartbeats_are_shown_when_asked_for(connect: Connect, agent: Agent) -> None:
    with connect(agent.address).watch_metrics(heartbeats=True) as watch:
        assert next(watch).event == WATCH_EVENT_HEARTBEAT


def test_a_task_that_is_cancelled_ends_its_watch(watched: Agent) -> None:
    async def run() -> None:
        async with aio.Client(watched.address) as client:
            begun = asyncio.Event()

            async def read() -> None:
                async with client.watch_metrics() as watch:
                    async for _ in watch:
                        begun.set()

            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(watched.wait_for_call, "WatchMetrics")

    asyncio.run(run())


def test_a_reader_with_a_timeout_of_its_own_can_read_on(agent: Agent, engine: Engine) -> None:
    async def run() -> None:
        async with aio.Client(agent.address) as client:
            await client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=300)
            async with client.watch_metrics() as watch:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        async for _ in watch:
                            pass
                assert (await anext(watch)).instance_id == "vllm-1"

    asyncio.run(run())


def test_two_asyncio_watchers_share_a_loop(watched: Agent) -> None:
    async def run() -> list[int]:
        async with aio.Client(watched.address) as client:

            async def count() -> int:
                windows = 0
                async with client.watch_metrics() as watch:
                    async for _ in watch:
                        windows += 1
                        if windows == 5:
                            break
                return windows

            return list(await asyncio.gather(count(), count()))

    assert asyncio.run(run()) == [5, 5]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    wait_until("threads to end", lambda: not [t for t in threading.enumerate() if t.name == "perfagent-watch"])
