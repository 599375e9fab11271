"""The client says what the protos say, and its generated code is what they give."""

from __future__ import annotations

import filecmp
import inspect
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor

import perfagent
from perfagent import _contract as contract
from perfagent import aio
from perfagent.v1 import (
    agent_pb2,
    analysis_pb2,
    instance_pb2,
    metrics_pb2,
    optimization_pb2,
    webhook_pb2,
    workflow_pb2,
)
from support.agent import ROOT, Agent

PACKAGE = ROOT / "clients/python"
PROTOS = ROOT / "proto/perfagent/v1"

# RPCs that are methods under another name
NAMES = {"GetAgentInfo": "agent_info", "GetCapabilities": "capabilities"}


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def services() -> Iterator[ServiceDescriptor]:
    for module in (agent_pb2, analysis_pb2, instance_pb2, metrics_pb2, optimization_pb2, webhook_pb2, workflow_pb2):
        yield from module.DESCRIPTOR.services_by_name.values()


RPCS = [method.name for service in services() for method in service.methods]


def comments() -> dict[str, str]:
    """What stands above each RPC in the protos."""
    found = {}
    for proto in PROTOS.glob("*.proto"):
        above: list[str] = []
        for line in map(str.strip, proto.read_text(encoding="utf-8").splitlines()):
            if line.startswith("//"):
                above.append(line.removeprefix("//").strip())
                continue
            if line.startswith("rpc "):
                found[line.removeprefix("rpc ").partition("(")[0]] = " ".join(above)
            above = []
    return found


def test_every_service_is_known() -> None:
    assert set(comments()) == set(RPCS)


@pytest.mark.parametrize("name", RPCS)
def test_every_rpc_is_a_method_of_both_clients(name: str) -> None:
    method = NAMES.get(name, snake(name))
    one, other = inspect.signature(getattr(perfagent.Client, method)), inspect.signature(getattr(aio.Client, method))
    assert one.parameters == other.parameters


@pytest.mark.parametrize("name", RPCS)
def test_deadlines_and_retries_are_as_documented(name: str) -> None:
    rpc: contract.Rpc = getattr(contract, snake(name).upper())
    comment = comments()[name]
    deadline = re.search(r"Deadline: (?:the (?:longest )?window plus )?(none|[0-9]+)", comment)
    assert deadline, comment
    assert rpc.deadline == (None if deadline[1] == "none" else float(deadline[1]))
    assert rpc.is_retry_safe == ("Safe to retry" in comment)


def test_what_is_safe_with_a_request_id_has_one() -> None:
    for service in services():
        for method in service.methods:
            assert ("`request_id`" in comments()[method.name]) == ("request_id" in method.input_type.fields_by_name)


def test_limits_are_the_agents(agent: Agent) -> None:
    with perfagent.Client(agent.address) as client:
        limits = client.agent_info().limits
    assert limits.max_request_bytes == contract.MAX_REQUEST_BYTES
    assert limits.max_response_bytes == contract.MAX_RESPONSE_BYTES
    assert limits.default_window.ToTimedelta().total_seconds() == contract.DEFAULT_WINDOW


def test_heartbeats_are_as_documented() -> None:
    text = (PROTOS / "metrics.proto").read_text(encoding="utf-8")
    said = re.search(r"Nothing has happened for ([0-9]+) seconds", text)
    assert said and float(said[1]) == contract.HEARTBEAT


def test_the_version_is_the_agents() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert perfagent.__version__ == cargo["package"]["version"]


def test_generated_code_is_what_the_protos_give(tmp_path: Path) -> None:
    subprocess.run([PACKAGE / "generate", tmp_path], check=True, timeout=300)
    fresh, kept = tmp_path / "perfagent/v1", PACKAGE / "src/perfagent/v1"
    names = {path.name for where in (fresh, kept) for path in where.iterdir() if path.is_file()}
    _, differ, absent = filecmp.cmpfiles(fresh, kept, names, shallow=False)
    assert not differ and not absent, "run clients/python/generate, and commit what it makes"
