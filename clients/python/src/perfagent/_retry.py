"""When to try again: one rule for calls, one for watches, without a clock of their own so that both clients use them.

It is not gRPC's retry policy, which knows nothing of RetryInfo; and two layers of retries would multiply.
"""

from __future__ import annotations

import random
import time
from typing import Final

import grpc

from perfagent._contract import Rpc
from perfagent.errors import PerfagentError

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_TOO_SLOW: Final = "WATCHER_TOO_SLOW"
"""A watch that fell behind goes on where it was."""


def _passes(failure: PerfagentError) -> bool:
    return failure.code is grpc.StatusCode.UNAVAILABLE or (
        failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED and failure.retry_after is not None
    )


def _pause(failures: int, failure: PerfagentError) -> float:
    """Seconds, doubled with each failure and spread, and not less than the agent asks for."""
    usual = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)
    asked = (failure.retry_after or 0.0) * random.uniform(1.0, 1.25)
    return max(usual, asked)


class Attempts:
    """The attempts of one call.

    Each has the deadline that is documented for the RPC. A `timeout` bounds the call as a whole instead, pauses
    included.
    """

    def __init__(self, rpc: Rpc, timeout: float | None, retries: int, window: float = 0.0) -> None:
        self._each: Final = None if rpc.deadline is None else rpc.deadline + window
        self._end: Final = None if timeout is None else time.monotonic() + timeout
        self._window: Final = window
        self._left = retries if rpc.is_retry_safe else 0
        self._failures = 0

    def timeout(self) -> float | None:
        """Seconds for the attempt that begins now."""
        return self._each if self._end is None else max(0.0, self._end - time.monotonic())

    def pause_after(self, failure: PerfagentError) -> float | None:
        """Seconds to wait before the next attempt; None where there is none."""
        if not _passes(failure) or self._left <= 0:
            return None
        pause = _pause(self._failures, failure)
        # an attempt that cannot have its window would be refused for that, and hide why it was needed
        if self._end is not None and time.monotonic() + pause + self._window >= self._end:
            return None
        self._left -= 1
        self._failures += 1
        return pause


class Resumption:
    """The attempts of one watch: as many as those of a call until it is first heard of, and then no end of them."""

    def __init__(self, timeout: float | None, retries: int, give_up_after: float | None) -> None:
        self._end: Final = None if timeout is None else time.monotonic() + timeout
        self._give_up_after: Final = give_up_after
        self._left = retries
        self._failures = 0
        self._heard = False
        self._lost_at: float | None = None

    def timeout(self) -> float | None:
        """Seconds that are left to the watch."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def heard(self) -> None:
        """A message came."""
        self._heard = True
        self._failures = 0
        self._lost_at = None

    def pause_after(self, failure: PerfagentError) -> float | None:
        """Seconds to wait before the next attempt; None where the watch is over."""
        # what breaks on the way has no reason of the agent's
        broke = failure.reason is None and failure.code in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        )
        if not (broke or _passes(failure) or failure.reason == _TOO_SLOW):
            return None
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if not self._heard:
            if self._left <= 0:
                return None
            self._left -= 1
        pause = _pause(self._failures, failure)
        if self._give_up_after is not None and now + pause - self._lost_at >= self._give_up_after:
            return None
        self._failures += 1
        return pause
