"""SQL of analysts on the newest generation, each query in a sandbox child.

DuckDB keeps a query away from files, network and settings, and enforces limits of memory and time where it checks them.
A function may check neither. So each query runs in a process of its own, which has given up every other right and is
killed when its time is up.
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
from refold.warehouse.engine.sql import first_line
from refold.warehouse.read_models.generations.generations import Generation

_DEFAULT_LIMITS = QueryLimits()


class QueryRefusedError(ServingError):
    """A query is invalid, or does what no query may do."""

    status = 400
    code = "refused"


class QueryTooSlowError(ServingError):
    """A query exceeded its time limit."""

    status = 408
    code = "slow"


class QueryTooLargeError(ServingError):
    """A query exceeded its memory limit."""

    status = 413
    code = "memory"


class QueryBusyError(ServingError):
    """All sandbox children are busy."""

    status = 503
    code = "busy"
    retry_after = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """The answer to a query, and its position in the log.

    Attributes:
        columns: their names, which need not be unique.
        types: their DuckDB types.
        rows: JSON values: decimals and integers beyond 64 bits are text, times RFC 3339, blobs hexadecimal.
        truncated: whether rows are missing because of a limit on their number or size.
        seconds: the duration of the query.
        generation: the number of the generation.
        position: of the last event in it.
        last_updated: when its tables reached that position, RFC 3339.
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
    """Runs queries in a few sandbox children that are kept warm; thread-safe.

    Args:
        path_of_newest: returns the newest generation and its local file, before each query.
        limits: of each query.

    Raises:
        UsageError: the system cannot limit a process.

    Example:
        >>> from refold.pipelines.serving.sandbox.sandbox_pool import Sandbox
        >>> def answer(generations, sql):
        ...     newest = generations.newest()
        ...     with contextlib.closing(Sandbox(lambda: (generations.path(newest), newest))) as sandbox:
        ...         return sandbox.query(sql, {"month": "2026-01-01"}).rows
    """

    def __init__(
        self, path_of_newest: Callable[[], tuple[Path, Generation]], *, limits: QueryLimits = _DEFAULT_LIMITS
    ) -> None:
        if os.name != "posix":
            raise UsageError("--query needs a POSIX system, which can limit what a process may do. Leave it out.")
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
            QueryRefusedError: the query is invalid, is not a read, or crashed its process.
            QueryTooSlowError: it exceeded its time limit.
            QueryTooLargeError: it exceeded its memory limit.
            QueryBusyError: no sandbox child became free in time.
        """
        if not self._free.acquire(timeout=self.limits.wait_seconds):
            raise QueryBusyError("Other queries are running. Try again.")
        try:
            path, generation = self._path_of_newest()
            process = self._take(path)
            try:
                answer = process.query(sql, parameters)
            except BaseException:
                process.kill()
                raise
            self._return(process, exits="memory" in answer)
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
        """Stop all sandbox children; one that runs a query, when the query ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()

    def _check(self, answer: dict[str, Any]) -> None:
        if "refused" in answer:
            raise QueryRefusedError(f"The query was refused: {first_line(ValueError(answer['refused']))}")
        if "slow" in answer:
            raise QueryTooSlowError(
                f"The query took more than {self.limits.seconds:g} seconds. Ask for less, or query the published file "
                "with your own DuckDB."
            )
        if "memory" in answer:
            raise QueryTooLargeError(
                f"The query needs more than {self.limits.memory_mib:,} MiB of memory. Ask for less, or query the "
                "published file with your own DuckDB."
            )
        if "columns" not in answer:
            raise QueryRefusedError("The query crashed the process that ran it. Rewrite the query.")

    def _take(self, path: Path) -> QueryProcess:
        """Take a sandbox child that has this file open, and stop those that have an older file open."""
        with self._lock:
            idle, self._idle = self._idle, []
            usable = [process for process in idle if process.path == path and process.is_fresh()]
            taken = usable.pop() if usable else None
            self._idle = usable
        for process in idle:
            if process is not taken and process not in usable:
                process.kill()
        return taken or QueryProcess(path, self.limits)

    def _return(self, process: QueryProcess, *, exits: bool) -> None:
        with self._lock:
            keep = not self._closed and not exits and process.is_fresh()
            if keep:
                self._idle.append(process)
        if not keep:
            process.kill()
