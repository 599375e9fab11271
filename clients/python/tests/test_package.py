"""The wheel, and the types that it brings."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import perfagent

PACKAGE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(build, cwd=PACKAGE, check=True, capture_output=True, timeout=120)
    (wheel,) = directory.glob("*.whl")
    return wheel


def test_the_wheel_has_all_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("perfagent/")}
    source = PACKAGE / "src"
    files = [path for path in source.rglob("*") if path.is_file() and path.suffix in {".py", ".pyi", ".typed"}]
    files.append(source / "perfagent/py.typed")
    assert packed == {str(path.relative_to(source)) for path in files}


def test_the_wheel_installs(wheel: Path, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--target", str(tmp_path), str(wheel)], check=True, timeout=120)
    code = "import perfagent, perfagent.v1; print(perfagent.__file__, perfagent.__version__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path / "perfagent/__init__.py"), perfagent.__version__]
    # what it depends on is what is installed here
    check = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    subprocess.run(check, env=environment, check=True, capture_output=True, timeout=120)


def test_types_hold_strictly() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "src", "tests", "examples"],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


USES = '''
from collections.abc import Iterator
import perfagent
from perfagent import aio

def calls(client: perfagent.Client) -> None:
    reveal_type(client.collect_metrics("a").measurement.throughput_metrics.tokens_per_second)
    reveal_type(client.register_instance("a"))
    reveal_type(client.list_instances())
    reveal_type(client.watch_metrics())
    reveal_type(perfagent.measured(client.collect_metrics("a").measurement.gpu_metrics, "cache_usage_perc"))
    client.collect_metrics("a", view="all")
    client.get_instance(1)

async def awaits(client: aio.Client) -> None:
    reveal_type(await client.get_instance("a"))
    async for instance in client.list_instances():
        reveal_type(instance)
    async for event in client.watch_metrics():
        reveal_type(event)
'''


def test_callers_see_types(tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text(USES, encoding="utf-8")
    install = tmp_path / "site"
    install.mkdir()
    (install / "perfagent").symlink_to(PACKAGE / "src/perfagent")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "uses.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(install)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    assert [name.rpartition("builtins.")[2] for name in revealed[:1]] == ["float"]
    assert revealed[1].endswith("instance_pb2.Instance")
    assert "Iterator" in revealed[2] and "instance_pb2.Instance" in revealed[2]
    assert "Watch[" in revealed[3] and "WatchMetricsResponse" in revealed[3]
    assert "float | None" in revealed[4]
    assert all(name.endswith("instance_pb2.Instance") for name in revealed[5:7])
    assert revealed[7].endswith("WatchMetricsResponse")
    errors = [line for line in lines if line.startswith("uses.py") and ": error:" in line]
    assert len(errors) == 2, done.stdout
    assert "Literal" in errors[0] and "get_instance" in errors[1]
