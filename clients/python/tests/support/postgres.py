"""A real PostgreSQL, which ends with the test."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Self

from support.agent import PATIENCE, ROOT


class Postgres:
    """An empty database."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [ROOT / "tests/postgres", "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("postgres://"), self.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # it ends with its input
        self._process.communicate(timeout=PATIENCE)
