"""The real agent, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).resolve().parents[4]
PATIENCE = 30.0
T = TypeVar("T")


def find_binary() -> Path:
    """PERFAGENT_BIN, else what cargo built last."""
    named = os.environ.get("PERFAGENT_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    places = [Path(named)] if named else [target / kind / "perfagent" for kind in ("release", "debug")]
    found = [place for place in places if place.is_file()]
    if not found:
        where = ", ".join(map(str, places))
        pytest.exit(f"no perfagent at {where}: run `cargo build`, or set PERFAGENT_BIN to its path", returncode=2)
    return max(found, key=lambda place: place.stat().st_mtime)


def wait_until(what: str, look: Callable[[], T | None]) -> T:
    """What `look` finds, once it finds something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {PATIENCE:.0f} s in vain for {what}")


class Agent:
    def __init__(self, binary: Path, directory: Path, config: str, arguments: Sequence[str]) -> None:
        self.binary = binary
        self.directory = directory
        self._config = directory / "perfagent.toml"
        self._config.write_text(config, encoding="utf-8")
        self._arguments = arguments
        self._log = directory / "log"
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> None:
        """Starts it; again, at the address that it had."""
        before = len(self.logged())
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self.binary, "serve", "--config", self._config, "--listen", self._listen),
                    *("--state-dir", self.directory / "state", "--log-format", "json", "--log-level", "debug"),
                    *self._arguments,
                ],
                stderr=log,
                stdout=log,
                env={"PATH": os.environ["PATH"]},
            )
        process = self._process

        def listening() -> str | None:
            for line in self.logged()[before:]:
                if line["fields"].get("message", "").startswith("listening on "):
                    return str(line["fields"]["message"].removeprefix("listening on "))
            assert process.poll() is None, self._log.read_text(encoding="utf-8")
            return None

        self.address = self._listen = wait_until("the agent to listen", listening)

    def stop(self) -> None:
        """In good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def logged(self) -> list[dict[str, Any]]:
        """Lines of its log; the last may still be written."""
        if not self._log.exists():
            return []
        lines = self._log.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Calls of a method that have ended, as logged."""
        lines = (line["fields"] for line in self.logged())
        return [fields for fields in lines if fields.get("method", "").endswith("/" + method)]

    def wait_for_call(self, method: str) -> dict[str, Any]:
        """The first call of a method, once it has ended here too."""
        return wait_until(f"{method} to end", lambda: self.calls(method))[0]


def run(binary: Path, *arguments: str | Path) -> str:
    """Another command of the binary; what it prints."""
    done = subprocess.run([binary, *arguments], check=True, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout.strip()
