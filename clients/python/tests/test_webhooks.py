"""A receiver in Python, with the reference library, gets what a real agent tells; and one with another secret nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import perfagent
from conftest import Connect
from support.agent import Agent, wait_until
from support.engine import Engine
from test_examples import EXAMPLES

SECRET = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5"
OTHER = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="


@contextmanager
def receiver(secret: str, log: Path) -> Iterator[str]:
    """The example, and its URL."""
    environment = os.environ | {"WEBHOOK_SECRET": secret}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / "receive_webhooks.py", "0"], env=environment, stdout=out, stderr=out
        )
        try:
            wait_until("the receiver", lambda: "listening on " in log.read_text())
            yield log.read_text().splitlines()[0].removeprefix("listening on ")
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_a_workflow_is_told_to_a_receiver_that_verifies(
    start_agent: Callable[..., Agent], connect: Connect, engine: Engine, tmp_path: Path
) -> None:
    agent = start_agent('[webhook]\nallow = ["127.0.0.1"]\n')
    client = connect(agent.address)
    client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=0.2, window=1)
    with receiver(SECRET, tmp_path / "right") as right, receiver(OTHER, tmp_path / "wrong") as wrong:
        types = ["workflow.status_changed", "workflow.stage_changed"]
        created = client.create_webhook("right", right, types, secret=SECRET)
        assert created.secret == SECRET
        client.create_webhook("wrong", wrong, secret=SECRET)
        assert client.test_webhook("right").taken
        refused = client.test_webhook("wrong")
        assert (refused.taken, refused.http_status) == (False, 401)

        workflow = client.start_workflow("vllm-1", workflow_type="analysis", wait=30)
        client.wait_for_completion(workflow.workflow_id)
        delivered = perfagent.WebhookDeliveryState.WEBHOOK_DELIVERY_STATE_DELIVERED

        def told() -> list[perfagent.WebhookDelivery]:
            return list(client.list_webhook_deliveries(webhook_id="right"))

        wait_until("what is owed", lambda: bool(told()) and all(one.state == delivered for one in told()))
        lines = (tmp_path / "right").read_text().splitlines()
        assert "verified webhook.test" in lines
        ways = [line.split()[2:-1] for line in lines if line.startswith("verified workflow.status_changed")]
        assert ways[0] == ["instance_id=vllm-1", "to=IN_PROGRESS"]
        assert ways[-1] == ["instance_id=vllm-1", "from=IN_PROGRESS", "to=COMPLETED"]
        assert any(line.startswith("verified workflow.stage_changed instance_id=vllm-1 from=ANALYSIS") for line in lines)
        revisions = [one.revision for one in reversed(told())]
        assert revisions == sorted(revisions)
        # who has another secret takes nothing, and is tried again
        (pending, *_) = client.list_webhook_deliveries(webhook_id="wrong")
        attempts = client.get_webhook_delivery(pending.delivery_id).attempts
        assert all(attempt.http_status == 401 for attempt in attempts)
        complaints = (tmp_path / "wrong").read_text().splitlines()[1:]
        assert complaints and all(line.startswith("refused: ") for line in complaints)


def test_webhooks_are_managed(start_agent: Callable[..., Agent], connect: Connect, tmp_path: Path) -> None:
    client = connect(start_agent('[webhook]\nallow = ["127.0.0.1"]\n').address)
    created = client.create_webhook("pager", "http://127.0.0.1:1/", labels={"team": "a"})
    assert created.secret.startswith("whsec_") and created.webhook.labels == {"team": "a"}
    assert [one.webhook_id for one in client.list_webhooks()] == ["pager"]
    assert client.rotate_webhook_secret("pager") != created.secret
    disabled = client.disable_webhook("pager").disabled
    assert disabled.reason == perfagent.WebhookDisabledReason.WEBHOOK_DISABLED_REASON_REQUESTED
    assert not client.enable_webhook("pager").HasField("disabled")
    assert client.get_webhook("pager").url == "http://127.0.0.1:1/"
    client.delete_webhook("pager")
    assert list(client.list_webhooks()) == []
