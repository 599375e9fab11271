"""How the client for asyncio makes calls: its channel, retries, streams and watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import grpc
from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from perfagent import _contract as contract
from perfagent._connection import Connection, PathLike
from perfagent._contract import Rpc
from perfagent._retry import Attempts, Resumption
from perfagent._watch import AsyncWatch
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

if TYPE_CHECKING:
    from perfagent.v1.agent_pb2_grpc import AgentServiceAsyncStub
    from perfagent.v1.analysis_pb2_grpc import AnalysisServiceAsyncStub
    from perfagent.v1.instance_pb2_grpc import InstanceServiceAsyncStub
    from perfagent.v1.metrics_pb2_grpc import MetricsServiceAsyncStub
    from perfagent.v1.optimization_pb2_grpc import OptimizationServiceAsyncStub
    from perfagent.v1.webhook_pb2_grpc import WebhookServiceAsyncStub
    from perfagent.v1.workflow_pb2_grpc import WorkflowServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Caller:
    """As `_calls.Caller`, of one event loop."""

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
        """As `perfagent.Client`."""
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
            aio.insecure_channel(target, arguments)
            if credentials is None
            else aio.secure_channel(target, credentials, arguments)
        )
        self._agent: Final[AgentServiceAsyncStub] = agent_pb2_grpc.AgentServiceStub(self._channel)
        self._analysis: Final[AnalysisServiceAsyncStub] = analysis_pb2_grpc.AnalysisServiceStub(self._channel)
        self._instances: Final[InstanceServiceAsyncStub] = instance_pb2_grpc.InstanceServiceStub(self._channel)
        self._metrics: Final[MetricsServiceAsyncStub] = metrics_pb2_grpc.MetricsServiceStub(self._channel)
        self._optimization: Final[OptimizationServiceAsyncStub] = optimization_pb2_grpc.OptimizationServiceStub(self._channel)
        self._webhooks: Final[WebhookServiceAsyncStub] = webhook_pb2_grpc.WebhookServiceStub(self._channel)
        self._workflows: Final[WorkflowServiceAsyncStub] = workflow_pb2_grpc.WorkflowServiceStub(self._channel)
        self._check: Final[aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]] = (
            self._channel.unary_unary(
                contract.CHECK_METHOD, HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
            )
        )

    async def close(self) -> None:
        """Ends what still runs. The client cannot be used any more."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<perfagent.aio.Client of {self._connection!r}>"

    # how calls are made: what a new RPC uses

    async def _unary(
        self,
        method: aio.UnaryUnaryMultiCallable[_Request, _Response],
        rpc: Rpc,
        request: _Request,
        timeout: float | None,
        window: float = 0.0,
    ) -> _Response:
        attempts = Attempts(rpc, timeout, self._retries, window)
        while True:
            try:
                return await method(request, timeout=attempts.timeout(), metadata=self._connection.metadata())
            except grpc.RpcError as error:
                failure = from_rpc_error(error, self._connection.hint)
            pause = attempts.pause_after(failure)
            if pause is None:
                raise failure
            await asyncio.sleep(pause)

    async def _stream(
        self,
        method: aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> AsyncGenerator[_Response]:
        is_begun = False
        while True:
            call = method(request, timeout=attempts.timeout(), metadata=self._connection.metadata())
            try:
                async for response in call:
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
            await asyncio.sleep(pause)

    def _watch(
        self,
        method: aio.UnaryStreamMultiCallable[_Request, _Response],
        request: _Request,
        timeout: float | None,
        give_up_after: float | None,
        shown: Callable[[_Response], bool] | None = None,
        broke: Callable[[PerfagentError], None] | None = None,
    ) -> AsyncWatch[_Response]:
        def start(seconds: float | None) -> aio.UnaryStreamCall[_Request, _Response]:
            return method(request, timeout=seconds, metadata=self._connection.metadata())

        return AsyncWatch(start, self._connection, Resumption(timeout, self._retries, give_up_after), shown, broke)
