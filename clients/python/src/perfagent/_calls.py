"""How the client for threads makes calls: its channel, retries, streams and watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from perfagent import _contract as contract
from perfagent._connection import Connection, PathLike
from perfagent._contract import Rpc
from perfagent._retry import Attempts, Resumption
from perfagent._watch import MessageStream, Watch
from perfagent.errors import PerfagentError, from_rpc_error
from perfagent.v1 import (
    agent_pb2_grpc,
    analysis_pb2_grpc,
    instance_pb2_grpc,
    metrics_pb2_grpc,
    optimization_pb2_grpc,
    webhook_pb2_grpc,
    workflow_pb2_grpc,
)

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Caller:
    """A channel, and what calls go through."""

    def __init__(
        self,
        server: str | None = None,
        *,
        ca_cert: PathLike | None = None,
        client_cert: PathLike | None = None,
        client_key: PathLike | None = None,
        token: str | None = None,
        token_file: PathLike | None = None,
        retries: int = 2,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """
        server: HOST:PORT, http://HOST:PORT, https://HOST:PORT or a gRPC name; else PERFAGENT_SERVER, else
            127.0.0.1:8002.
        ca_cert: file of certificates to trust instead of those that grpcio has (PEM), else PERFAGENT_CA_CERT; HOST:PORT
            then means https.
        client_cert, client_key: files of the certificate to show to the agent and its private key (PEM).
        token, token_file: credential to send, or the file that has it, which is read at each call; else
            PERFAGENT_TOKEN.
        retries: further attempts of a call.
        options: gRPC channel arguments, which win over those set here.
        """
        self._connection: Final = Connection(
            server,
            ca_cert=ca_cert,
            client_cert=client_cert,
            client_key=client_key,
            token=token,
            token_file=token_file,
            options=options,
        )
        self._retries: Final = retries
        target, credentials, arguments = self._connection.target, self._connection.credentials, self._connection.options
        self._channel: Final = (
            grpc.insecure_channel(target, arguments)
            if credentials is None
            else grpc.secure_channel(target, credentials, arguments)
        )
        self._agent: Final = agent_pb2_grpc.AgentServiceStub(self._channel)
        self._analysis: Final = analysis_pb2_grpc.AnalysisServiceStub(self._channel)
        self._instances: Final = instance_pb2_grpc.InstanceServiceStub(self._channel)
        self._metrics: Final = metrics_pb2_grpc.MetricsServiceStub(self._channel)
        self._optimization: Final = optimization_pb2_grpc.OptimizationServiceStub(self._channel)
        self._webhooks: Final = webhook_pb2_grpc.WebhookServiceStub(self._channel)
        self._workflows: Final = workflow_pb2_grpc.WorkflowServiceStub(self._channel)
        self._check: Final[grpc.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]] = (
            self._channel.unary_unary(
                contract.CHECK_METHOD, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
            )
        )

    def close(self) -> None:
        """Ends what still runs. The client cannot be used any more."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<perfagent.Client of {self._connection!r}>"

    # how calls are made: what a new RPC uses

    def _unary(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        rpc: Rpc,
        request: _Request,
        timeout: float | None,
        window: float = 0.0,
    ) -> _Response:
        attempts = Attempts(rpc, timeout, self._retries, window)
        while True:
            try:
                return method(request, timeout=attempts.timeout(), metadata=self._connection.metadata())
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self._connection.hint)
            pause = attempts.pause_after(failure)
            if pause is None:
                raise failure
            time.sleep(pause)

    def _stream(
        self,
        method: grpc.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> Iterator[_Response]:
        is_begun = False
        while True:
            call = method(request, timeout=attempts.timeout(), metadata=self._connection.metadata())
            try:
                for response in call:
                    is_begun = True
                    yield response
                return
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self._connection.hint)
            finally:
                # the reader may have left
                call.cancel()
            pause = None if is_begun else attempts.pause_after(failure)
            if pause is None:
                raise failure
            time.sleep(pause)

    def _watch(
        self,
        method: grpc.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        give_up_after: float | None,
        shown: Callable[[_Response], bool] | None = None,
        broke: Callable[[PerfagentError], None] | None = None,
    ) -> Watch[_Response]:
        def start(seconds: float | None) -> MessageStream[_Response]:
            return method(request, timeout=seconds, metadata=self._connection.metadata())

        return Watch(start, self._connection, Resumption(timeout, self._retries, give_up_after), shown, broke)
