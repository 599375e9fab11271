"""A stream without end that is begun again when it breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, cast

import grpc
from grpc import aio

from perfagent._connection import LOG, Connection
from perfagent._contract import HEARTBEAT
from perfagent._retry import Resumption
from perfagent.errors import PerfagentError, Unavailable, from_rpc_error

SILENCE: Final = 3 * HEARTBEAT
"""Seconds without a message after which the agent is taken for dead, whatever lies between and says nothing."""

_Event = TypeVar("_Event")
_Event_co = TypeVar("_Event_co", covariant=True)


class MessageStream(Protocol[_Event_co]):
    """What grpc returns for a stream of the server."""

    def __next__(self) -> _Event_co: ...

    def cancel(self) -> object: ...


class Watch(Iterator[_Event], Generic[_Event]):
    """Messages of a watch. It is read by one thread; any thread may cancel it."""

    def __init__(
        self,
        start: Callable[[float | None], MessageStream[_Event]],
        connection: Connection,
        resumption: Resumption,
        shown: Callable[[_Event], bool] | None,
        broke: Callable[[PerfagentError], None] | None = None,
    ) -> None:
        self._start: Final = start
        self._connection: Final = connection
        self._resumption: Final = resumption
        self._shown: Final = shown
        self._broke: Final = broke
        self._ended: Final = threading.Event()
        self._alarm: Final = _Alarm(SILENCE)
        self._call: MessageStream[_Event] | None = None
        self.resumed = 0
        """How often it was begun again."""

    def cancel(self) -> None:
        """Ends the iteration, also one that waits for a message in another thread."""
        self._ended.set()
        self._alarm.stop()
        call = self._call
        if call is not None:
            call.cancel()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Event:
        while not self._ended.is_set():
            try:
                event = self._next()
            except StopIteration:
                break
            except grpc.RpcError as error:
                if self._ended.is_set():
                    break
                failure = silent() if self._alarm.has_rung else from_rpc_error(error, self._connection.hint)
            else:
                self._resumption.heard()
                if self._shown is None or self._shown(event):
                    return event
                continue
            self._call = None
            if self._broke is not None:
                self._broke(failure)
            pause = self._resumption.pause_after(failure)
            if pause is None:
                self.cancel()
                raise failure
            LOG.info("the watch broke off and resumes in %.1f s: %s", pause, failure)
            self.resumed += 1
            self._ended.wait(pause)
        self.cancel()
        raise StopIteration

    def _next(self) -> _Event:
        call = self._call
        if call is None:
            call = self._call = self._start(self._resumption.timeout())
            if self._ended.is_set():
                # cancelled while it was begun
                call.cancel()
        self._alarm.begin(call.cancel)
        try:
            return next(call)
        finally:
            self._alarm.end()


class AsyncWatch(AsyncIterator[_Event], Generic[_Event]):
    """As `Watch`, read by one task."""

    def __init__(
        self,
        start: Callable[[float | None], aio.UnaryStreamCall[Any, _Event]],
        connection: Connection,
        resumption: Resumption,
        shown: Callable[[_Event], bool] | None,
        broke: Callable[[PerfagentError], None] | None = None,
    ) -> None:
        self._start: Final = start
        self._connection: Final = connection
        self._resumption: Final = resumption
        self._shown: Final = shown
        self._broke: Final = broke
        self._ended: Final = asyncio.Event()
        self._call: aio.UnaryStreamCall[Any, _Event] | None = None
        self.resumed = 0
        """How often it was begun again."""

    def cancel(self) -> None:
        """Ends the iteration, also one that waits for a message in another task."""
        self._ended.set()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Event:
        while not self._ended.is_set():
            try:
                event = await self._next()
            except StopAsyncIteration:
                break
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._ended.is_set() and (task is None or not task.cancelling()):
                    break
                # giving up reading ends the call; whoever reads on, as after a timeout of its own, has a new one
                self._call = None
                raise
            except TimeoutError:
                failure = silent()
            except grpc.RpcError as error:
                if self._ended.is_set():
                    break
                failure = from_rpc_error(error, self._connection.hint)
            else:
                self._resumption.heard()
                if self._shown is None or self._shown(event):
                    return event
                continue
            self._call = None
            if self._broke is not None:
                self._broke(failure)
            pause = self._resumption.pause_after(failure)
            if pause is None:
                self.cancel()
                raise failure
            LOG.info("the watch broke off and resumes in %.1f s: %s", pause, failure)
            self.resumed += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ended.wait()
        self.cancel()
        raise StopAsyncIteration

    async def _next(self) -> _Event:
        if self._call is None:
            self._call = self._start(self._resumption.timeout())
        async with asyncio.timeout(SILENCE):
            event = await self._call.read()
        if event is aio.EOF:
            raise StopAsyncIteration
        return cast(_Event, event)


class _Alarm:
    """Cancels a call that is waited for too long. The time that its reader takes does not count."""

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        self._condition: Final = threading.Condition()
        self._since: float | None = None
        self._cancel: Callable[[], object] | None = None
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self.has_rung = False

    def begin(self, cancel: Callable[[], object]) -> None:
        with self._condition:
            self._since, self._cancel, self.has_rung = time.monotonic(), cancel, False
            if self._thread is None and not self._is_stopped:
                self._thread = threading.Thread(target=self._run, name="perfagent-watch", daemon=True)
                self._thread.start()

    def end(self) -> None:
        with self._condition:
            self._since = self._cancel = None

    def stop(self) -> None:
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def _run(self) -> None:
        with self._condition:
            while not self._is_stopped:
                waited = 0.0 if self._since is None else time.monotonic() - self._since
                if self._cancel is not None and waited >= self._seconds:
                    self.has_rung = True
                    self._cancel()
                    self._since = self._cancel = None
                    waited = 0.0
                self._condition.wait(self._seconds - waited)


def silent() -> PerfagentError:
    """Nothing was heard for too long."""
    return Unavailable(grpc.StatusCode.UNAVAILABLE, f"nothing was heard of the agent for {SILENCE:.0f} s")
