"""What the comments of the protos say of each RPC. `tests/test_contract.py` compares the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rpc:
    """How to call it."""

    deadline: float | None
    """Seconds that one attempt may take, beside its window where it has one. None for a stream without end."""
    is_retry_safe: bool = True
    """A repeat does no harm; of an RPC with `request_id`, with the same one."""


DEFAULT_WINDOW: Final = 5.0
"""Seconds that an inline target is measured where no window is given."""

HEARTBEAT: Final = 15.0
"""Seconds after which a watch hears of the agent where nothing happens."""

MAX_REQUEST_BYTES: Final = 4 << 20
"""`GetAgentInfo` says so: `limits.max_request_bytes`."""

MAX_RESPONSE_BYTES: Final = 1 << 20
"""`limits.max_response_bytes`."""

# perfagent.v1.AgentService
GET_AGENT_INFO: Final = Rpc(1)
GET_CAPABILITIES: Final = Rpc(1)
# perfagent.v1.AnalysisService
DETECT_BOTTLENECKS: Final = Rpc(25)
EVALUATE_SLOS: Final = Rpc(25)
WATCH_BOTTLENECKS: Final = Rpc(None)
# perfagent.v1.InstanceService
REGISTER_INSTANCE: Final = Rpc(10)
GET_INSTANCE: Final = Rpc(1)
LIST_INSTANCES: Final = Rpc(5)
UPDATE_INSTANCE: Final = Rpc(10)
DELETE_INSTANCE: Final = Rpc(10)
# perfagent.v1.MetricsService
COLLECT_METRICS: Final = Rpc(25)
BATCH_COLLECT_METRICS: Final = Rpc(30)
WATCH_METRICS: Final = Rpc(None)
COMPARE_METRICS: Final = Rpc(5)
# perfagent.v1.OptimizationService
RECOMMEND_OPTIMIZATIONS: Final = Rpc(30)
GET_INSTANCE_CONFIG: Final = Rpc(25)
PREDICT_PERFORMANCE: Final = Rpc(30)
LIST_PREDICTIONS: Final = Rpc(5)
# perfagent.v1.WebhookService
CREATE_WEBHOOK: Final = Rpc(10)
GET_WEBHOOK: Final = Rpc(5)
LIST_WEBHOOKS: Final = Rpc(5)
ENABLE_WEBHOOK: Final = Rpc(10)
DISABLE_WEBHOOK: Final = Rpc(10)
DELETE_WEBHOOK: Final = Rpc(10, is_retry_safe=False)
ROTATE_WEBHOOK_SECRET: Final = Rpc(10)
TEST_WEBHOOK: Final = Rpc(30)
LIST_WEBHOOK_DELIVERIES: Final = Rpc(5)
GET_WEBHOOK_DELIVERY: Final = Rpc(5)
REDELIVER_WEBHOOK: Final = Rpc(10)
# perfagent.v1.WorkflowService
START_WORKFLOW: Final = Rpc(10)
GET_WORKFLOW: Final = Rpc(5)
LIST_WORKFLOWS: Final = Rpc(5)
APPROVE_WORKFLOW: Final = Rpc(10)
REJECT_WORKFLOW: Final = Rpc(10)
PAUSE_WORKFLOW: Final = Rpc(10)
RESUME_WORKFLOW: Final = Rpc(10)
CANCEL_WORKFLOW: Final = Rpc(10)
ROLLBACK_WORKFLOW: Final = Rpc(10)
WATCH_WORKFLOW: Final = Rpc(None)
WATCH_WORKFLOWS: Final = Rpc(None)
LIST_WORKFLOW_EVENTS: Final = Rpc(5)
CREATE_CONFIG_SNAPSHOT: Final = Rpc(60)
LIST_CONFIG_SNAPSHOTS: Final = Rpc(5)
# grpc.health.v1.Health, whose proto says nothing of it
CHECK: Final = Rpc(1)
CHECK_METHOD: Final = "/grpc.health.v1.Health/Check"
