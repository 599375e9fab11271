"""A real Envoy in front of two agents, with the configuration that operators are given: deploy/envoy/envoy.yaml."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import perfagent
from conftest import Connect
from perfagent._contract import HEARTBEAT
from perfagent._watch import SILENCE
from perfagent.v1.agent_pb2 import GetAgentInfoRequest
from perfagent.v1.agent_pb2_grpc import AgentServiceStub
from perfagent.v1.metrics_pb2 import WATCH_EVENT_WINDOW, CollectMetricsRequest, WatchMetricsRequest
from perfagent.v1.metrics_pb2_grpc import MetricsServiceStub
from support.agent import PATIENCE, ROOT, Agent, run, wait_until
from support.certificates import Authority
from support.engine import Engine
from support.envoy import CONFIG, DESCRIPTORS, Envoy, configured, find_envoy, write_descriptors

StartAgent = Callable[..., Agent]
StartEnvoy = Callable[..., Envoy]

# nobody listens there
GONE = "http://127.0.0.1:1/metrics"
# what the file says of watches
ROUTE_TIMEOUT = " timeout: 0s\n"
IDLE_TIMEOUT = " idle_timeout: 60s"


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    return find_envoy()


@pytest.fixture(scope="session")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_descriptors(tmp_path_factory.mktemp("descriptors") / "perfagent.binpb")


@pytest.fixture
def start_envoy(
    envoy_binary: Path,
    descriptors: Path,
    start_agent: StartAgent,
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StartEnvoy]:
    """Starts two agents that know the same instances, and an Envoy before them, which end with the test."""
    started: list[Envoy] = []

    def start(*arguments: str, server: str = "", tls: bool = False, **changes: str) -> Envoy:
        instances = instance("busy", engine, "200ms", "1s") + instance("quiet", engine, "5m", "5m")
        config = f"[server]\n{server}\n{instances}"
        agents = start_agent(config, *arguments), start_agent(config, *arguments)
        envoy = Envoy(envoy_binary, tmp_path_factory.mktemp("envoy"), descriptors, agents, changes, tls)
        started.append(envoy)
        return envoy

    yield start
    for envoy in started:
        envoy.kill()


def instance(name: str, engine: Engine, interval: str, window: str) -> str:
    times = f'scrape_interval = "{interval}"\nwindow = "{window}"\n'
    return f'[[instances]]\ninstance_id = "{name}"\nmetrics_url = "{engine.url}"\n{times}'


@pytest.fixture
def envoy(start_envoy: StartEnvoy) -> Envoy:
    return start_envoy()


@pytest.fixture
def channel(envoy: Envoy) -> Iterator[grpc.Channel]:
    """What a caller without our client has: nothing is tried again."""
    with grpc.insecure_channel(envoy.address, [("grpc.enable_retries", 0)]) as channel:
        yield channel


CURL = ("curl", "--silent", "--show-error", "--noproxy", "*")


def curl(*arguments: str) -> str:
    """Answers of 400 and more included."""
    return subprocess.run(
        [*CURL, *arguments], check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
    ).stdout


def asked(
    envoy: Envoy, method: str, path: str, body: bytes | None = None, *, source: str = "127.0.0.1", **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    """A request over HTTP/1."""
    host, _, port = envoy.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE, source_address=(source, 0))
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"content-type": "application/json", **named} if body else named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def reason_of(error: grpc.RpcError) -> str | None:
    """The agent's, in the details of the status; None where somebody else ended the call."""
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return None


def end_of(stream: Any) -> tuple[grpc.StatusCode, str | None]:
    """Reads to the end."""
    with pytest.raises(grpc.RpcError) as ended:
        for _ in stream:
            pass
    return ended.value.code(), reason_of(ended.value)


def next_window(watch: Any) -> Any:
    return next(event for event in watch if event.event == WATCH_EVENT_WINDOW)


def test_the_file_is_valid_as_it_is(envoy_binary: Path, descriptors: Path, tmp_path: Path) -> None:
    config = tmp_path / "envoy.yaml"
    config.write_text(configured({DESCRIPTORS: f"proto_descriptor: {descriptors}"}), encoding="utf-8")
    done = subprocess.run(
        [envoy_binary, "--mode", "validate", "-c", config, "--disable-hot-restart"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    # neither deprecated fields nor a missing bound
    assert "[warning]" not in done.stderr, done.stderr


def test_every_service_is_there_as_json() -> None:
    protos = "".join(proto.read_text(encoding="utf-8") for proto in ROOT.glob("proto/perfagent/v1/*.proto"))
    listed = re.findall(r"- perfagent\.v1\.(\w+)\n", CONFIG.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(re.findall(r"^service (\w+)", protos, re.MULTILINE))


def test_our_clients_notice_silence_before_envoy_does() -> None:
    assert IDLE_TIMEOUT in CONFIG.read_text(encoding="utf-8")
    assert HEARTBEAT < SILENCE < float(IDLE_TIMEOUT.removeprefix(" idle_timeout: ").removesuffix("s"))


def test_calls_and_streams_spread_over_both(envoy: Envoy, channel: grpc.Channel) -> None:
    agents = AgentServiceStub(channel)
    for _ in range(20):
        agents.GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
    streams = [MetricsServiceStub(channel).WatchMetrics(WatchMetricsRequest()) for _ in range(6)]
    for stream in streams:
        next(stream)
    for stream in streams:
        stream.cancel()
    for agent in envoy.agents:
        agent.wait_for_call("GetAgentInfo")
    wait_until("streams to end", lambda: [len(agent.calls("WatchMetrics")) for agent in envoy.agents] == [3, 3])


def test_messages_keep_a_stream_alive(start_envoy: StartEnvoy) -> None:
    idle = 1.0
    envoy = start_envoy(**{IDLE_TIMEOUT: f" idle_timeout: {idle}s"})
    with perfagent.Client(envoy.address) as client, client.watch_metrics(["busy"]) as watch:
        next_window(watch)
        begin = time.monotonic()
        while time.monotonic() < begin + 3 * idle:
            next_window(watch)
        assert watch.resumed == 0


@pytest.mark.parametrize(
    ("changes", "instances"),
    [
        # what would be without messages
        ({IDLE_TIMEOUT: " idle_timeout: 1s"}, ["quiet"]),
        # what would be with a timeout for the whole, as routes have where nothing is said
        ({ROUTE_TIMEOUT: " timeout: 1s\n"}, ["busy"]),
    ],
    ids=["idle", "route"],
)
def test_a_timeout_of_envoy_resets_a_stream_and_a_client_goes_on(
    connect: Connect, start_envoy: StartEnvoy, changes: dict[str, str], instances: list[str]
) -> None:
    envoy = start_envoy(**changes)
    with grpc.insecure_channel(envoy.address) as channel:
        stream = MetricsServiceStub(channel).WatchMetrics(WatchMetricsRequest(instance_ids=instances))
        with pytest.raises(grpc.RpcError) as cut:
            for _ in stream:
                pass
        # no status: what gRPC makes of RST_STREAM
        assert cut.value.code() is grpc.StatusCode.INTERNAL
        assert reason_of(cut.value) is None
    with connect(envoy.address).watch_metrics(instances) as watch:
        while not watch.resumed:
            assert next(watch).instance_id == instances[0]
        assert next(watch).instance_id == instances[0]


def test_a_drained_agent_ends_its_streams_and_the_other_goes_on(
    connect: Connect, envoy: Envoy, channel: grpc.Channel, engine: Engine
) -> None:
    drained, _ = envoy.agents
    metrics, agents = MetricsServiceStub(channel), AgentServiceStub(channel)
    client = connect(envoy.address)
    # in turn, so one of each at each agent
    streams = [metrics.WatchMetrics(WatchMetricsRequest(instance_ids=["busy"])) for _ in range(2)]
    watches = [client.watch_metrics(["busy"]) for _ in range(2)]
    for each in (*streams, *watches):
        next_window(each)
    slow = CollectMetricsRequest(instance_id="x", metrics_url=engine.url, window=Duration(seconds=3))
    running = [metrics.CollectMetrics.future(slow, timeout=PATIENCE) for _ in range(2)]

    with ThreadPoolExecutor(3) as threads:
        try:
            ends = [threads.submit(end_of, stream) for stream in streams]
            stopping = threads.submit(drained.stop)
            # the agent's own words come through
            [ended], [going_on] = wait(ends, PATIENCE, FIRST_COMPLETED)
            assert ended.result() == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            # a client goes on at the other agent; what was underway may be read before
            while sum(watch.resumed for watch in watches) < 1:
                for watch in watches:
                    next_window(watch)
            for watch in watches:
                assert next_window(watch).instance_id == "busy"
            # no call fails meanwhile
            for _ in range(20):
                agents.GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
            wait_until("Envoy to notice", lambda: envoy.are_healthy(False, True))
            # what the agent was working on it finishes
            for call in running:
                assert call.result().measurement.instance_id == "x"
            stopping.result(PATIENCE)
            assert not going_on.done()
        finally:
            for stream in streams:
                stream.cancel()
    assert [call["code"] for call in drained.calls("CollectMetrics")] == ["OK"]
    assert {call["code"] for call in drained.calls("WatchMetrics")} == {"UNAVAILABLE"}
    assert min(watch.resumed for watch in watches) == 0

    # once it is back it has calls again
    before = len(drained.calls("GetAgentInfo"))
    drained.start()

    def is_called() -> bool:
        agents.GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
        return len(drained.calls("GetAgentInfo")) > before

    wait_until("calls to reach it", is_called)
    for watch in watches:
        watch.cancel()


def test_an_agent_that_dies_takes_no_call_that_only_reads_with_it(envoy: Envoy, channel: grpc.Channel) -> None:
    died, _ = envoy.agents
    agents = AgentServiceStub(channel)
    for _ in range(4):
        agents.GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
    died.wait_for_call("GetAgentInfo")
    died.kill()
    # at once: before a health check, which would hide it
    for _ in range(20):
        agents.GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
    wait_until("Envoy to notice", lambda: envoy.are_healthy(False, True))


def test_without_agents_calls_are_unavailable(envoy: Envoy, channel: grpc.Channel) -> None:
    for agent in envoy.agents:
        agent.kill()
    wait_until("Envoy to notice", lambda: envoy.are_healthy(False, False))
    with pytest.raises(grpc.RpcError) as failed:
        AgentServiceStub(channel).GetAgentInfo(GetAgentInfoRequest(), timeout=PATIENCE)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_engine_that_is_down_is_no_agents_fault(envoy: Envoy, channel: grpc.Channel) -> None:
    gone = CollectMetricsRequest(instance_id="x", metrics_url=GONE, window=Duration(seconds=1))
    for _ in range(10):
        with pytest.raises(grpc.RpcError) as failed:
            MetricsServiceStub(channel).CollectMetrics(gone, timeout=PATIENCE)
        assert (failed.value.code(), reason_of(failed.value)) == (grpc.StatusCode.UNAVAILABLE, "CONNECT_FAILED")
    # each was asked, and the other then, who did not know better
    wait_until("calls to end", lambda: [len(agent.calls("CollectMetrics")) for agent in envoy.agents] == [10, 10])
    assert [host["health_status"] for host in envoy.hosts()] == [{"eds_health_status": "HEALTHY"}] * 2


def test_the_guides_curl_lines(envoy: Envoy) -> None:
    health = json.loads(curl(f"http://{envoy.address}/api/v1/health"))
    assert health["status"] == "healthy"
    assert health["timestamp"]

    posted = ["-X", "POST", f"http://{envoy.address}/api/v1/metrics/collect", "-H", "Content-Type: application/json"]
    with Engine() as engine:
        request = {"instance_id": "vllm-1", "instance_type": "vllm", "metrics_url": engine.url}
        measurement = json.loads(curl(*posted, "-d", json.dumps(request)))["measurement"]
    # names as users know them; what the engine does not export is left out and not 0
    assert measurement["instance_id"] == "vllm-1"
    assert measurement["throughput_metrics"]["tokens_per_second"] == pytest.approx(1000, rel=0.5)
    assert measurement["gpu_metrics"]["cache_usage_perc"] == 25
    assert "time_per_output_token_seconds" not in measurement["request_metrics"]
    # and then what holds it back, told from that
    url = f"http://{envoy.address}/api/v1/analysis/detect-bottlenecks"
    found = json.loads(curl(url, "--json", json.dumps({"instance_id": "vllm-1", "measurement": measurement})))
    assert found["window"] == measurement["window"]
    assert found["verdict"] in {f"DIAGNOSIS_VERDICT_{each}" for each in ("HEALTHY", "FINDINGS", "CANNOT_TELL")}
    for each in found.get("bottlenecks", []):
        assert all(each[name] for name in ("type", "severity", "description", "recommendation"))
    # and what to change, of what was found and the settings that the caller knows of: the body that users know
    known = {"bottlenecks": [{"type": "BOTTLENECK_TYPE_QUEUE_BUILDUP"}], "current_config": {"max_batch_size": 32, "quantization": None}}
    url = f"http://{envoy.address}/api/v1/optimization/recommend"
    advised = json.loads(curl(url, "--json", json.dumps({"instance_id": "vllm-1", "instance_type": "vllm", **known})))
    for each in advised["optimizations"]:
        assert all(each[name] for name in ("type", "priority", "description", "not_predictable_reason"))


def test_calls_and_finite_streams_as_json(envoy: Envoy) -> None:
    where = f"http://{envoy.address}/api/v1"
    assert json.loads(curl(f"{where}/agent"))["version"] == perfagent.__version__
    assert json.loads(curl(f"{where}/capabilities"))["engines"]
    assert len(json.loads(curl(f"{where}/instances"))["instances"]) == 2
    assert len(json.loads(curl(f"{where}/instances?page_size=1"))["instances"]) == 1
    assert json.loads(curl(f"{where}/instances/busy"))["instance"]["instance_id"] == "busy"
    batch = {"requests": [{"instance_id": "busy"}, {"instance_id": "unknown"}]}
    lines = curl(f"{where}/metrics/batch-collect", "--json", json.dumps(batch)).splitlines()
    results = {json.loads(line)["instance_id"]: json.loads(line) for line in lines}
    assert results["busy"]["measurement"]
    assert results["unknown"]["failure"]["reason"] == "INSTANCE_NOT_FOUND"


def test_workflows_as_json(envoy: Envoy) -> None:
    where = f"http://{envoy.address}/api/v1"
    body = {"instance_id": "quiet", "workflow_type": "analysis", "note": "From curl."}
    started = json.loads(curl(f"{where}/workflows", "--json", json.dumps(body)))["workflow"]
    assert (started["instance_id"], started["note"]) == ("quiet", "From curl.")
    assert started["workflow_type"] == "WORKFLOW_TYPE_ANALYSIS"
    # each agent has its own here, and calls go to them in turn
    found = [json.loads(curl(f"{where}/workflows/{started['workflow_id']}")) for _ in range(8)]
    assert started["workflow_id"] in {one["workflow"]["workflow_id"] for one in found if "workflow" in one}
    lists = [json.loads(curl(f"{where}/workflows?instance_id=quiet")) for _ in range(8)]
    assert any(one["workflow_id"] == started["workflow_id"] for page in lists for one in page.get("workflows", []))
    pages = [json.loads(curl(f"{where}/workflow-events?workflow_id={started['workflow_id']}&wait=1s")) for _ in range(8)]
    assert "started" in {event["type"] for page in pages for event in page.get("events", [])}
    status, _, text = asked(envoy, "POST", f"/api/v1/workflows/{started['workflow_id']}/approve", b'{"plan_etag": "x"}')
    assert status in {400, 404, 409}, text
    reader = subprocess.Popen(
        [*CURL, "--no-buffer", f"{where}/workflows:watch?include_snapshot=true"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout
        first = json.loads(reader.stdout.readline())
    finally:
        reader.kill()
        reader.communicate()
    assert "snapshot" in first or "bookmark" in first


def test_a_watch_as_lines_of_json(envoy: Envoy) -> None:
    url = f"http://{envoy.address}/api/v1/metrics/watch"
    reader = subprocess.Popen(
        [*CURL, "--no-buffer", "--json", '{"instance_ids": ["busy"]}', url],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout
        events = [json.loads(line) for line, _ in zip(reader.stdout, range(5), strict=False)]
    finally:
        reader.kill()
        reader.communicate()
    assert {event["instance_id"] for event in events} == {"busy"}
    assert "WATCH_EVENT_WINDOW" in {event["event"] for event in events}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "reason"),
    [
        ("GET", "instances/unknown", None, 404, 5, "INSTANCE_NOT_FOUND"),
        ("POST", "metrics/collect", {"instance_id": "x", "metrics_url": "ftp://x/"}, 400, 3, "INVALID_ARGUMENT"),
        ("POST", "metrics/collect", {"instance_id": "x", "metrics_url": GONE}, 503, 14, "CONNECT_FAILED"),
        ("DELETE", "instances/busy", None, 400, 9, "READ_ONLY_INSTANCE"),
        ("GET", "workflows/7", None, 400, 3, "INVALID_ARGUMENT"),
        ("GET", "workflows/01980000-0000-7000-8000-000000000001", None, 404, 5, "WORKFLOW_NOT_FOUND"),
        ("POST", "workflows", {"instance_id": "unknown"}, 404, 5, "INSTANCE_NOT_FOUND"),
    ],
)
def test_errors_as_json(
    envoy: Envoy, method: str, path: str, body: object, status: int, code: int, reason: str
) -> None:
    answered, _, text = asked(envoy, method, f"/api/v1/{path}", json.dumps(body).encode() if body else None)
    error = json.loads(text)
    [info] = [detail for detail in error["details"] if detail["@type"].endswith("/google.rpc.ErrorInfo")]
    assert (answered, error["code"], info["reason"]) == (status, code, reason)
    assert error["message"]


def test_requests_are_as_large_as_agents_take_them(envoy: Envoy) -> None:
    def answer_to(mebibytes: float) -> tuple[int, str]:
        body = {"instance_id": "x", "metrics_urls": ["x" * int(mebibytes * (1 << 20))]}
        status, _, text = asked(envoy, "POST", "/api/v1/metrics/collect", json.dumps(body).encode())
        return status, text

    for mebibytes, reason in ((3.9, "INVALID_ARGUMENT"), (4.1, "REQUEST_TOO_LARGE")):
        status, text = answer_to(mebibytes)
        assert (status, json.loads(text)["details"][0]["reason"]) == (400, reason)


def test_ids_of_requests_and_traces_reach_the_agents_log(envoy: Envoy) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    _, answered, _ = asked(envoy, "GET", "/api/v1/agent", x_request_id="mine", traceparent=parent)
    assert answered["x-request-id"] == "mine"
    # who sends none is told what Envoy made
    _, made, _ = asked(envoy, "GET", "/api/v1/agent")

    def logged(request_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            calls = (call for agent in envoy.agents for call in agent.calls("GetAgentInfo"))
            return next((call for call in calls if call["request_id"] == request_id), None)

        return wait_until("the call to be logged", look)

    assert logged("mine")["trace_id"] == trace
    assert logged(made["x-request-id"])["code"] == "OK"


def test_what_is_not_served_through_envoy(envoy: Envoy) -> None:
    def status(method: str, path: str, **headers: str) -> int:
        return asked(envoy, method, path, None, source="127.0.0.1", **headers)[0]

    assert status("GET", "/healthz") == 200
    # each agent is scraped itself
    assert status("GET", "/metrics") == 404
    assert status("GET", "/") == 404
    # a web page, by a name of its own or from elsewhere
    assert status("GET", "/api/v1/agent", host="rebound.example") == 404
    assert status("GET", "/api/v1/agent", origin="http://localhost") == 403
    # one spelling of a path
    assert status("GET", "/api/v1/..%2fmetrics") == 400
    for agent in envoy.agents:
        assert not agent.calls("metrics")


def test_a_token_goes_through_and_health_checks_need_none(
    connect: Connect, start_envoy: StartEnvoy, binary: Path, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    token = run(binary, "token", "create", "--name", "ann", "--role", "viewer", "--file", file)
    envoy = start_envoy("--credentials-file", str(file))
    assert connect(envoy.address, token=token).get_instance("busy").instance_id == "busy"
    assert asked(envoy, "GET", "/api/v1/agent", authorization=f"Bearer {token}")[0] == 200
    status, _, text = asked(envoy, "GET", "/api/v1/agent")
    assert (status, json.loads(text)["code"]) == (401, 16)


def test_tls_on_both_sides(connect: Connect, start_envoy: StartEnvoy, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("agent.example")
    own_cert, own_key = authority.issue("perfagent.example")
    files = {
        "/etc/envoy/envoy.pem": str(own_cert),
        "/etc/envoy/envoy.key": str(own_key),
        "/etc/envoy/agents-ca.pem": str(authority.certificate),
    }
    envoy = start_envoy("--tls-cert", str(cert), "--tls-key", str(key), tls=True, **files)
    client = connect(f"https://{envoy.address}", ca_cert=authority.certificate)
    assert client.get_instance("busy").instance_id == "busy"
    url = f"https://{envoy.address}/api/v1/agent"
    assert json.loads(curl("--cacert", str(authority.certificate), url))["version"] == perfagent.__version__


def test_callers_behind_a_trusted_proxy_are_told_apart(start_envoy: StartEnvoy) -> None:
    def peers(envoy: Envoy) -> set[str]:
        # what a caller says of itself does not count
        asked(envoy, "GET", "/api/v1/agent", source="127.0.0.2", x_forwarded_for="192.0.2.1")

        def logged() -> set[str]:
            calls = (call for agent in envoy.agents for call in agent.calls("GetAgentInfo"))
            return {call["peer"].partition(":")[0] for call in calls}

        return wait_until("the call to be logged", logged)

    assert peers(start_envoy()) == {"127.0.0.1"}
    assert peers(start_envoy(server='trusted_proxies = ["127.0.0.1"]')) == {"127.0.0.2"}
