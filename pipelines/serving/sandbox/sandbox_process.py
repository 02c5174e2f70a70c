"""One sandbox child, seen from the server: started, queried, watched and stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.problems import ServingError
from refold.warehouse.engine.engine_paths import database_path

_LOGGER = logging.getLogger("refold.serving")
_PROGRAM = str(Path(__file__).with_name("sandbox_child.py"))
_IDLE_SECONDS = 60.0
_START_SECONDS = 20.0
_KILL_GRACE_SECONDS = 0.5
"""DuckDB interrupts a query at its time limit; after this grace the server kills the process."""

_ALARM_GRACE_SECONDS = 3.0
"""After this grace the process ends itself, if the server has not killed it."""

_CHUNK = 1 << 16


class QueryProcessError(ServingError):
    """No sandbox child could be started."""

    status = 503
    code = "unavailable"
    retry_after = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """The limits of queries.

    Attributes:
        seconds: of one query.
        rows: of one answer; a longer answer is truncated and marked as such.
        answer_bytes: of one answer's rows as JSON; likewise.
        memory_mib: of one query, in MiB.
        processes: concurrent queries.
        wait_seconds: how long a query waits for a free process.

    Raises:
        UsageError: a limit allows nothing.
    """

    seconds: float = 10.0
    rows: int = 10_000
    answer_bytes: int = 4 << 20
    memory_mib: int = 512
    processes: int = 2
    wait_seconds: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise UsageError(f"The limit {name} is {getattr(self, name)}. Give a number above 0.")


class QueryProcess:
    """One sandbox child.

    Attributes:
        path: of the file that it has open.
        last_updated: when the file's tables reached its position, RFC 3339; None if the file does not record it.
    """

    def __init__(self, path: Path, limits: QueryLimits) -> None:
        self.path = path
        self._seconds = limits.seconds + _KILL_GRACE_SECONDS
        self._process = subprocess.Popen(
            [sys.executable, "-I", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"MALLOC_ARENA_MAX": "1"},  # a heap for each thread would count against the memory limit
            cwd="/",
            start_new_session=True,  # Ctrl-C goes to the server, which stops its processes itself
        )
        self._queried_at = time.monotonic()
        settings = {
            "modules": [folder for folder in sys.path if folder],
            "file": database_path(path.resolve()),
            "memory_bytes": limits.memory_mib << 20,
            "seconds": limits.seconds,
            "grace_seconds": _ALARM_GRACE_SECONDS,
            "idle_seconds": _IDLE_SECONDS + _ALARM_GRACE_SECONDS,
            "rows": limits.rows,
            "answer_bytes": limits.answer_bytes,
        }
        answer = self._ask(settings, _START_SECONDS)
        if "columns" not in answer:
            self.kill()
            _LOGGER.error("No sandbox child could be started on %s: %s", path, answer or "it exited at once")
            raise QueryProcessError(
                "The process for this query could not be started. Try again; the reason is in the server's log."
            )
        self.last_updated: str | None = answer["last_updated"]

    def is_fresh(self) -> bool:
        """Check whether the process runs, and will run long enough for another query."""
        return self._process.poll() is None and time.monotonic() - self._queried_at < _IDLE_SECONDS

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
        """Return the answer to a query, or ``refused``, ``slow`` or ``memory``; an empty one if the process crashed."""
        return self._ask({"sql": sql, "parameters": parameters}, self._seconds)

    def _ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._queried_at = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")  # integers of any size
            self._process.stdin.flush()
        line = self._read_line(self._queried_at + seconds)
        if line is None:
            self.kill()
            return {"slow": ""}
        if not line.endswith(b"\n"):
            self.kill()
            return {}
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def _read_line(self, deadline: float) -> bytes | None:
        """Read up to the end of a line or of the stream; return None at the time limit."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            part = os.read(descriptor, _CHUNK)
            if not part:
                break
            line += part
        return bytes(line)

    def kill(self) -> None:
        """Kill the process: it has no state to lose."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
