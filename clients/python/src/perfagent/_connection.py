"""How an agent is reached: its address, TLS, the token, and the options of the channel."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from perfagent._contract import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES
from perfagent._version import __version__

LOG: Final = logging.getLogger("perfagent")

DEFAULT_SERVER: Final = "127.0.0.1:8002"

PathLike = str | os.PathLike[str]

_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.primary_user_agent", f"perfagent-python/{__version__}"),
    # a peer that is gone without a word is noticed, whether a call runs or not; the agent pings too, and is answered
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # else a ping that measures bandwidth, which a peer mostly dies in the midst of, is waited for 60 s
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # the agent's limits; for answers there is room for agents that allow more
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", 4 * MAX_RESPONSE_BYTES),
    # an agent that is started anew is found again soon: the usual two minutes are long for a watcher
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # no retries that DNS asks for, on top of ours
    ("grpc.service_config_disable_resolution", 1),
)


class _Secret(str):
    """Text that logs and tracebacks do not show."""

    def __repr__(self) -> str:
        return "'***'"


class Connection:
    """What both clients make their channel from."""

    def __init__(
        self,
        server: str | None,
        *,
        ca_cert: PathLike | None,
        client_cert: PathLike | None,
        client_key: PathLike | None,
        token: str | None,
        token_file: PathLike | None,
        options: Sequence[tuple[str, Any]],
    ) -> None:
        if (client_cert is None) != (client_key is None):
            raise ValueError("client_cert and client_key are given together")
        if token is not None and token_file is not None:
            raise ValueError("give token or token_file, not both")
        ca_cert = ca_cert or os.environ.get("PERFAGENT_CA_CERT") or None
        given = server or os.environ.get("PERFAGENT_SERVER") or DEFAULT_SERVER
        target, is_tls = _target(given, ca_cert is not None or client_cert is not None)
        self.target: Final = target
        self.credentials: Final = (
            grpc.ssl_channel_credentials(_pem(ca_cert), _pem(client_key), _pem(client_cert)) if is_tls else None
        )
        self._token_file: Final = token_file
        if token is None and token_file is None:
            token = os.environ.get("PERFAGENT_TOKEN") or None
        self._token: Final = None if token is None else _bearer(token)
        is_local = _is_local(self.target)
        if self.has_token and not is_tls and not is_local:
            LOG.warning("the token crosses the network to %s in the clear; https would protect it", self.target)
        # what is on this machine is not reached through the proxy of a company
        proxy = (("grpc.enable_http_proxy", 0),) if is_local else ()
        # of two arguments of one name gRPC takes the first
        self.options: Final[tuple[tuple[str, Any], ...]] = tuple(dict((*_OPTIONS, *proxy, *options)).items())

    @property
    def has_token(self) -> bool:
        return self._token is not None or self._token_file is not None

    @property
    def hint(self) -> str:
        """What to do where nobody answers."""
        if self.credentials is None:
            return f"does an agent listen at {self.target}? `perfagent serve` starts one; one with TLS is https://"
        return f"does an agent with TLS listen at {self.target}, and has ca_cert signed its certificate?"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries. The file of a token is read each time, so that it can be replaced."""
        bearer = self._token
        if self._token_file is not None:
            bearer = _bearer(Path(self._token_file).read_text(encoding="utf-8"))
        return () if bearer is None else (("authorization", bearer),)

    def __repr__(self) -> str:
        tls = ", TLS" if self.credentials is not None else ""
        return f"{self.target}{tls}{', with a token' if self.has_token else ''}"


def _bearer(token: str) -> _Secret:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("that is no token: it is one line, as `perfagent token create` printed it")
    return _Secret(f"Bearer {token}")


def _pem(path: PathLike | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _target(given: str, has_certificates: bool) -> tuple[str, bool]:
    """gRPC's name of it, and whether TLS is spoken."""
    if given.startswith(("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")):
        return given, has_certificates
    scheme = "https" if has_certificates else "http"
    try:
        url = urlsplit(given if "://" in given else f"{scheme}://{given}")
        port = url.port
    except ValueError as error:
        raise ValueError(f"{given} is no address of an agent: {error}") from None
    if url.scheme not in ("http", "https"):
        raise ValueError(f"{given} is no address of an agent: it must begin with http:// or https://")
    if has_certificates and url.scheme == "http":
        raise ValueError(f"{given} is called without TLS, and certificates are for https://")
    if port is None or not url.hostname:
        raise ValueError(f"{given} is no address of an agent: give HOST:PORT")
    if url.path.strip("/") or url.query or url.username:
        raise ValueError(f"{given} is no address of an agent: it has more than host and port")
    return url.netloc, url.scheme == "https"


def _is_local(target: str) -> bool:
    if target.startswith("unix"):
        return True
    host = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
