"""Asking: questions that come while others are being answered wait, and those of one kind become one query.

Under little load a question is asked at once, alone. Under much, the more questions wait, the less each costs. An
answer is kept for as long as the read models stand where it was given, and two that ask the same share one.

All of this happens in the event loop's thread, so there are no locks; queries run in a few threads of their own.
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
from refold.warehouse.queries.questions import (
    Page,
    Question,
    answer,
    to_json,
)
from refold.warehouse.queries.readers import ReadPosition, ReadSource

_KEPT = 10_000
_TOGETHER_SECONDS = 0.05
"""How long a query of many reports may take, as far as can be told from the one before."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question.

    Attributes:
        data: JSON: a list of rows, or one row, or ``null`` if there is none.
        found: whether there is any row.
        after: the cursor of the next page; empty if there is none.
        standing: where its rows stand.
    """

    data: bytes
    found: bool
    after: str
    standing: ReadPosition


Key = tuple[Any, ...]


class QueryBatcher:
    """Asks a source on behalf of many requests.

    Args:
        source: a reader.
        threads: how many queries run at once; if there are several, reports leave one to lookups, which are short.
        together: how many questions become one query at most.
        report_seconds: how long a report may take.
    """

    def __init__(
        self, source: ReadSource, *, threads: int = 2, together: int = 64, report_seconds: float = 10.0
    ) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="query")
        self._free = threads
        self._free_for_reports = max(threads - 1, 1)
        self._together = together
        self._report_seconds = report_seconds
        self._asked: dict[Key, list[asyncio.Future[Answered]]] = {}
        self._groups: OrderedDict[Key, dict[Key, Question]] = OrderedDict()
        self._seconds: dict[Key, float] = {}
        self._due = False
        self._kept: dict[Key, Answered] = {}
        self._kept_at: ReadPosition | None = None

    async def ask(self, question: Question, *, at_least: int = 0) -> Answered:
        """Answer a question.

        Args:
            question: what is asked.
            at_least: a position that was seen to be shown: what was asked before that must not be the answer.

        Raises:
            GenerationError: there is nothing to ask yet.
            UsageError: the question makes no sense, by its cursor or the number of its rows.
            duckdb.InterruptException: a report took too long.
        """
        key = (question.group, question.values)
        now = self._source.standing()
        if now is not self._kept_at:
            self._kept.clear()
            self._kept_at = now
        if (kept := self._kept.get(key)) is not None:
            return kept
        answered = await self._add(key, question)
        if answered.standing.position < at_least:  # it was asked together with somebody who came before
            answered = await self._add(key, question)
        return answered

    def close(self) -> None:
        """Answer no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _add(self, key: Key, question: Question) -> asyncio.Future[Answered]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        if (asked := self._asked.get(key)) is not None:
            asked.append(future)
            return future
        self._asked[key] = [future]
        self._groups.setdefault(question.group, {})[key] = question
        if not self._due:
            self._due = True
            loop.call_soon(self._dispatch)  # with all that the loop has read from its sockets by now
        return future

    def _dispatch(self) -> None:
        self._due = False
        loop = asyncio.get_running_loop()
        while self._free and (group := self._next_group()) is not None:
            waiting = self._groups.pop(group)
            keys = list(waiting)[: self._most(group)]
            questions = [waiting.pop(key) for key in keys]
            if waiting:
                self._groups[group] = waiting
            report = _is_report(questions[0])
            self._free -= 1
            self._free_for_reports -= report
            running = loop.run_in_executor(self._pool, self._run, questions)
            running.add_done_callback(partial(self._end, keys, report))

    def _next_group(self) -> Key | None:
        """Choose the group that waits the longest, of those that may be asked now."""
        for group, waiting in self._groups.items():
            if self._free_for_reports or not _is_report(next(iter(waiting.values()))):
                return group
        return None

    def _end(self, keys: Sequence[Key], report: bool, done: asyncio.Future[list[Answered | Exception]]) -> None:
        self._free += 1
        self._free_for_reports += report
        error = None if done.cancelled() else done.exception()
        for index, key in enumerate(keys):
            found = error or (None if done.cancelled() else done.result()[index])
            for future in self._asked.pop(key):
                if future.done():  # whoever asked has gone
                    continue
                if found is None:
                    future.cancel()
                elif isinstance(found, BaseException):
                    future.set_exception(found)
                else:
                    future.set_result(found)
            if isinstance(found, Answered) and found.standing == self._kept_at and len(self._kept) < _KEPT:
                self._kept[key] = found
        if self._groups:
            self._dispatch()

    def _most(self, group: Key) -> int:
        """Tell how many questions of a group become one query: slow reports are asked alone, or few together."""
        if (seconds := self._seconds.get(group)) is None:
            return self._together
        return min(max(int(_TOGETHER_SECONDS / seconds), 1), self._together)

    def _run(self, questions: Sequence[Question]) -> list[Answered | Exception]:
        first = questions[0]
        if not (isinstance(first.bound.endpoint, Report) and first.bound.together):
            return [*self._ask(questions)]
        started = time.perf_counter()
        try:
            found = self._ask(questions)
        except (duckdb.Error, UsageError) as error:
            self._seconds[first.group] = self._report_seconds
            if len(questions) == 1:
                return [error]
            return [one for question in questions for one in self._run([question])]
        self._seconds[first.group] = (time.perf_counter() - started) / len(questions)
        return [*found]

    def _ask(self, questions: Sequence[Question]) -> list[Answered]:
        def query(connection: duckdb.DuckDBPyConnection) -> list[Page]:
            if _is_report(questions[0]):
                with _within(self._report_seconds, connection):
                    return answer(connection, questions)
            return answer(connection, questions)

        pages, standing = self._source.ask(query)
        return [_answered(q, page, standing) for q, page in zip(questions, pages, strict=True)]


def _is_report(question: Question) -> bool:
    return isinstance(question.bound.endpoint, Report)


def _answered(question: Question, page: Page, standing: ReadPosition) -> Answered:
    shown: Any = page.rows
    if question.bound.one:
        shown = page.rows[0] if page.rows else None
    return Answered(to_json(shown), bool(page.rows), page.after, standing)


@contextmanager
def _within(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt what takes longer; never what the connection does next."""
    lock = threading.Lock()
    ended = False

    def interrupt() -> None:
        with lock:
            if not ended:
                connection.interrupt()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            ended = True
