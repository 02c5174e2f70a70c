"""SQL of analysts on the newest generation, each query in a process that can be ended.

DuckDB keeps a query from files, network and settings, and tries to keep it to its memory and time. That alone does not
do: a function may look neither at the clock nor at the limit. So a query runs in a process of its own (``confined``),
which gave up the means for anything else, and is killed when its time is up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refold.event_schemas import UsageError
from refold.pipelines.serving.http.problems import ServingError
from refold.pipelines.serving.sandbox.sandbox_process import QueryLimits, QueryProcess
from refold.warehouse.read_models.generations.generations import Generation

_USUAL = QueryLimits()


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
        last_updated: when its tables were brought there, RFC 3339.
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
        >>> from refold.pipelines.serving.sandbox.sandbox_pool import Sandbox
        >>> def answer(generations, sql):
        ...     newest = generations.newest()
        ...     with contextlib.closing(Sandbox(lambda: (generations.path(newest), newest))) as sandbox:
        ...         return sandbox.query(sql, {"month": "2026-01-01"}).rows
    """

    def __init__(self, path_of_newest: Callable[[], tuple[Path, Generation]], *, limits: QueryLimits = _USUAL) -> None:
        if os.name != "posix":
            raise UsageError(
                "This system cannot bound what a process may do, so there is no /query. Leave --query out."
            )
        self.limits = limits
        self._path_of_newest = path_of_newest
        self._free = threading.BoundedSemaphore(limits.processes)
        self._lock = threading.Lock()
        self._idle: list[QueryProcess] = []
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
                answer = process.query(sql, parameters)
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
            last_updated=process.last_updated or generation.published_at.replace("+00:00", "Z"),
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

    def _take(self, path: Path) -> QueryProcess:
        """Take a process that has this file open; end those that have an older one open."""
        with self._lock:
            idle, self._idle = self._idle, []
            fit = [process for process in idle if process.path == path and process.is_fresh()]
            taken = fit.pop() if fit else None
            self._idle = fit
        for process in idle:
            if process is not taken and process not in fit:
                process.kill()
        return taken or QueryProcess(path, self.limits)

    def _give_back(self, process: QueryProcess, *, ends: bool) -> None:
        with self._lock:
            kept = not self._closed and not ends and process.is_fresh()
            if kept:
                self._idle.append(process)
        if not kept:
            process.kill()
