"""The agent's own simulated engine, whose settings its actuator can change."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class Simulator:
    """A vLLM that may run 4 requests at once while 32 clients ask: the queue is the trouble."""

    def __init__(self, binary: Path) -> None:
        # short answers, so that a short window has many of them
        load = ["--clients", "32", "--output-tokens", "40"]
        command = [str(binary), "simulate", "--port", "0", "--max-num-seqs", "4", *load]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://\S+/metrics", line)
        assert found, line
        self.url = found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def config(self) -> str:
        """Of an agent that watches it and may change it."""
        return (
            '[[actuators]]\nname = "sim"\ntype = "simulator"\n'
            f'[[instances]]\ninstance_id = "sim-1"\nactuator = "sim"\nmetrics_url = "{self.url}"\n'
            'scrape_interval = "200ms"\nwindow = "5s"\n'
        )
