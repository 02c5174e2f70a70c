"""SQL of analysts on the newest generation, each query in a process that can be ended.

DuckDB keeps a query from files, network and settings, and tries to keep it to its memory and time. That alone does not
do: a function may look neither at the clock nor at the limit. So a query runs in a process of its own (``confined``),
which gave up the means for anything else, and is killed when its time is up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from event_schemas import UsageError
from pipelines.serving.problems import ServingError
from warehouse.read_models.generations import Generation

_LOGGER = logging.getLogger("refold.serving")
_IDLE_SECONDS = 60.0
_KILL_AFTER = 0.5
_ALARM_AFTER = 3.0
"""A process ends itself so many seconds after its query should have ended, if nobody has killed it by then."""

_PROGRAM = str(Path(__file__).with_name("confined.py"))
_START_SECONDS = 20.0
_CHUNK = 1 << 16


class QueryRefusedError(ServingError):
    """A query cannot be meant, or asks for what no query may do."""

    status = 400
    code = "refused"


class QueryTooSlowError(ServingError):
    """A query took longer than it may."""

    status = 408
    code = "slow"


class QueryTooLargeError(ServingError):
    """A query needs more memory than it may have."""

    status = 413
    code = "memory"


class QueryBusyError(ServingError):
    """Other queries take all processes there are."""

    status = 503
    code = "busy"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """What a query yields, and where in the log it stands.

    Attributes:
        columns: their names; one may come twice.
        types: DuckDB's types of them.
        rows: values as JSON has them: decimals and integers beyond 64 bits are text, times RFC 3339, blobs hexadecimal.
        truncated: whether rows were left out, because of their number or size.
        seconds: what the query took.
        generation: the number of the generation that was asked.
        position: of the last event that it holds.
        last_updated: when it was published, RFC 3339.
    """

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    seconds: float
    generation: int
    position: int
    last_updated: str


class Sandbox:
    """Answers queries in a few processes that are kept warm; may be used by many threads.

    Args:
        path_of_newest: gives the newest generation and its local file, before each query.
        limits: what queries may take.

    Raises:
        UsageError: the system cannot bound a process.

    Example:
        >>> from pipelines.serving.sandbox import Sandbox
        >>> def answer(generations, sql):
        ...     newest = generations.newest()
        ...     with contextlib.closing(Sandbox(lambda: (generations.path(newest), newest))) as sandbox:
        ...         return sandbox.query(sql, {"month": "2026-01-01"}).rows
    """

    def __init__(
        self, path_of_newest: Callable[[], tuple[Path, Generation]], *, limits: QueryLimits = QueryLimits()
    ) -> None:
        if os.name != "posix":
            raise UsageError(
                "This system cannot bound what a process may do, so there is no /query. Leave --query out."
            )
        self.limits = limits
        self._path_of_newest = path_of_newest
        self._free = threading.BoundedSemaphore(limits.processes)
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._closed = False

    def query(self, sql: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> QueryAnswer:
        """Run one query on the newest generation.

        Args:
            sql: one SELECT, or EXPLAIN of one.
            parameters: values for ``$name``, or for ``?`` in their order.

        Raises:
            QueryRefusedError: it cannot be meant, does something other than read, or ended its process.
            QueryTooSlowError: it took too long.
            QueryTooLargeError: it needs too much memory.
            QueryBusyError: others run, and did not end in time.
        """
        if not self._free.acquire(timeout=self.limits.wait_seconds):
            raise QueryBusyError("Other queries are under way. Ask again.")
        try:
            path, generation = self._path_of_newest()
            process = self._take(path)
            try:
                answer = process.ask({"sql": sql, "parameters": parameters}, self.limits.seconds + _KILL_AFTER)
            except BaseException:
                process.kill()
                raise
            self._give_back(process, ends="memory" in answer)
        finally:
            self._free.release()
        self._check(answer)
        return QueryAnswer(
            **answer,
            generation=generation.number,
            position=generation.position,
            last_updated=generation.published_at.replace("+00:00", "Z"),
        )

    def close(self) -> None:
        """End all processes; those that run a query, when it has ended."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()

    def _check(self, answer: dict[str, Any]) -> None:
        if "refused" in answer:
            raise QueryRefusedError(f"The query is refused: {answer['refused']}")
        if "slow" in answer:
            raise QueryTooSlowError(
                f"The query took more than {self.limits.seconds:g} seconds. Ask for less of it, or ask the published "
                "file with a DuckDB of your own."
            )
        if "memory" in answer:
            raise QueryTooLargeError(
                f"The query needs more than {self.limits.memory_mib:,} MiB of memory. Ask for less of it, or ask the "
                "published file with a DuckDB of your own."
            )
        if "columns" not in answer:
            raise QueryRefusedError("The query ended the process that ran it. Write it in another way.")

    def _take(self, path: Path) -> _Process:
        """Take a process that has this file open; end those that have an older one open."""
        with self._lock:
            idle, self._idle = self._idle, []
            fit = [process for process in idle if process.path == path and process.is_fresh()]
            taken = fit.pop() if fit else None
            self._idle = fit
        for process in idle:
            if process is not taken and process not in fit:
                process.kill()
        return taken or _Process(path, self.limits)

    def _give_back(self, process: _Process, *, ends: bool) -> None:
        with self._lock:
            kept = not self._closed and not ends and process.is_fresh()
            if kept:
                self._idle.append(process)
        if not kept:
            process.kill()


class _Process:
    """One confined process.

    Attributes:
        path: of the file that it has open.
    """

    def __init__(self, path: Path, limits: QueryLimits) -> None:
        self.path = path
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
        answer = self.ask(settings, _START_SECONDS)
        if "columns" not in answer:
            self.kill()
            _LOGGER.error("No process for queries could be started on %s: %s", path, answer or "it ended at once")
            raise QueryBusyError("No process for queries could be started; the server's log tells why.")

    def is_fresh(self) -> bool:
        """Tell whether it lives, and will for long enough to be asked."""
        return self._process.poll() is None and time.monotonic() - self._asked_at < _IDLE_SECONDS

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line and give the answer; ``slow`` if none came in time, and nothing if the process ended."""
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
