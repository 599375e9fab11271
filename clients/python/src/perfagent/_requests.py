"""Requests from Python values: one place for both clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from perfagent._contract import DEFAULT_WINDOW
from perfagent.v1 import (
    analysis_pb2,
    bottleneck_pb2,
    instance_pb2,
    metrics_pb2,
    model_pb2,
    optimization_pb2,
    prediction_pb2,
    slo_pb2,
)

Span = float | timedelta
"""Seconds, or a timedelta."""

Settings = Mapping[str, float | str | bool | None]
"""Settings of an engine by name or launch flag; None for one that is not set, or whose flag is to be taken away."""

View = Literal["full", "basic"]
"""How much of a measurement to answer with; basic is without figures, settings and the figures of each replica."""

_VIEWS: Mapping[View, metrics_pb2.MeasurementView.ValueType] = {
    "full": metrics_pb2.MEASUREMENT_VIEW_FULL,
    "basic": metrics_pb2.MEASUREMENT_VIEW_BASIC,
}


def new_request_id() -> str:
    return str(uuid.uuid4())


def duration(span: Span | None) -> Duration | None:
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span if isinstance(span, timedelta) else timedelta(seconds=span))
    return message


def view_of(view: View) -> metrics_pb2.MeasurementView.ValueType:
    try:
        return _VIEWS[view]
    except KeyError:
        raise ValueError(f"view is full or basic, not {view!r}") from None


def target(
    instance_id: str,
    instance_type: str = "",
    metrics_url: str = "",
    *,
    metrics_urls: Sequence[str] = (),
    window: Span | None = None,
    view: View = "full",
) -> metrics_pb2.CollectMetricsRequest:
    """What to measure: a registered instance, or an inline target with `metrics_url` or `metrics_urls`."""
    return metrics_pb2.CollectMetricsRequest(
        instance_id=instance_id,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
        view=view_of(view),
    )


def detect(
    instance_id: str,
    measurement: model_pb2.Measurement | None,
    instance_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    window: Span | None,
    thresholds: Mapping[str, float] | None,
) -> analysis_pb2.DetectBottlenecksRequest:
    return analysis_pb2.DetectBottlenecksRequest(
        instance_id=instance_id,
        measurement=measurement,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
        thresholds=thresholds,
    )


def evaluate_slos(
    instance_id: str,
    measurement: model_pb2.Measurement | None,
    instance_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    window: Span | None,
    slos: Sequence[slo_pb2.Slo],
) -> analysis_pb2.EvaluateSlosRequest:
    return analysis_pb2.EvaluateSlosRequest(
        instance_id=instance_id,
        measurement=measurement,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
        slos=slos,
    )


def watch_bottlenecks(
    instance_ids: Sequence[str], labels: Mapping[str, str] | None
) -> analysis_pb2.WatchBottlenecksRequest:
    return analysis_pb2.WatchBottlenecksRequest(instance_ids=_strings(instance_ids), labels=labels)


def settings_of(settings: Settings | None) -> Struct | None:
    if settings is None:
        return None
    message = Struct()
    message.update(dict(settings))
    return message


def recommend(
    instance_id: str,
    measurement: model_pb2.Measurement | None,
    bottlenecks: Sequence[bottleneck_pb2.Bottleneck],
    current_config: Settings | None,
    constraints: optimization_pb2.OptimizationConstraints | None,
    instance_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    window: Span | None,
) -> optimization_pb2.RecommendOptimizationsRequest:
    return optimization_pb2.RecommendOptimizationsRequest(
        instance_id=instance_id,
        measurement=measurement,
        bottlenecks=bottlenecks,
        current_config=settings_of(current_config),
        constraints=constraints,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
    )


def config(
    instance_id: str, instance_type: str, metrics_url: str, metrics_urls: Sequence[str], window: Span | None
) -> optimization_pb2.GetInstanceConfigRequest:
    return optimization_pb2.GetInstanceConfigRequest(
        instance_id=instance_id,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
    )


def predict(
    instance_id: str,
    changes: Settings,
    measurement: model_pb2.Measurement | None,
    current_config: Settings | None,
    constraints: optimization_pb2.OptimizationConstraints | None,
    instance_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    window: Span | None,
) -> optimization_pb2.PredictPerformanceRequest:
    return optimization_pb2.PredictPerformanceRequest(
        instance_id=instance_id,
        changes=settings_of(changes),
        measurement=measurement,
        current_config=settings_of(current_config),
        constraints=constraints,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        window=duration(window),
    )


def predictions(
    instance_id: str, lever: str, state: prediction_pb2.PredictionState.ValueType, page_size: int, page_token: str
) -> optimization_pb2.ListPredictionsRequest:
    return optimization_pb2.ListPredictionsRequest(
        instance_id=instance_id, lever=lever, state=state, page_size=page_size, page_token=page_token
    )


def window_seconds(
    request: metrics_pb2.CollectMetricsRequest
    | analysis_pb2.DetectBottlenecksRequest
    | analysis_pb2.EvaluateSlosRequest
    | optimization_pb2.RecommendOptimizationsRequest
    | optimization_pb2.GetInstanceConfigRequest
    | optimization_pb2.PredictPerformanceRequest,
) -> float:
    """How long it is measured."""
    if request.HasField("window"):
        return request.window.ToTimedelta().total_seconds()
    return DEFAULT_WINDOW if request.metrics_url or request.metrics_urls else 0.0


def batch(
    targets: Iterable[metrics_pb2.CollectMetricsRequest | str],
) -> tuple[metrics_pb2.BatchCollectMetricsRequest, float]:
    """The request, and its longest window in seconds."""
    requests = [target(each) if isinstance(each, str) else each for each in targets]
    longest = max(map(window_seconds, requests), default=0.0)
    return metrics_pb2.BatchCollectMetricsRequest(requests=requests), longest


def watch(
    instance_ids: Sequence[str], labels: Mapping[str, str] | None, view: View
) -> metrics_pb2.WatchMetricsRequest:
    return metrics_pb2.WatchMetricsRequest(instance_ids=_strings(instance_ids), labels=labels, view=view_of(view))


def compare(
    baseline: model_pb2.Measurement, candidate: model_pb2.Measurement
) -> metrics_pb2.CompareMetricsRequest:
    return metrics_pb2.CompareMetricsRequest(baseline=baseline, candidate=candidate)


def register(
    instance_id: str,
    instance_type: str,
    metrics_url: str,
    metrics_urls: Sequence[str],
    scrape_interval: Span | None,
    window: Span | None,
    labels: Mapping[str, str] | None,
    slos: Sequence[slo_pb2.Slo],
    request_id: str | None,
) -> instance_pb2.RegisterInstanceRequest:
    return instance_pb2.RegisterInstanceRequest(
        request_id=request_id or new_request_id(),
        instance_id=instance_id,
        instance_type=instance_type,
        metrics_url=metrics_url,
        metrics_urls=_strings(metrics_urls),
        scrape_interval=duration(scrape_interval),
        window=duration(window),
        labels=labels,
        slos=slos,
    )


def update(
    instance: instance_pb2.Instance, update_mask: Sequence[str] | None, request_id: str | None
) -> instance_pb2.UpdateInstanceRequest:
    return instance_pb2.UpdateInstanceRequest(
        request_id=request_id or new_request_id(),
        instance=instance,
        update_mask=None if update_mask is None else FieldMask(paths=_strings(update_mask)),
    )


def delete(instance_id: str, etag: str, request_id: str | None) -> instance_pb2.DeleteInstanceRequest:
    return instance_pb2.DeleteInstanceRequest(
        request_id=request_id or new_request_id(), instance_id=instance_id, etag=etag
    )


def page(
    labels: Mapping[str, str] | None, page_size: int, page_token: str
) -> instance_pb2.ListInstancesRequest:
    return instance_pb2.ListInstancesRequest(page_size=page_size, page_token=page_token, labels=labels)


def _strings(values: Sequence[str]) -> Sequence[str]:
    """A string is a sequence of strings, and never meant as one."""
    if isinstance(values, str):
        raise TypeError("give a list of strings, not one string")
    return values
