"""Every RPC, with what it is for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import perfagent
from conftest import Connect
from perfagent.v1.metrics_pb2 import WATCH_EVENT_WINDOW
from perfagent.v1.model_pb2 import WINDOW_KIND_INTERVAL
from support.agent import Agent, wait_until
from support.engine import Engine


def test_the_agent_tells_what_it_is(client: Any) -> None:
    assert client.is_serving()
    assert client.is_serving("perfagent.v1.MetricsService")
    assert client.agent_info().version == perfagent.__version__
    assert {"vllm", "sglang", "tgi"} <= {engine.name for engine in client.capabilities().engines}


def test_an_inline_target_is_measured_over_the_window(client: Any, engine: Engine) -> None:
    answer = client.collect_metrics("vllm-1", "vllm", engine.url, window=1.0)
    measurement = answer.measurement
    assert not answer.stale
    assert perfagent.measured(measurement.throughput_metrics, "tokens_per_second") == pytest.approx(1000, rel=0.5)
    # this engine exports no such metric: absent is not zero
    assert perfagent.measured(measurement.request_metrics, "time_per_output_token_seconds") is None
    assert perfagent.why_absent(measurement, "inter_token_latency_seconds")
    assert perfagent.why_absent(measurement, "time_to_first_token_seconds") is None


def test_totals_and_the_basic_view(client: Any, engine: Engine) -> None:
    answer = client.collect_metrics("vllm-1", metrics_urls=[engine.url], window=timedelta(0), view="basic")
    metrics = answer.measurement.throughput_metrics
    assert perfagent.measured(metrics, "generation_tokens_total") == 1000
    assert perfagent.measured(metrics, "tokens_per_second") is None
    assert not answer.measurement.HasField("figures")


def test_an_instance_lives_and_is_forgotten(client: Any, engine: Engine) -> None:
    made = client.register_instance(
        "vllm-1", metrics_url=engine.url, scrape_interval=0.5, window=timedelta(seconds=5), labels={"team": "chat"}
    )
    assert made.scrape_interval.ToTimedelta() == timedelta(milliseconds=500)
    assert client.get_instance("vllm-1").labels == {"team": "chat"}

    made.labels["team"] = "search"
    changed = client.update_instance(made, ["labels"])
    assert changed.labels == {"team": "search"}
    with pytest.raises(perfagent.Aborted) as stale:
        client.update_instance(made, ["labels"])
    assert stale.value.reason == "ETAG_MISMATCH"
    with pytest.raises(perfagent.Aborted):
        client.delete_instance("vllm-1", etag=made.etag)

    client.delete_instance("vllm-1", etag=changed.etag)
    with pytest.raises(perfagent.NotFound):
        client.get_instance("vllm-1")


def test_a_request_id_makes_a_repeat_harmless(client: Any, engine: Engine) -> None:
    repeated = {"request_id": "5f7a4d0c-6f6c-4b86-9f4e-3a2d2b1f0c9e", "metrics_url": engine.url}
    first = client.register_instance("vllm-1", **repeated)
    assert client.register_instance("vllm-1", **repeated).etag == first.etag
    with pytest.raises(perfagent.AlreadyExists):
        client.register_instance("vllm-1", metrics_url=engine.url)


def test_lists_go_over_pages(client: Any, engine: Engine) -> None:
    for number in range(5):
        labels = {"even": str(number % 2 == 0)}
        client.register_instance(f"vllm-{number}", metrics_url=engine.url, labels=labels)
    every = [instance.instance_id for instance in client.list_instances(page_size=2)]
    assert every == [f"vllm-{number}" for number in range(5)]
    even = [instance.instance_id for instance in client.list_instances(labels={"even": "True"}, page_size=1)]
    assert even == ["vllm-0", "vllm-2", "vllm-4"]


def test_a_batch_tells_each_result_and_each_failure(client: Any, engine: Engine) -> None:
    targets = [
        perfagent.target("good", metrics_url=engine.url, window=0),
        perfagent.target("dead", metrics_url="http://127.0.0.1:1/metrics", window=0),
        "unknown",
    ]
    results = {result.instance_id: result for result in client.batch_collect_metrics(targets)}
    assert set(results) == {"good", "dead", "unknown"}
    assert results["good"].measurement.throughput_metrics.HasField("generation_tokens_total")
    assert isinstance(perfagent.error_of(results["unknown"].failure), perfagent.NotFound)
    dead = perfagent.error_of(results["dead"].failure)
    assert isinstance(dead, perfagent.Unavailable)
    assert dead.reason == "CONNECT_FAILED"
    assert dead.hint


def test_a_batch_can_be_left(client: Any, agent: Agent, engine: Engine) -> None:
    targets = [perfagent.target("now", metrics_url=engine.url, window=0)]
    targets += [perfagent.target("later", metrics_url=engine.url, window=60)]
    results = client.batch_collect_metrics(targets)
    assert next(results).instance_id == "now"
    results.close()
    agent.wait_for_call("BatchCollectMetrics")


def test_a_registered_instance_is_watched_and_answered_at_once(client: Any, engine: Engine) -> None:
    client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=0.2, window=1)
    with client.watch_metrics(["vllm-1"], view="basic") as watch:
        windows = (event for event in watch if event.event == WATCH_EVENT_WINDOW)
        # one scrape alone gives totals
        event = next(event for event in windows if event.measurement.window.kind == WINDOW_KIND_INTERVAL)
    assert event.measurement.throughput_metrics.HasField("tokens_per_second")
    assert client.collect_metrics("vllm-1").measurement.instance_type == "vllm"


def test_what_holds_it_back_is_told_of_all_three(client: Any, engine: Engine) -> None:
    client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=0.2, window=1)
    with client.watch_bottlenecks(["vllm-1"]) as watch:
        event = next(event for event in watch if event.event == perfagent.BottleneckEvent.BOTTLENECK_EVENT_CURRENT)
    assert event.instance_id == "vllm-1" and event.HasField("window_end_time")
    assert client.detect_bottlenecks("vllm-1").instance_type == "vllm"
    measurement = client.collect_metrics("inline", metrics_url=engine.url, window=1).measurement
    of_measurement = client.detect_bottlenecks("inline", measurement)
    assert of_measurement.window == measurement.window
    of_target = client.detect_bottlenecks("inline", metrics_url=engine.url, window=1)
    assert of_target.verdict == of_measurement.verdict != 0
    with pytest.raises(perfagent.InvalidArgument) as wrong:
        client.detect_bottlenecks("inline", measurement, thresholds={"stall_second": 1.0})
    assert "stall_seconds" in str(wrong.value)
    basic = client.collect_metrics("inline", metrics_url=engine.url, window=1, view="basic").measurement
    with pytest.raises(perfagent.InvalidArgument, match="FULL"):
        client.detect_bottlenecks("inline", basic)


def test_what_to_change_is_told_of_all_that_can_be_asked_about(client: Any, engine: Engine) -> None:
    measurement = client.collect_metrics("inline", metrics_url=engine.url, window=1).measurement
    of_measurement = client.recommend_optimizations("inline", measurement)
    assert of_measurement.advice != 0 and of_measurement.settings and of_measurement.window == measurement.window
    # the guide's third use case: nothing is measured, so nothing is predicted
    bare = perfagent.Bottleneck(cause="SEQUENCE_CAP")
    config = {"max_batch_size": 32, "quantization": None, "no_such_setting": 1}
    ranked = client.recommend_optimizations("vllm-1", instance_type="vllm", bottlenecks=[bare], current_config=config)
    assert ranked.optimizations and not ranked.HasField("window")
    for one in ranked.optimizations:
        assert one.not_predictable_reason and not one.HasField("prediction") and not one.estimated_improvement
    assert any("no_such_setting" in remark for remark in ranked.remarks)
    caps = [one.value for one in ranked.settings if one.name == "max_num_seqs"]
    assert caps == ["32"]
    with pytest.raises(perfagent.InvalidArgument) as wrong:
        client.recommend_optimizations("vllm-1", bottlenecks=[bare], metrics_url=engine.url)
    assert {one.field for one in wrong.value.violations} == {"metrics_url", "instance_type"}


def test_settings_and_what_if(client: Any, engine: Engine) -> None:
    told = client.get_instance_config("inline", metrics_url=engine.url, window=1)
    assert told.instance_type == "vllm" and {one.name for one in told.settings} >= {"max_num_seqs"}
    measurement = client.collect_metrics("inline", metrics_url=engine.url, window=1).measurement
    what_if = client.predict_performance("inline", {"max_num_seqs": 64}, measurement)
    assert [(one.name, one.to_value) for one in what_if.changes] == [("max_num_seqs", "64")]
    assert what_if.HasField("prediction") != bool(what_if.not_predictable_reason)
    with pytest.raises(perfagent.InvalidArgument) as wrong:
        client.predict_performance("inline", {}, measurement)
    assert wrong.value.violations[0].field == "changes"
    assert client.list_predictions(instance_id="nobody").predictions == []


def test_slos_are_held_against(client: Any, engine: Engine) -> None:
    p99 = perfagent.Slo(name="ttft", quantity="time_to_first_token_seconds", quantile=0.99, at_most=30)
    client.register_instance("vllm-slo", metrics_url=engine.url, scrape_interval=0.2, window=2, slos=[p99])
    assert client.get_instance("vllm-slo").slos[0].at_most == 30
    kept = client.evaluate_slos("inline", metrics_url=engine.url, window=1, slos=[p99])
    assert kept.slos[0].slo.name == "ttft" and kept.status != 0
    with pytest.raises(perfagent.InvalidArgument) as wrong:
        client.evaluate_slos("inline", metrics_url=engine.url, slos=[perfagent.Slo(name="a", quantity="b", at_most=1)])
    assert wrong.value.violations[0].field == "slos[0].quantity"


def test_before_and_after_are_compared(connect: Connect, agent: Agent) -> None:
    client = connect(agent.address)
    with Engine(seconds_to_first_token=0.2) as slow, Engine(seconds_to_first_token=0.1) as fast:
        for name, engine in (("before", slow), ("after", fast)):
            client.register_instance(name, metrics_url=engine.url, scrape_interval=0.2, window=2)
        before, after = (full_window(client, name) for name in ("before", "after"))
    compared = client.compare_metrics(before, after)
    first_token = next(each for each in compared.comparisons if each.name == "time_to_first_token_seconds")
    assert first_token.ratio == pytest.approx(0.5, rel=0.1)
    assert first_token.verdict == perfagent.ComparisonVerdict.COMPARISON_VERDICT_IMPROVED


def full_window(client: Any, name: str) -> perfagent.Measurement:
    """Its last window, once that has enough scrapes to judge by."""

    def look() -> perfagent.Measurement | None:
        try:
            measurement: perfagent.Measurement = client.collect_metrics(name).measurement
        except perfagent.Unavailable:
            return None
        return measurement if measurement.window.samples >= 10 else None

    return wait_until(f"a window of {name}", look)
