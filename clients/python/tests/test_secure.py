"""TLS, tokens, and what is never shown."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import perfagent
from conftest import Connect
from perfagent._connection import Connection
from support.agent import Agent, run, wait_until
from support.certificates import Authority
from support.engine import Engine


@dataclass
class Secured:
    agent: Agent
    port: str
    ca_cert: Path
    credentials: Path
    viewer: str
    operator: str


@pytest.fixture
def secured(start_agent: Callable[..., Agent], binary: Path, tmp_path: Path) -> Secured:
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost")
    credentials = tmp_path / "credentials"
    viewer, operator = (
        run(binary, "token", "create", "--name", role, "--role", role, "--file", credentials)
        for role in ("viewer", "operator")
    )
    arguments = ("--tls-cert", str(cert), "--tls-key", str(key), "--credentials-file", str(credentials))
    agent = start_agent("", *arguments)
    port = agent.address.rpartition(":")[2]
    return Secured(agent, port, authority.certificate, credentials, viewer, operator)


def test_tls_with_a_token(connect: Connect, secured: Secured, engine: Engine) -> None:
    client = connect(f"https://localhost:{secured.port}", ca_cert=secured.ca_cert, token=secured.operator)
    client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=0.2, window=1)
    with client.watch_metrics(["vllm-1"]) as watch:
        assert next(watch).instance_id == "vllm-1"
    assert client.collect_metrics("vllm-2", metrics_url=engine.url, window=0).measurement.instance_type == "vllm"


def test_a_role_that_does_not_reach(connect: Connect, secured: Secured, engine: Engine) -> None:
    # with certificates to trust HOST:PORT is https
    viewer = connect(f"localhost:{secured.port}", ca_cert=secured.ca_cert, token=secured.viewer)
    assert list(viewer.list_instances()) == []
    with pytest.raises(perfagent.PermissionDenied) as raised:
        viewer.register_instance("vllm-1", metrics_url=engine.url)
    assert raised.value.reason == "ROLE_NOT_ALLOWED"


def test_nobody_in_particular(connect: Connect, secured: Secured) -> None:
    server = f"https://localhost:{secured.port}"
    assert connect(server, ca_cert=secured.ca_cert).is_serving()
    for token in (None, "pa_unknown"):
        with pytest.raises(perfagent.Unauthenticated):
            connect(server, ca_cert=secured.ca_cert, token=token).agent_info()


def test_token_from_the_environment_and_from_a_file(
    connect: Connect, secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFAGENT_SERVER", f"https://localhost:{secured.port}")
    monkeypatch.setenv("PERFAGENT_CA_CERT", str(secured.ca_cert))
    monkeypatch.setenv("PERFAGENT_TOKEN", secured.viewer)
    assert connect().agent_info()
    file = tmp_path / "token"
    file.write_text("pa_unknown\n", encoding="utf-8")
    client = connect(token_file=file)
    with pytest.raises(perfagent.Unauthenticated):
        client.agent_info()
    # replaced while the client lives
    file.write_text(secured.operator + "\n", encoding="utf-8")
    assert client.agent_info()


def test_a_certificate_that_nobody_trusts(connect: Connect, secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").certificate
    client = connect(f"https://localhost:{secured.port}", ca_cert=stranger, token=secured.viewer, retries=0)
    with pytest.raises(perfagent.Unavailable) as raised:
        client.agent_info()
    assert raised.value.hint and "ca_cert" in raised.value.hint


def test_a_client_certificate_in_place_of_a_token(
    connect: Connect, start_agent: Callable[..., Agent], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost")
    mine, my_key = authority.issue("ann")
    ca = authority.certificate
    agent = start_agent("", "--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca))
    server = f"localhost:{agent.address.rpartition(':')[2]}"
    assert connect(server, ca_cert=ca, client_cert=mine, client_key=my_key).agent_info()
    with pytest.raises(perfagent.Unavailable):
        connect(server, ca_cert=ca, retries=0).agent_info()


def test_a_token_is_never_shown(
    connect: Connect, secured: Secured, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    token = secured.viewer
    client = connect(f"https://localhost:{secured.port}", ca_cert=secured.ca_cert, token=token)
    with pytest.raises(perfagent.PermissionDenied) as raised:
        client.delete_instance("vllm-1")
    shown = [repr(client), str(raised.value), repr(raised.value), caplog.text]
    # what a report with local variables would show
    connection = Connection("localhost:1", **NOTHING | {"token": token})
    shown += [repr(connection), repr(connection.metadata()), repr(vars(connection)), repr(vars(raised.value))]
    assert not any(token in text for text in shown)
    assert "with a token" in repr(client)


def test_a_token_in_the_clear_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for server, warned in (("agent.example:8002", 1), ("127.0.0.1:8002", 0), ("[::1]:8002", 0), ("localhost:8002", 0)):
        caplog.clear()
        Connection(server, **NOTHING | {"token": "pa_x"})
        assert len(caplog.records) == warned, server
        assert "pa_x" not in caplog.text


NOTHING: dict[str, Any] = {
    "ca_cert": None,
    "client_cert": None,
    "client_key": None,
    "token": None,
    "token_file": None,
    "options": (),
}


@pytest.mark.parametrize(
    ("server", "target", "is_tls"),
    [
        ("127.0.0.1:8002", "127.0.0.1:8002", False),
        ("http://localhost:8002", "localhost:8002", False),
        ("http://localhost:8002/", "localhost:8002", False),
        ("https://agent.example:443", "agent.example:443", True),
        ("[::1]:8002", "[::1]:8002", False),
        ("dns:///agents.example:8002", "dns:///agents.example:8002", False),
    ],
)
def test_addresses(server: str, target: str, is_tls: bool) -> None:
    connection = Connection(server, **NOTHING)
    assert (connection.target, connection.credentials is not None) == (target, is_tls)


@pytest.mark.parametrize("server", ["agent", "http://agent", "ftp://agent:1", "http://agent:1/api", "agent:x", ":1"])
def test_what_is_no_address(server: str) -> None:
    with pytest.raises(ValueError, match="no address of an agent"):
        Connection(server, **NOTHING)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"token": "two words"}, "no token"),
        ({"token": "two\nlines"}, "no token"),
        ({"token": "a", "token_file": "b"}, "not both"),
        ({"client_cert": "a"}, "together"),
        ({"server": "http://agent:1", "ca_cert": "a"}, "https"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        perfagent.Client(**{"server": "agent:1"} | given)
    assert "two" not in str(raised.value)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(agent: Agent) -> None:
    # gRPC reads it as it is loaded
    code = f"import perfagent; perfagent.Client({agent.address!r}).agent_info()"
    environment = os.environ | {"http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    environment["PYTHONPATH"] = str(Path(perfagent.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_the_agent_hears_of_a_new_token(connect: Connect, secured: Secured, binary: Path) -> None:
    token = run(binary, "token", "create", "--name", "new", "--role", "viewer", "--file", secured.credentials)
    client = connect(f"localhost:{secured.port}", ca_cert=secured.ca_cert, token=token)

    def is_known() -> bool:
        try:
            return bool(client.agent_info().version)
        except perfagent.Unauthenticated:
            return False

    wait_until("the token to be known", is_known)
