"""What is tried again, and how often it then happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import perfagent
from conftest import Connect
from perfagent import _contract as contract
from perfagent._retry import Attempts, Resumption
from support.agent import Agent, wait_until
from support.engine import Engine
from support.proxy import Proxy

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def failure(
    code: grpc.StatusCode = UNAVAILABLE, retry_after: float | None = None, reason: str | None = None
) -> perfagent.PerfagentError:
    return perfagent.PerfagentError(code, "", retry_after=retry_after, reason=reason)


def test_an_answer_that_was_lost_is_asked_for_again(connect: Connect, agent: Agent, engine: Engine) -> None:
    with Proxy(agent.address) as proxy:
        client = connect(proxy.address)
        client.agent_info()
        proxy.swallow()
        with ThreadPoolExecutor(1) as threads:
            registered = threads.submit(client.register_instance, "vllm-1", metrics_url=engine.url)
            agent.wait_for_call("RegisterInstance")
            proxy.cut()
            assert registered.result().instance_id == "vllm-1"
    # the second time with the same request id: it is no error that there is one
    assert [call["code"] for call in agent.calls("RegisterInstance")] == ["OK", "OK"]


def test_what_passes_is_waited_for(
    connect: Connect, start_agent: Callable[..., Agent], engine: Engine
) -> None:
    instance = f'[[instances]]\ninstance_id = "vllm-1"\nmetrics_url = "{engine.url}"\n'
    agent = start_agent("[server]\nmax_calls = 1\n" + instance)
    client = connect(agent.address)
    with ThreadPoolExecutor(1) as threads:
        with client.watch_metrics() as watch:
            next(watch)
            info = threads.submit(client.agent_info)
            wait_until("a refusal", lambda: agent.calls("GetAgentInfo"))
        assert info.result().version


def test_what_does_not_pass_is_not_tried_again(connect: Connect, agent: Agent) -> None:
    with pytest.raises(perfagent.NotFound):
        connect(agent.address, retries=5).get_instance("unknown")
    assert len(agent.calls("GetInstance")) == 1


def test_no_more_than_is_allowed(connect: Connect, agent: Agent) -> None:
    with pytest.raises(perfagent.Unavailable):
        connect(agent.address, retries=1).collect_metrics("vllm-1", metrics_url="http://127.0.0.1:1/metrics")
    assert len(agent.calls("CollectMetrics")) == 2


def test_the_agent_is_not_asked_before_it_wants_to_be() -> None:
    for _ in range(100):
        pause = Attempts(contract.GET_INSTANCE, None, 1).pause_after(failure(retry_after=3.0))
        assert pause is not None
        assert 3.0 <= pause <= 3.75


def test_pauses_grow_and_are_spread() -> None:
    seen = set()
    for _ in range(100):
        attempts = Attempts(contract.GET_INSTANCE, None, 10)
        pauses = [attempts.pause_after(failure()) for _ in range(10)]
        assert all(pause is not None and 0.1 <= pause <= 5.0 for pause in pauses)
        assert pauses[-1] is not None and pauses[-1] >= 2.5
        seen.add(pauses[0])
    assert len(seen) > 50


def test_only_what_passes() -> None:
    for code in grpc.StatusCode:
        is_tried = Attempts(contract.GET_INSTANCE, None, 1).pause_after(failure(code)) is not None
        assert is_tried == (code is UNAVAILABLE)
    exhausted = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=1.0)
    assert Attempts(contract.GET_INSTANCE, None, 1).pause_after(exhausted) is not None
    assert Attempts(contract.Rpc(1, is_retry_safe=False), None, 1).pause_after(failure()) is None


def test_a_timeout_is_of_all_attempts() -> None:
    # a pause and a window of 10 s do not fit
    assert Attempts(contract.COLLECT_METRICS, 10.0, 1, window=10.0).pause_after(failure()) is None
    assert Attempts(contract.COLLECT_METRICS, 60.0, 1, window=10.0).pause_after(failure()) is not None
    assert Attempts(contract.COLLECT_METRICS, 1.0, 1).pause_after(failure(retry_after=1.0)) is None
    assert Attempts(contract.COLLECT_METRICS, None, 1, window=10.0).timeout() == 35.0
    limited = Attempts(contract.COLLECT_METRICS, 5.0, 1).timeout()
    assert limited is not None and limited <= 5.0


def test_a_watch_goes_on_once_it_was_heard_of() -> None:
    watch = Resumption(None, 1, None)
    assert watch.pause_after(failure()) is not None
    assert watch.pause_after(failure()) is None
    watch.heard()
    assert all(watch.pause_after(failure()) is not None for _ in range(100))


def test_what_breaks_a_watch_and_what_ends_it() -> None:
    def goes_on(broken: perfagent.PerfagentError) -> bool:
        watch = Resumption(None, 1, None)
        watch.heard()
        return watch.pause_after(broken) is not None

    # of the way there
    assert goes_on(failure(grpc.StatusCode.INTERNAL))
    assert goes_on(failure(grpc.StatusCode.CANCELLED))
    assert goes_on(failure(UNAVAILABLE, 1.0, "DRAINING"))
    # of the agent
    assert not goes_on(failure(grpc.StatusCode.INTERNAL, reason="X"))
    assert not goes_on(failure(grpc.StatusCode.UNAUTHENTICATED))
    assert not goes_on(failure(grpc.StatusCode.NOT_FOUND))
    assert not goes_on(failure(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_threads_share_a_client(agent: Agent, engine: Engine) -> None:
    with perfagent.Client(agent.address) as client:
        start = threading.Barrier(8)

        def register(number: int) -> str:
            start.wait()
            return client.register_instance(f"vllm-{number}", metrics_url=engine.url).instance_id

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(register, range(8)))) == 8
        assert len(list(client.list_instances())) == 8
