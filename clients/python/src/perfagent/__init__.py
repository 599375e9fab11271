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
    OutOfRange,
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
from perfagent.v1.bottleneck_pb2 import Bottleneck, BottleneckType, DiagnosisVerdict, OptimizationType, Severity
from perfagent.v1.comparison_pb2 import ComparisonVerdict
from perfagent.v1.instance_pb2 import Instance
from perfagent.v1.metrics_pb2 import WatchEvent
from perfagent.v1.model_pb2 import InstanceState, Measurement
from perfagent.v1.optimization_pb2 import OptimizationConstraints
from perfagent.v1.prediction_pb2 import PredictionState
from perfagent.v1.recommendation_pb2 import OptimizationAdvice, OptimizationPriority
from perfagent.v1.setting_pb2 import SettingSource, SettingState
from perfagent.v1.slo_pb2 import Slo, SloAggregation, SloStatus
from perfagent.v1.webhook_pb2 import (
    Webhook,
    WebhookAttempt,
    WebhookDelivery,
    WebhookDeliveryState,
    WebhookDisabledReason,
)
from perfagent.v1.workflow_state_pb2 import (
    ConfigSnapshot,
    Workflow,
    WorkflowCanary,
    WorkflowEvent,
    WorkflowGate,
    WorkflowOnTimeout,
    WorkflowOutcome,
    WorkflowStage,
    WorkflowStatus,
    WorkflowType,
)

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Bottleneck",
    "BottleneckEvent",
    "BottleneckType",
    "Cancelled",
    "Client",
    "ComparisonVerdict",
    "ConfigSnapshot",
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
    "OptimizationAdvice",
    "OptimizationConstraints",
    "OptimizationPriority",
    "OptimizationType",
    "OutOfRange",
    "PerfagentError",
    "PermissionDenied",
    "PredictionState",
    "ResourceExhausted",
    "SettingSource",
    "SettingState",
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
    "Webhook",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookDeliveryState",
    "WebhookDisabledReason",
    "Workflow",
    "WorkflowCanary",
    "WorkflowEvent",
    "WorkflowGate",
    "WorkflowOnTimeout",
    "WorkflowOutcome",
    "WorkflowStage",
    "WorkflowStatus",
    "WorkflowType",
    "__version__",
    "aio",
    "error_of",
    "measured",
    "target",
    "why_absent",
]
