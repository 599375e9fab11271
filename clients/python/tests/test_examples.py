"""The examples run, and are shorter than the guide that users come from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import perfagent
from support.agent import Agent
from support.engine import Engine

EXAMPLES = Path(__file__).parents[1] / "examples"

# lines of code of the guide's own, without empty ones and comments; before and after is 9 and the call that they name
GUIDE = {
    "detect_bottlenecks.py": 22,
    "first_measurement.py": 13,
    "recommend_optimizations.py": 20,
    "watch_a_fleet.py": 28,
    "compare_before_and_after.py": 9 + 13,
    "run_a_workflow.py": 32,
    "change_and_roll_back.py": 9 + 5,
}


def start(name: str, agent: Agent, *arguments: str, text: str | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PERFAGENT_SERVER": agent.address,
        "PYTHONPATH": str(Path(perfagent.__file__).parents[1]),
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if text is not None and process.stdin is not None:
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
    return process


def finished(process: subprocess.Popen[str]) -> Sequence[str]:
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed.splitlines()


def test_first_measurement(agent: Agent, engine: Engine) -> None:
    printed = finished(start("first_measurement.py", agent, engine.url))
    success, throughput, cache = (line.partition(": ")[2] for line in printed)
    # totals and rates of an engine that has done ten requests and 1,000 tokens more at each scrape
    assert float(success) % 10 == 0
    assert float(throughput.removesuffix(" tokens/s")) == pytest.approx(1000, rel=0.5)
    assert cache == "25.0 %"


def test_detect_bottlenecks(agent: Agent, engine: Engine) -> None:
    printed = finished(start("detect_bottlenecks.py", agent, engine.url, "1"))
    with perfagent.Client(agent.address) as client:
        found = client.detect_bottlenecks("vllm-1", metrics_url=engine.url, window=1)
    types = {perfagent.BottleneckType.Name(b.type).removeprefix("BOTTLENECK_TYPE_") for b in found.bottlenecks}
    titles = {line.partition(" (")[0] for line in printed[1:] if not line.startswith(" ")}
    assert printed[0] and titles == types
    assert len(printed) == 1 + 3 * len(found.bottlenecks)


def test_recommend_optimizations(agent: Agent, engine: Engine) -> None:
    printed = finished(start("recommend_optimizations.py", agent, engine.url, "1"))
    with perfagent.Client(agent.address) as client:
        answer = client.recommend_optimizations("vllm-1", metrics_url=engine.url, window=1)
    assert answer.advice != 0
    kinds = {perfagent.OptimizationType.Name(o.type).removeprefix("OPTIMIZATION_TYPE_") for o in answer.optimizations}
    titles = {line.partition(" (")[0] for line in printed[1:] if not line.startswith(" ")}
    assert printed[0] and titles == kinds


def test_register_from_a_list(agent: Agent, engine: Engine) -> None:
    with perfagent.Client(agent.address) as client:
        client.register_instance("vllm-2", metrics_url=engine.url)
        text = f"vllm-1 {engine.url}\nvllm-2 {engine.url}\n"
        printed = finished(start("register_from_a_list.py", agent, text=text))
        assert printed == ["vllm-1: registered", "vllm-2: there already"]
        assert [instance.instance_id for instance in client.list_instances()] == ["vllm-1", "vllm-2"]


def test_watch_a_fleet(agent: Agent, engine: Engine) -> None:
    with perfagent.Client(agent.address) as client:
        client.register_instance("vllm-1", metrics_url=engine.url, scrape_interval=0.2, window=1)
        client.register_instance("dead", metrics_url="http://127.0.0.1:1/metrics", scrape_interval=0.2, window=1)
    process = start("watch_a_fleet.py", agent)
    assert process.stdout is not None
    missing = {"vllm-1 UP", "dead DOWN None tokens/s"}
    try:
        for line in process.stdout:
            missing -= {each for each in missing if line.startswith(each)}
            if not missing:
                break
        assert not missing
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_compare_before_and_after(agent: Agent, engine: Engine) -> None:
    printed = finished(start("compare_before_and_after.py", agent, engine.url, "1", text="\n"))
    assert any("generation_tokens_per_second" in line for line in printed)
    # two scrapes a side are too few for a verdict
    assert any("INCONCLUSIVE" in line for line in printed)


@pytest.mark.parametrize("name", GUIDE)
def test_shorter_than_the_guide(name: str) -> None:
    lines = [line.strip() for line in (EXAMPLES / name).read_text(encoding="utf-8").splitlines()]
    code = [line for line in lines if line and not line.startswith(("#", '"""'))]
    assert len(code) < GUIDE[name]
