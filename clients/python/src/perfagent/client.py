"""The client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from perfagent import _contract as contract
from perfagent import _requests as requests
from perfagent._requests import Settings, Span, View
from perfagent._retry import Attempts
from perfagent._watch import Watch
from perfagent._webhooks import WebhookCalls
from perfagent.v1 import agent_pb2, analysis_pb2, instance_pb2, metrics_pb2, optimization_pb2
from perfagent.v1.bottleneck_pb2 import Bottleneck
from perfagent.v1.model_pb2 import Measurement
from perfagent.v1.optimization_pb2 import OptimizationConstraints
from perfagent.v1.prediction_pb2 import PREDICTION_STATE_UNSPECIFIED, PredictionState
from perfagent.v1.slo_pb2 import Slo


class Client(WebhookCalls):
    """An agent that can be called. It connects at the first call, may be shared by threads, and is closed at the end::

        with perfagent.Client() as client:
            answer = client.collect_metrics("vllm-1", metrics_url="http://127.0.0.1:8000/metrics")

    Calls raise `PerfagentError`. Each has the deadline that its proto documents; `timeout`, in seconds, bounds it
    instead, retries and pauses included. What fails for a reason that passes is tried `retries` times more, after as
    long as the agent asks for.
    """

    # measuring

    def collect_metrics(
        self,
        instance_id: str,
        instance_type: str = "",
        metrics_url: str = "",
        *,
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        view: View = "full",
        timeout: float | None = None,
    ) -> metrics_pb2.CollectMetricsResponse:
        """Measures an inline target over `window` (seconds, 5 where none is given; 0 for totals since its start), or
        answers with the last window of a registered instance, which is a call without URL."""
        request = requests.target(
            instance_id, instance_type, metrics_url, metrics_urls=metrics_urls, window=window, view=view
        )
        seconds = requests.window_seconds(request)
        return self._unary(self._metrics.CollectMetrics, contract.COLLECT_METRICS, request, timeout, seconds)

    def batch_collect_metrics(
        self, targets: Iterable[metrics_pb2.CollectMetricsRequest | str], *, timeout: float | None = None
    ) -> Iterator[metrics_pb2.BatchCollectMetricsResponse]:
        """Measures up to 100 targets at once: ids of registered instances, or what `perfagent.target` makes. Each
        result comes as it is ready; `perfagent.error_of(result.failure)` is what a call of its own would raise."""
        request, seconds = requests.batch(targets)
        attempts = Attempts(contract.BATCH_COLLECT_METRICS, timeout, self._retries, seconds)
        return self._stream(self._metrics.BatchCollectMetrics, request, attempts)

    def watch_metrics(
        self,
        instance_ids: Sequence[str] = (),
        *,
        labels: Mapping[str, str] | None = None,
        view: View = "full",
        heartbeats: bool = False,
        timeout: float | None = None,
        give_up_after: float | None = None,
    ) -> Watch[metrics_pb2.WatchMetricsResponse]:
        """How registered instances are now, all where none is named, and then each window as it is measured::

            with client.watch_metrics() as watch:
                for event in watch:
                    ...

        A watch that breaks off resumes by itself; the first messages then tell again how things are. It ends when it
        is cancelled, when all instances that were named are deleted, and with an error after `timeout` seconds in all
        or `give_up_after` seconds without an agent. `heartbeats` shows the messages, too, by which the agent says that
        nothing happens."""
        request = requests.watch(instance_ids, labels, view)
        shown = None if heartbeats else (lambda event: event.event != metrics_pb2.WATCH_EVENT_HEARTBEAT)
        return self._watch(self._metrics.WatchMetrics, request, timeout, give_up_after, shown)

    def compare_metrics(
        self, baseline: Measurement, candidate: Measurement, *, timeout: float | None = None
    ) -> metrics_pb2.CompareMetricsResponse:
        """Compares two measurements, each with its figures: ratio, interval and verdict per quantity."""
        request = requests.compare(baseline, candidate)
        return self._unary(self._metrics.CompareMetrics, contract.COMPARE_METRICS, request, timeout)

    # what holds engines back

    def detect_bottlenecks(
        self,
        instance_id: str = "",
        measurement: Measurement | None = None,
        *,
        instance_type: str = "",
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        thresholds: Mapping[str, float] | None = None,
        timeout: float | None = None,
    ) -> analysis_pb2.DetectBottlenecksResponse:
        """What holds an engine back, root cause first: of a measurement that `collect_metrics` answered, of an inline
        target over `window` seconds, or of a registered instance, which is a call with nothing but its id.
        `thresholds` hold for this call only; `capabilities` lists them."""
        request = requests.detect(
            instance_id, measurement, instance_type, metrics_url, metrics_urls, window, thresholds
        )
        seconds = requests.window_seconds(request)
        return self._unary(
            self._analysis.DetectBottlenecks, contract.DETECT_BOTTLENECKS, request, timeout, seconds
        )

    def evaluate_slos(
        self,
        instance_id: str = "",
        measurement: Measurement | None = None,
        *,
        instance_type: str = "",
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        slos: Sequence[Slo] = (),
        timeout: float | None = None,
    ) -> analysis_pb2.EvaluateSlosResponse:
        """How SLOs are kept, of what `detect_bottlenecks` may be asked about; of a registered instance with the error
        budgets too. `slos` hold for this call only; without them those in force do."""
        request = requests.evaluate_slos(
            instance_id, measurement, instance_type, metrics_url, metrics_urls, window, slos
        )
        seconds = requests.window_seconds(request)
        return self._unary(self._analysis.EvaluateSlos, contract.EVALUATE_SLOS, request, timeout, seconds)

    def watch_bottlenecks(
        self,
        instance_ids: Sequence[str] = (),
        *,
        labels: Mapping[str, str] | None = None,
        heartbeats: bool = False,
        timeout: float | None = None,
        give_up_after: float | None = None,
    ) -> Watch[analysis_pb2.WatchBottlenecksResponse]:
        """What holds registered instances back now, and then what opens, changes and is resolved. It resumes, ends and
        shows heartbeats as `watch_metrics` does."""
        request = requests.watch_bottlenecks(instance_ids, labels)
        shown = None if heartbeats else (lambda event: event.event != analysis_pb2.BOTTLENECK_EVENT_HEARTBEAT)
        return self._watch(self._analysis.WatchBottlenecks, request, timeout, give_up_after, shown)

    # what to change

    def recommend_optimizations(
        self,
        instance_id: str = "",
        measurement: Measurement | None = None,
        *,
        bottlenecks: Sequence[Bottleneck] = (),
        current_config: Settings | None = None,
        constraints: OptimizationConstraints | None = None,
        instance_type: str = "",
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        timeout: float | None = None,
    ) -> optimization_pb2.RecommendOptimizationsResponse:
        """What to change, each change with its predicted effect, of what `detect_bottlenecks` may be asked about. With
        `bottlenecks` nothing is measured and nothing predicted: settings are ranked by what these and `current_config`,
        the settings that the engine runs with, say; `instance_type` then names the engine."""
        request = requests.recommend(
            instance_id,
            measurement,
            bottlenecks,
            current_config,
            constraints,
            instance_type,
            metrics_url,
            metrics_urls,
            window,
        )
        seconds = requests.window_seconds(request)
        return self._unary(
            self._optimization.RecommendOptimizations, contract.RECOMMEND_OPTIMIZATIONS, request, timeout, seconds
        )

    def get_instance_config(
        self,
        instance_id: str,
        *,
        instance_type: str = "",
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        timeout: float | None = None,
    ) -> optimization_pb2.GetInstanceConfigResponse:
        """The settings that a registered instance or an inline target runs with, and who says so."""
        request = requests.config(instance_id, instance_type, metrics_url, metrics_urls, window)
        seconds = requests.window_seconds(request)
        return self._unary(
            self._optimization.GetInstanceConfig, contract.GET_INSTANCE_CONFIG, request, timeout, seconds
        )

    def predict_performance(
        self,
        instance_id: str = "",
        changes: Settings | None = None,
        measurement: Measurement | None = None,
        *,
        current_config: Settings | None = None,
        constraints: OptimizationConstraints | None = None,
        instance_type: str = "",
        metrics_url: str = "",
        metrics_urls: Sequence[str] = (),
        window: Span | None = None,
        timeout: float | None = None,
    ) -> optimization_pb2.PredictPerformanceResponse:
        """What changes of settings would do, such as `{"max_num_seqs": 64}`; None takes a flag away."""
        request = requests.predict(
            instance_id,
            changes or {},
            measurement,
            current_config,
            constraints,
            instance_type,
            metrics_url,
            metrics_urls,
            window,
        )
        seconds = requests.window_seconds(request)
        return self._unary(
            self._optimization.PredictPerformance, contract.PREDICT_PERFORMANCE, request, timeout, seconds
        )

    def list_predictions(
        self,
        *,
        instance_id: str = "",
        lever: str = "",
        state: PredictionState.ValueType = PREDICTION_STATE_UNSPECIFIED,
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> optimization_pb2.ListPredictionsResponse:
        """A page of what was predicted beside what came of it, the newest first, and how far to trust each lever."""
        request = requests.predictions(instance_id, lever, state, page_size, page_token)
        return self._unary(self._optimization.ListPredictions, contract.LIST_PREDICTIONS, request, timeout)

    # instances

    def register_instance(
        self,
        instance_id: str,
        instance_type: str = "",
        metrics_url: str = "",
        *,
        metrics_urls: Sequence[str] = (),
        scrape_interval: Span | None = None,
        window: Span | None = None,
        labels: Mapping[str, str] | None = None,
        slos: Sequence[Slo] = (),
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> instance_pb2.Instance:
        """Registers an instance, which the agent then watches. A request id is made where none is given, so that a
        retry registers it once."""
        request = requests.register(
            instance_id, instance_type, metrics_url, metrics_urls, scrape_interval, window, labels, slos, request_id
        )
        return self._unary(
            self._instances.RegisterInstance, contract.REGISTER_INSTANCE, request, timeout
        ).instance

    def get_instance(self, instance_id: str, *, timeout: float | None = None) -> instance_pb2.Instance:
        """An instance and how it is."""
        request = instance_pb2.GetInstanceRequest(instance_id=instance_id)
        return self._unary(self._instances.GetInstance, contract.GET_INSTANCE, request, timeout).instance

    def list_instances(
        self, *, labels: Mapping[str, str] | None = None, page_size: int = 0, timeout: float | None = None
    ) -> Iterator[instance_pb2.Instance]:
        """All instances with these labels, by id, fetched a page at a time. `timeout` is of each page."""
        token = ""
        while True:
            request = requests.page(labels, page_size, token)
            answer = self._unary(self._instances.ListInstances, contract.LIST_INSTANCES, request, timeout)
            yield from answer.instances
            token = answer.next_page_token
            if not token:
                return

    def update_instance(
        self,
        instance: instance_pb2.Instance,
        update_mask: Sequence[str] | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> instance_pb2.Instance:
        """Changes the fields of `update_mask`, else those that are set. With its etag set, as `get_instance` gives it,
        it is changed only if nobody else has changed it since; else `Aborted` is raised."""
        request = requests.update(instance, update_mask, request_id)
        return self._unary(self._instances.UpdateInstance, contract.UPDATE_INSTANCE, request, timeout).instance

    def delete_instance(
        self, instance_id: str, *, etag: str = "", request_id: str | None = None, timeout: float | None = None
    ) -> None:
        """Forgets an instance; with an etag, only if nobody has changed it since."""
        request = requests.delete(instance_id, etag, request_id)
        self._unary(self._instances.DeleteInstance, contract.DELETE_INSTANCE, request, timeout)

    # the agent

    def agent_info(self, *, timeout: float | None = None) -> agent_pb2.GetAgentInfoResponse:
        """Version, uptime and limits."""
        request = agent_pb2.GetAgentInfoRequest()
        return self._unary(self._agent.GetAgentInfo, contract.GET_AGENT_INFO, request, timeout)

    def capabilities(self, *, timeout: float | None = None) -> agent_pb2.GetCapabilitiesResponse:
        """Engines that can be measured, and the quantities that there are."""
        request = agent_pb2.GetCapabilitiesRequest()
        return self._unary(self._agent.GetCapabilities, contract.GET_CAPABILITIES, request, timeout)

    def is_serving(self, service: str = "", *, timeout: float | None = None) -> bool:
        """Whether the agent takes calls: False while it is being stopped. It needs no credential."""
        request = HealthCheckRequest(service=service)
        answer = self._unary(self._check, contract.CHECK, request, timeout)
        return bool(answer.status == HealthCheckResponse.SERVING)
