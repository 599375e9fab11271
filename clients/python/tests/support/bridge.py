"""The asyncio client behind the face of the other one, so that one test tries both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from perfagent import aio

T = TypeVar("T")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class Bridge:
    """`perfagent.aio.Client`, called from a thread."""

    def __init__(self, loop: Loop, *arguments: Any, **named: Any) -> None:
        async def make() -> aio.Client:
            return aio.Client(*arguments, **named)

        self._loop = loop
        self._client = loop.run(make())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(arguments: Any, named: Any) -> Any:
            answer = method(*arguments, **named)
            return await answer if inspect.isawaitable(answer) else answer

        def called(*arguments: Any, **named: Any) -> Any:
            answer = self._loop.run(call(arguments, named))
            return Messages(self._loop, answer) if hasattr(answer, "__anext__") else answer

        return called

    def __repr__(self) -> str:
        return repr(self._client)


class Messages:
    """An asynchronous iterator or watch, read from a thread."""

    _END = object()

    def __init__(self, loop: Loop, messages: Any) -> None:
        self._loop = loop
        self._messages = messages

    def __enter__(self) -> Self:
        self._loop.run(self._messages.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.run(self._messages.__aexit__(kind, error, traceback))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        async def following() -> Any:
            return await anext(self._messages, self._END)

        message = self._loop.run(following())
        if message is self._END:
            raise StopIteration
        return message

    def cancel(self) -> None:
        async def cancel() -> None:
            self._messages.cancel()

        self._loop.run(cancel())

    def close(self) -> None:
        self._loop.run(self._messages.aclose())

    @property
    def resumed(self) -> int:
        return int(self._messages.resumed)
