"""What goes wrong, and what of it a caller can see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

import perfagent
from conftest import Connect
from perfagent.errors import from_status
from support.agent import Agent
from support.engine import Engine

TOO_LARGE = "x" * (5 << 20)


def test_wrong_fields_are_named(client: Any) -> None:
    with pytest.raises(perfagent.InvalidArgument) as raised:
        client.register_instance("Not An Id", metrics_url="ftp://nowhere")
    error = raised.value
    assert error.reason == "INVALID_ARGUMENT"
    assert [wrong.field for wrong in error.violations] == ["instance_id", "metrics_url"]
    assert all(wrong.description in str(error) for wrong in error.violations)
    assert error.retry_after is None


def test_reason_hint_and_facts_of_a_scrape(connect: Connect, agent: Agent) -> None:
    client = connect(agent.address, retries=0)
    with pytest.raises(perfagent.Unavailable) as raised:
        client.collect_metrics("vllm-1", metrics_url="http://127.0.0.1:1/metrics")
    error = raised.value
    assert error.reason == "CONNECT_FAILED"
    assert error.hint and error.hint in str(error)
    assert error.retry_after == 1.0
    assert error.metadata["url"] == "http://127.0.0.1:1/metrics"
    logged = agent.calls("CollectMetrics")
    assert [call["request_id"] for call in logged] == [error.call_id]


def test_codes_are_classes(client: Any, engine: Engine) -> None:
    with pytest.raises(perfagent.NotFound, match="INSTANCE_NOT_FOUND"):
        client.get_instance("unknown")
    with pytest.raises(perfagent.NotFound, match="UNKNOWN_SERVICE"):
        client.is_serving("unknown")
    with pytest.raises(perfagent.PermissionDenied, match="URL_REFUSED"):
        client.collect_metrics("vllm-1", metrics_url="http://169.254.169.254/metrics")
    with pytest.raises(perfagent.FailedPrecondition, match="WRONG_ENGINE"):
        client.collect_metrics("sglang-1", "sglang", engine.url, window=0)
    engine.status = 404
    with pytest.raises(perfagent.FailedPrecondition, match="HTTP_STATUS") as raised:
        client.collect_metrics("vllm-1", metrics_url=engine.url)
    assert raised.value.metadata["http_status"] == "404"
    with pytest.raises(perfagent.InvalidArgument):
        client.compare_metrics(perfagent.Measurement(), perfagent.Measurement())


def test_a_deadline_of_the_caller_holds(client: Any, engine: Engine) -> None:
    engine.answers.clear()
    with pytest.raises(perfagent.DeadlineExceeded):
        client.collect_metrics("vllm-1", metrics_url=engine.url, window=0, timeout=0.2)
    with pytest.raises(perfagent.DeadlineExceeded):
        next(client.batch_collect_metrics([perfagent.target("vllm-1", metrics_url=engine.url, window=0)], timeout=0.2))
    # and the agent is told of it: it refuses what cannot be done in time
    with pytest.raises(perfagent.InvalidArgument) as raised:
        client.collect_metrics("vllm-1", metrics_url=engine.url, window=60, timeout=5)
    assert [wrong.field for wrong in raised.value.violations] == ["window"]


def test_a_message_too_large_is_not_sent(client: Any, agent: Agent) -> None:
    with pytest.raises(perfagent.ResourceExhausted) as raised:
        client.register_instance("vllm-1", metrics_url="http://127.0.0.1/" + TOO_LARGE)
    assert raised.value.reason is None
    assert agent.calls("RegisterInstance") == []


def test_a_message_too_large_is_refused(connect: Connect, agent: Agent) -> None:
    client = connect(agent.address, options=[("grpc.max_send_message_length", -1)])
    with pytest.raises(perfagent.InvalidArgument) as raised:
        client.register_instance("vllm-1", metrics_url="http://127.0.0.1/" + TOO_LARGE)
    assert raised.value.reason == "REQUEST_TOO_LARGE"


def test_an_answer_too_large_is_an_error(connect: Connect, agent: Agent) -> None:
    client = connect(agent.address, options=[("grpc.max_receive_message_length", 100)])
    with pytest.raises(perfagent.ResourceExhausted) as raised:
        client.capabilities()
    assert raised.value.reason is None


def test_nobody_there(connect: Connect) -> None:
    with pytest.raises(perfagent.Unavailable) as raised:
        connect("127.0.0.1:1", retries=0).agent_info()
    assert raised.value.reason is None
    assert raised.value.hint and "perfagent serve" in raised.value.hint


def test_too_many_calls(connect: Connect, start_agent: Callable[..., Agent], engine: Engine) -> None:
    instance = f'[[instances]]\ninstance_id = "vllm-1"\nmetrics_url = "{engine.url}"\n'
    agent = start_agent("[server]\nmax_calls = 1\n" + instance)
    client = connect(agent.address, retries=0)
    with client.watch_metrics() as watch:
        next(watch)
        with pytest.raises(perfagent.ResourceExhausted) as raised:
            client.agent_info()
    assert raised.value.reason == "TOO_MANY_CALLS"
    assert raised.value.retry_after == 1.0


def test_details_that_cannot_be_read_are_left_out() -> None:
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", b"\xff\xff\xff"), ("x-request-id", "a")]
    error = from_status(grpc.StatusCode.NOT_FOUND, "gone", trailers, "hint")
    assert isinstance(error, perfagent.NotFound)
    assert (str(error), error.reason, error.call_id) == ("NOT_FOUND: gone", None, "a")
