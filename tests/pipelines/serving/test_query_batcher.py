"""The batcher: which queries share a statement, which answers are cached, and that each caller gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb
import orjson
import pytest

from refold.event_schemas import UsageError
from refold.pipelines.serving.reads.query_batcher import Answer, QueryBatcher
from refold.warehouse.declarations.endpoints import (
    BoundEndpoint,
    Lookup,
    Parameter,
    Report,
)
from refold.warehouse.engine.connections import connect
from refold.warehouse.queries.endpoint_queries import EndpointQuery
from refold.warehouse.queries.read_source import ReadPosition

T = TypeVar("T")
SECONDS = 30

TYPES = {"id": "INTEGER", "position": "BIGINT"}
THING = BoundEndpoint(
    Lookup(path="/things/{id}", table="things", text="One thing."), TYPES, key=("id",), single_row=True
)
OTHER = BoundEndpoint(
    Lookup(path="/others/{id}", table="things", text="One thing."), TYPES, key=("id",), single_row=True
)
NUMBER = Parameter(type="INTEGER", text="A number.")
REPORT = BoundEndpoint(
    Report(path="/report", sql="SELECT $n AS n", text="A report.", parameters={"n": NUMBER}),
    {"n": "INTEGER"},
    batchable=False,
)
ENDLESS = BoundEndpoint(
    Report(
        path="/endless",
        sql="SELECT count(*) + $n AS n FROM range(1000000000) a, range(1000000000) b",
        text="A report that never ends.",
        parameters={"n": NUMBER},
    ),
    {"n": "BIGINT"},
)


@dataclass
class FakeSource:
    """A fake source: it answers from one table that shows its position, and can block.

    Attributes:
        position: of its rows.
        reported: the position that it reports.
        error: raised by a query.
        queries: the bound values of each query.
        began: released once for each query that begins.
        go: queries wait until this is set.
    """

    position: int = 1
    reported: ReadPosition | None = None
    error: Exception | None = None
    queries: list[str] = field(default_factory=list)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.connection = connect(threads=1)
        self.go.set()
        self.move(self.position)

    def move(self, position: int) -> None:
        """Move the rows to a position, and report it."""
        self.position = position
        self.reported = self._now()

    def read_position(self) -> ReadPosition | None:
        """Return the reported position."""
        return self.reported

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a query on the rows as of its start, once queries may go on."""
        shown = self._now()
        self.began.release()
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error
        with self.connection.cursor() as cursor:
            cursor.execute(f"CREATE TEMP VIEW things AS SELECT range AS id, {shown.position} AS position FROM range(9)")
            spying = Spying(cursor, self.queries)
            return query(spying), shown  # type: ignore[arg-type]

    def close(self) -> None:
        """Release blocked queries."""
        self.go.set()

    def _now(self) -> ReadPosition:
        return ReadPosition(self.position, self.position, "", "", 1, "digest")

    async def wait_for_query(self) -> None:
        """Wait until one more query has begun."""
        assert await asyncio.to_thread(self.began.acquire, timeout=SECONDS)


class Spying:
    """A connection that records the values of each query that has some."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, queries: list[str]) -> None:
        self._cursor = cursor
        self._queries = queries

    def execute(self, sql: str, values: Any = ()) -> duckdb.DuckDBPyConnection:
        """Record the values, and run the query."""
        if values:
            self._queries.append(" ".join(str(v) for v in (values.values() if isinstance(values, dict) else values)))
        return self._cursor.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextmanager
def batching(**options: Any) -> Iterator[tuple[FakeSource, QueryBatcher]]:
    """Create a source and its batcher."""
    source = FakeSource()
    with closing(QueryBatcher(source, **options)) as batcher, closing(source):
        yield source, batcher


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in its own event loop, with a time limit."""

    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await scenario()

    asyncio.run(bounded())


def thing(number: int, bound: BoundEndpoint = THING) -> EndpointQuery:
    """Return the query for a thing."""
    return EndpointQuery(bound, (number,))


def row(answer: Answer) -> Any:
    """Parse an answer."""
    return orjson.loads(answer.data)


def test_concurrent_queries_share_one_statement() -> None:
    """Each caller gets its own row, or none if there is no such row."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            found = await asyncio.gather(*(batcher.ask(thing(n)) for n in (3, 1, 8, 99)))
            assert source.queries == ["3 1 8 99"]
            assert [row(a) and row(a)["id"] for a in found] == [3, 1, 8, None]
            assert [a.found for a in found] == [True, True, True, False]

    run(scenario)


def test_the_size_of_a_batch_is_limited() -> None:
    """The remaining queries follow in the next statements, each once."""

    async def scenario() -> None:
        with batching(max_batch=2, threads=1) as (source, batcher):
            found = await asyncio.gather(*(batcher.ask(thing(n)) for n in range(5)))
            assert source.queries == ["0 1", "2 3", "4"]
            assert [row(a)["id"] for a in found] == list(range(5))

    run(scenario)


def test_queries_that_nobody_waits_for_are_not_run() -> None:
    """Their clients disconnected while an earlier query ran; others of the same group are answered."""

    async def scenario() -> None:
        with batching(threads=1) as (source, batcher):
            source.go.clear()
            first = asyncio.create_task(batcher.ask(thing(1)))
            await source.wait_for_query()
            waiting = [asyncio.create_task(batcher.ask(thing(n))) for n in (2, 3, 4)]
            await asyncio.sleep(0)
            for abandoned in waiting[:2]:
                abandoned.cancel()
            await asyncio.gather(*waiting[:2], return_exceptions=True)
            source.go.set()
            assert [row(a)["id"] for a in await asyncio.gather(first, waiting[2])] == [1, 4]
            assert source.queries == ["1", "4"]

    run(scenario)


def test_equal_queries_run_once() -> None:
    """Equal queries share a result in a batch, while it runs, and until the read models change."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            first = [asyncio.create_task(batcher.ask(thing(1))) for _ in range(3)]
            await source.wait_for_query()
            later = asyncio.create_task(batcher.ask(thing(1)))
            await asyncio.sleep(0)
            source.go.set()
            found = await asyncio.gather(*first, later)
            found.append(await batcher.ask(thing(1)))
            assert source.queries == ["1"]
            assert len({id(a) for a in found}) == 1

    run(scenario)


def test_a_cached_answer_is_dropped_when_the_read_models_move() -> None:
    """A change of position in either direction, as after a rollback, clears the cache."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            for position in (1, 2, 1):
                source.move(position)
                for _ in range(2):
                    answer = await batcher.ask(thing(1))
                    assert (row(answer)["position"], answer.shown.position) == (position, position)
            assert source.queries == ["1", "1", "1"]

    run(scenario)


def test_an_answer_ahead_of_the_reported_position_is_not_cached() -> None:
    """A live database has advanced and its reader has not reported it yet: the report decides what is cached."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            source.position = 2
            assert row(await batcher.ask(thing(1)))["position"] == 2
            source.move(2)
            assert row(await batcher.ask(thing(1)))["position"] == 2
            assert source.queries == ["1", "1"]

    run(scenario)


def test_a_minimum_position_excludes_earlier_answers() -> None:
    """A query that began before the position was shown does not count: one new query serves all waiting callers."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            old = asyncio.create_task(batcher.ask(thing(1)))
            await source.wait_for_query()
            source.move(2)
            new = [asyncio.create_task(batcher.ask(thing(1), min_position=2)) for _ in range(3)]
            patient = asyncio.create_task(batcher.ask(thing(1)))
            await asyncio.sleep(0)
            source.go.set()
            assert [row(a)["position"] for a in await asyncio.gather(old, patient, *new)] == [1, 1, 2, 2, 2]
            assert source.queries == ["1", "1"]

    run(scenario)


def test_a_cancelled_request_affects_no_other() -> None:
    """Requests with the same query, or in the same statement, still get their answers."""

    async def scenario() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            gone = asyncio.create_task(batcher.ask(thing(1)))
            same = asyncio.create_task(batcher.ask(thing(1)))
            beside = asyncio.create_task(batcher.ask(thing(2)))
            await source.wait_for_query()
            gone.cancel()
            await asyncio.wait([gone])
            source.go.set()
            assert [row(a)["id"] for a in await asyncio.gather(same, beside)] == [1, 2]
            assert gone.cancelled()

    run(scenario)


def test_an_error_reaches_the_callers_of_its_query_only() -> None:
    """The next query runs a new statement; an error without a waiting caller is not reported as unhandled."""

    async def scenario() -> None:
        unhandled: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        with batching() as (source, batcher):
            source.error = UsageError("no")
            failed = await asyncio.gather(*(batcher.ask(thing(n)) for n in (1, 1, 2)), return_exceptions=True)
            assert [str(error) for error in failed] == ["no"] * 3
            source.go.clear()
            gone = asyncio.create_task(batcher.ask(thing(3)))
            await source.wait_for_query()
            await source.wait_for_query()
            gone.cancel()
            await asyncio.wait([gone])
            source.go.set()
            source.error = None
            assert row(await batcher.ask(thing(1)))["id"] == 1
        assert unhandled == []

    run(scenario)


def test_groups_take_turns() -> None:
    """A group with many queries does not block another group."""

    async def scenario() -> None:
        with batching(max_batch=2, threads=1) as (source, batcher):
            many = [asyncio.create_task(batcher.ask(thing(n))) for n in range(6)]
            one = asyncio.create_task(batcher.ask(thing(8, OTHER)))
            await asyncio.gather(*many, one)
            assert source.queries == ["0 1", "8", "2 3", "4 5"]

    run(scenario)


def test_reports_leave_a_thread_to_lookups() -> None:
    """Slow reports run one after the other; a lookup does not wait for them."""

    async def scenario() -> None:
        with batching(threads=2, report_seconds=SECONDS) as (source, batcher):
            source.go.clear()
            reports = [asyncio.create_task(batcher.ask(EndpointQuery(REPORT, (n,)))) for n in range(3)]
            await source.wait_for_query()
            looking = asyncio.create_task(batcher.ask(thing(7)))
            await source.wait_for_query()
            source.go.set()
            await looking
            assert [row(a) for a in await asyncio.gather(*reports)] == [[{"n": 0}], [{"n": 1}], [{"n": 2}]]
            assert sorted(source.queries[:2]) == ["0", "7"]

    run(scenario)


def test_a_report_alone_has_the_only_thread() -> None:
    """With one thread, reports and lookups share it."""

    async def scenario() -> None:
        with batching(threads=1) as (_, batcher):
            found = await asyncio.gather(batcher.ask(EndpointQuery(REPORT, (1,))), batcher.ask(thing(2)))
            assert [row(a) for a in found] == [[{"n": 1}], {"id": 2, "position": 1}]

    run(scenario)


def test_a_report_that_takes_too_long_is_interrupted() -> None:
    """Only that query is interrupted; the next query is answered."""

    async def scenario() -> None:
        with batching(report_seconds=0.05) as (_, batcher):
            with pytest.raises(duckdb.InterruptException):
                await batcher.ask(EndpointQuery(ENDLESS, (1,)))
            assert row(await batcher.ask(EndpointQuery(REPORT, (1,)))) == [{"n": 1}]

    run(scenario)
