"""What a failed call raises: the gRPC code as a class, the agent's own reason and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from perfagent.v1.model_pb2 import CollectFailure

_DOMAIN: Final = "perfagent"


@dataclass(frozen=True)
class Violation:
    """A field of the request that is wrong."""

    field: str
    """Path of the field, such as `metrics_urls[2]`."""
    description: str
    """What is wrong with it."""


class PerfagentError(Exception):
    """A call that failed. Subclasses are named after gRPC codes."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str | None = None,
        hint: str | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        call_id: str | None = None,
    ) -> None:
        self.code: Final = code
        """gRPC code."""
        self.message: Final = message
        """A sentence."""
        self.reason: Final = reason
        """The agent's word for it, such as `CONNECT_FAILED`. None where it was not the agent that answered."""
        self.hint: Final = hint
        """What to do about it, where something is known."""
        self.violations: Final = violations
        """Fields of the request that are wrong."""
        self.retry_after: Final = retry_after
        """Seconds after which to try again, where the agent says so."""
        self.metadata: Final = dict(metadata or {})
        """What else the agent tells, such as `url` and `http_status` of a scrape that failed."""
        self.call_id: Final = call_id
        """`x-request-id` of the call, under which the agent's log has it."""
        super().__init__(self._text())

    def _text(self) -> str:
        text = self.code.name if self.reason in (None, self.code.name) else f"{self.code.name} ({self.reason})"
        text = f"{text}: {self.message}"
        for wrong in self.violations:
            if wrong.description not in self.message:
                text += f"; {wrong.field}: {wrong.description}"
        if self.hint and self.hint not in self.message:
            text += f" ({self.hint})"
        return text


class Cancelled(PerfagentError):
    """The call was cancelled, and not by its caller."""


class InvalidArgument(PerfagentError):
    """The request is wrong; `violations` says where."""


class DeadlineExceeded(PerfagentError):
    """The deadline passed."""


class NotFound(PerfagentError):
    """There is no such instance, workflow or snapshot."""


class AlreadyExists(PerfagentError):
    """There is one already."""


class PermissionDenied(PerfagentError):
    """The caller's role may not do that, or the URL may not be fetched."""


class ResourceExhausted(PerfagentError):
    """Too many or too much."""


class FailedPrecondition(PerfagentError):
    """The state of the instance or what the engine answers does not allow it."""


class Aborted(PerfagentError):
    """Somebody else changed it since it was read."""


class OutOfRange(PerfagentError):
    """Events before `metadata["oldest_revision"]` are not kept any more."""


class Unimplemented(PerfagentError):
    """The agent, which may be older than this client, has no such method."""


class Internal(PerfagentError):
    """A fault of the agent or of what lies between."""


class Unavailable(PerfagentError):
    """The agent or the engine cannot be reached now."""


class DataLoss(PerfagentError):
    """What the agent keeps on disk cannot be read."""


class Unauthenticated(PerfagentError):
    """No credential, or one that the agent does not know."""


_CLASSES: Final[Mapping[grpc.StatusCode, type[PerfagentError]]] = {
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def error_of(failure: CollectFailure) -> PerfagentError:
    """What `collect_metrics` would have raised: of a target of a batch, of a window that is missing."""
    code = _CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    hint = failure.hint if failure.HasField("hint") else None
    return _CLASSES.get(code, PerfagentError)(code, failure.message, reason=failure.reason, hint=hint)


def from_status(
    code: grpc.StatusCode, message: str | None, trailers: Iterable[tuple[str, str | bytes]] | None, hint: str
) -> PerfagentError:
    """From what a call ended with. `hint` stands where the agent cannot be reached and so gives none."""
    reason: str | None = None
    given: str | None = None
    violations: tuple[Violation, ...] = ()
    retry_after: float | None = None
    metadata: dict[str, str] = {}
    call_id: str | None = None
    for key, value in trailers or ():
        if key == "x-request-id":
            call_id = value if isinstance(value, str) else value.decode("ascii", "replace")
        if key != "grpc-status-details-bin" or isinstance(value, str):
            continue
        status = Status()
        try:
            status.ParseFromString(value)
        except DecodeError:
            continue
        info = ErrorInfo()
        wrong = BadRequest()
        retry = RetryInfo()
        for detail in status.details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                metadata = dict(info.metadata)
                reason, given = info.reason, metadata.pop("hint", None)
            elif detail.Unpack(wrong):
                violations = tuple(Violation(each.field, each.description) for each in wrong.field_violations)
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    if reason is None and code is grpc.StatusCode.UNAVAILABLE:
        given = hint
    return _CLASSES.get(code, PerfagentError)(
        code,
        message or "no message",
        reason=reason,
        hint=given,
        violations=violations,
        retry_after=retry_after,
        metadata=metadata,
        call_id=call_id,
    )


def from_rpc_error(error: grpc.RpcError, hint: str) -> PerfagentError:
    """From what grpc raises."""
    # all that calls raise are calls, which the types do not say
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return PerfagentError(grpc.StatusCode.UNKNOWN, str(error))
    return from_status(error.code(), error.details(), error.trailing_metadata(), hint)
