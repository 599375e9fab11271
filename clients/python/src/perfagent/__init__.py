"""Client of perfagent, which measures LLM inference engines: `Client` for threads, `aio.Client` for asyncio."""

from perfagent import aio
from perfagent._measured import measured, why_absent
from perfagent._requests import target
from perfagent._version import __version__
from perfagent._watch import Watch
from perfagent.client import Client
from perfagent.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PerfagentError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
    error_of,
)
from perfagent.v1.analysis_pb2 import BottleneckEvent
from perfagent.v1.bottleneck_pb2 import BottleneckType, DiagnosisVerdict, OptimizationType, Severity
from perfagent.v1.comparison_pb2 import ComparisonVerdict
from perfagent.v1.instance_pb2 import Instance
from perfagent.v1.metrics_pb2 import WatchEvent
from perfagent.v1.model_pb2 import InstanceState, Measurement
from perfagent.v1.slo_pb2 import Slo, SloAggregation, SloStatus

__all__ = [
    "Aborted",
    "AlreadyExists",
    "BottleneckEvent",
    "BottleneckType",
    "Cancelled",
    "Client",
    "ComparisonVerdict",
    "DataLoss",
    "DeadlineExceeded",
    "DiagnosisVerdict",
    "FailedPrecondition",
    "Instance",
    "InstanceState",
    "Internal",
    "InvalidArgument",
    "Measurement",
    "NotFound",
    "OptimizationType",
    "PerfagentError",
    "PermissionDenied",
    "ResourceExhausted",
    "Severity",
    "Slo",
    "SloAggregation",
    "SloStatus",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "Watch",
    "WatchEvent",
    "__version__",
    "aio",
    "error_of",
    "measured",
    "target",
    "why_absent",
]
