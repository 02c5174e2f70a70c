"""Query batching: queries of one kind that arrive while others run become one SQL statement.

Under low load, each query runs at once and alone. Under high load, the more queries wait, the less each costs. An
answer is cached until the read models advance, and identical queries share one query.

All bookkeeping happens in the thread of the event loop, so it needs no locks; queries run in a few threads.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb

from refold.event_schemas import UsageError
from refold.warehouse.declarations.endpoints import Report
from refold.warehouse.queries.endpoint_queries import (
    EndpointQuery,
    Page,
    WithheldRow,
    answer,
    to_json,
)
from refold.warehouse.queries.read_source import ReadPosition, ReadSource

_MAX_CACHED = 10_000
"""Cached answers; further ones are not cached. At a few hundred bytes each they take a few megabytes."""

_BATCH_SECONDS = 0.05
"""The target duration of a batch of reports, estimated from the batch before: a longer one would delay its callers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query.

    Attributes:
        data: JSON: a list of rows, or one row, or ``null`` if there is none.
        found: whether there is any row.
        after: the cursor of the next page; empty if there is none.
        shown: the position of its rows.
        withheld: the row that there is but is withheld.
    """

    data: bytes
    found: bool
    after: str
    shown: ReadPosition
    withheld: WithheldRow | None = None


Key = tuple[Any, ...]


class QueryBatcher:
    """Batches the queries of many requests into few SQL statements.

    Args:
        source: a reader.
        threads: concurrent queries; with two or more, reports leave one thread to lookups, which are short.
        max_batch: queries in one query.
        report_seconds: the time limit of a report.
    """

    def __init__(
        self, source: ReadSource, *, threads: int = 2, max_batch: int = 64, report_seconds: float = 10.0
    ) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._free = threads
        self._free_for_reports = max(threads - 1, 1)
        self._max_batch = max_batch
        self._report_seconds = report_seconds
        self._waiters: dict[Key, list[asyncio.Future[Answer]]] = {}
        self._queues: OrderedDict[Key, dict[Key, EndpointQuery]] = OrderedDict()
        self._seconds: dict[Key, float] = {}
        self._dispatch_due = False
        self._cache: dict[Key, Answer] = {}
        self._cached_at: ReadPosition | None = None

    async def ask(self, query: EndpointQuery, *, min_position: int = 0) -> Answer:
        """Answer a query.

        Args:
            query: the query.
            min_position: a position that the reader is known to show: an answer from an earlier query does not count.

        Raises:
            GenerationError: nothing is published yet.
            UsageError: the query's cursor is invalid, or its answer has too many rows.
            duckdb.InterruptException: a report exceeded its time limit.
        """
        key = (query.group, query.values)
        now = self._source.read_position()
        if now is not self._cached_at:
            self._cache.clear()
            self._cached_at = now
        if (cached := self._cache.get(key)) is not None:
            return cached
        answer = await self._add(key, query)
        if answer.shown.position < min_position:  # it joined a query that had started before
            answer = await self._add(key, query)
        return answer

    def close(self) -> None:
        """Stop answering."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, key: Key, query: EndpointQuery) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if (waiters := self._waiters.get(key)) is not None:
            waiters.append(future)
            return future
        self._waiters[key] = [future]
        self._queues.setdefault(query.group, {})[key] = query
        if not self._dispatch_due:
            self._dispatch_due = True
            loop.call_soon(self._dispatch)  # after the loop has handled all sockets that are ready now
        return future

    def _dispatch(self) -> None:
        self._dispatch_due = False
        loop = asyncio.get_running_loop()
        while self._free and (group := self._next_group()) is not None:
            queue = self._queues.pop(group)
            self._forget_abandoned(queue)
            if not queue:
                continue
            keys = list(queue)[: self._batch_size(group)]
            queries = [queue.pop(key) for key in keys]
            if queue:
                self._queues[group] = queue
            report = _is_report(queries[0])
            self._free -= 1
            self._free_for_reports -= report
            running = loop.run_in_executor(self._pool, self._run, queries)
            running.add_done_callback(partial(self._end, keys, report))

    def _forget_abandoned(self, queue: dict[Key, EndpointQuery]) -> None:
        """Drop the queries that nobody waits for any more, as their clients disconnected."""
        for key in [key for key in queue if all(future.done() for future in self._waiters[key])]:
            del queue[key], self._waiters[key]

    def _next_group(self) -> Key | None:
        """Return the group that has waited longest, of those that may run now."""
        for group, queue in self._queues.items():
            if self._free_for_reports or not _is_report(next(iter(queue.values()))):
                return group
        return None

    def _end(self, keys: Sequence[Key], report: bool, done: asyncio.Future[list[Answer | Exception]]) -> None:
        self._free += 1
        self._free_for_reports += report
        error = None if done.cancelled() else done.exception()
        for index, key in enumerate(keys):
            result = error or (None if done.cancelled() else done.result()[index])
            for future in self._waiters.pop(key):
                if future.done():  # the client disconnected
                    continue
                if result is None:
                    future.cancel()
                elif isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
            if isinstance(result, Answer) and result.shown == self._cached_at and len(self._cache) < _MAX_CACHED:
                self._cache[key] = result
        if self._queues:
            self._dispatch()

    def _batch_size(self, group: Key) -> int:
        """Return how many queries of a group become one SQL statement: the slower a report, the fewer."""
        if (seconds := self._seconds.get(group)) is None:
            return self._max_batch
        return min(max(int(_BATCH_SECONDS / seconds), 1), self._max_batch)

    def _run(self, queries: Sequence[EndpointQuery]) -> list[Answer | Exception]:
        first = queries[0]
        if not (isinstance(first.bound.endpoint, Report) and first.bound.batchable):
            return [*self._ask(queries)]
        started = time.perf_counter()
        try:
            answers = self._ask(queries)
        except (duckdb.Error, UsageError) as error:
            self._seconds[first.group] = self._report_seconds
            if len(queries) == 1:
                return [error]
            return [one for query in queries for one in self._run([query])]
        self._seconds[first.group] = (time.perf_counter() - started) / len(queries)
        return [*answers]

    def _ask(self, queries: Sequence[EndpointQuery]) -> list[Answer]:
        def run(connection: duckdb.DuckDBPyConnection) -> list[Page]:
            if _is_report(queries[0]):
                with _time_limit(self._report_seconds, connection):
                    return answer(connection, queries)
            return answer(connection, queries)

        pages, shown = self._source.ask(run)
        return [_answer_of(q, page, shown) for q, page in zip(queries, pages, strict=True)]


def _is_report(query: EndpointQuery) -> bool:
    return isinstance(query.bound.endpoint, Report)


def _answer_of(query: EndpointQuery, page: Page, shown: ReadPosition) -> Answer:
    data: Any = page.rows
    if query.bound.single_row:
        data = page.rows[0] if page.rows else None
    return Answer(to_json(data), bool(page.rows), page.after, shown, page.withheld)


_INTERRUPT_EVERY = 0.05
"""Seconds between two interrupts of a query that is over its limit."""


@contextmanager
def _time_limit(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt the block's query at the time limit, and never a later query of the connection.

    An interrupt that comes while no statement runs is lost, as between two statements; so it is repeated.
    """
    lock = threading.Lock()
    ended = threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not ended.wait(wait):
            with lock:
                if not ended.is_set():
                    connection.interrupt()
            wait = _INTERRUPT_EVERY

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with lock:
            ended.set()
