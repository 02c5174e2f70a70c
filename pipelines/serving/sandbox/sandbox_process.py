"""One confined process, seen from the server: started, asked, watched and ended."""

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

_LOGGER = logging.getLogger("refold.serving")
_PROGRAM = str(Path(__file__).with_name("sandbox_child.py"))
_IDLE_SECONDS = 60.0
_START_SECONDS = 20.0
_KILL_AFTER = 0.5
_ALARM_AFTER = 3.0
"""A process ends itself so many seconds after its query should have ended, if nobody has killed it by then."""

_CHUNK = 1 << 16


class QueryProcessError(ServingError):
    """No process for queries could be started."""

    status = 503
    code = "unavailable"
    retry_after = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What queries may take.

    Attributes:
        seconds: of one query.
        rows: of one answer; further ones are left out, and the answer says so.
        answer_bytes: of one answer's rows as JSON; likewise.
        memory_mib: of one query, in MiB.
        processes: how many queries run at the same time.
        wait_seconds: how long one waits for another to end.

    Raises:
        UsageError: one of them lets nothing through.
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
                raise UsageError(f"{name} is {getattr(self, name)}; expected more than 0.")


class QueryProcess:
    """One confined process.

    Attributes:
        path: of the file that it has open.
        last_updated: when that file's tables were brought to its position, RFC 3339; None if it does not say.
    """

    def __init__(self, path: Path, limits: QueryLimits) -> None:
        self.path = path
        self._seconds = limits.seconds + _KILL_AFTER
        self._process = subprocess.Popen(
            [sys.executable, "-I", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"MALLOC_ARENA_MAX": "1"},  # a heap for each thread would count as memory that is taken
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the server, which ends its processes itself
        )
        self._asked_at = time.monotonic()
        settings = {
            "modules": [folder for folder in sys.path if folder],
            "file": str(path.resolve()),
            "memory_bytes": limits.memory_mib << 20,
            "seconds": limits.seconds,
            "grace_seconds": _ALARM_AFTER,
            "idle_seconds": _IDLE_SECONDS + _ALARM_AFTER,
            "rows": limits.rows,
            "answer_bytes": limits.answer_bytes,
        }
        answer = self._ask(settings, _START_SECONDS)
        if "columns" not in answer:
            self.kill()
            _LOGGER.error("No process for queries could be started on %s: %s", path, answer or "it ended at once")
            raise QueryProcessError("No process for queries could be started; the server's log tells why.")
        self.last_updated: str | None = answer["last_updated"]

    def is_fresh(self) -> bool:
        """Tell whether it lives, and will for long enough to be asked."""
        return self._process.poll() is None and time.monotonic() - self._asked_at < _IDLE_SECONDS

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
        """Give what a query yields, or ``refused``, ``slow`` or ``memory``; nothing if it ended the process."""
        return self._ask({"sql": sql, "parameters": parameters}, self._seconds)

    def _ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._asked_at = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question).encode() + b"\n")  # integers of any size
            self._process.stdin.flush()
        line = self._read_line(self._asked_at + seconds)
        if line is None:
            self.kill()
            return {"slow": ""}
        if not line.endswith(b"\n"):
            self.kill()
            return {}
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def _read_line(self, until: float) -> bytes | None:
        """Read up to the end of a line or of the stream; None if it took too long."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            part = os.read(descriptor, _CHUNK)
            if not part:
                break
            line += part
        return bytes(line)

    def kill(self) -> None:
        """End it at once: it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
