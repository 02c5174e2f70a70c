"""The batcher: which questions share a query, whose answer is kept, and that nobody gets what was meant for others."""

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
    Bound,
    Lookup,
    Parameter,
    Report,
)
from refold.warehouse.engine.connections import connect
from refold.warehouse.queries.questions import Question
from refold.warehouse.queries.readers import ReadPosition

T = TypeVar("T")
SECONDS = 30

TYPES = {"id": "INTEGER", "position": "BIGINT"}
THING = Bound(Lookup(path="/things/{id}", table="things", text="One thing."), TYPES, key=("id",), one=True)
OTHER = Bound(Lookup(path="/others/{id}", table="things", text="One thing."), TYPES, key=("id",), one=True)
NUMBER = Parameter(type="INTEGER", text="A number.")
REPORT = Bound(
    Report(path="/report", sql="SELECT $n AS n", text="A report.", parameters={"n": NUMBER}),
    {"n": "INTEGER"},
    together=False,
)
ENDLESS = Bound(
    Report(
        path="/endless",
        sql="SELECT count(*) + $n AS n FROM range(1000000000) a, range(1000000000) b",
        text="A report that never ends.",
        parameters={"n": NUMBER},
    ),
    {"n": "BIGINT"},
)


@dataclass
class ReadSource:
    """A source by hand: it answers from one table, which shows its position, and can be held up.

    Attributes:
        position: where its rows stand.
        told: where it says that they stand, before anybody asks.
        error: what a query raises.
        asked: the end of each query.
        began: is released once for each query that begins.
        go: queries wait until this is set.
    """

    position: int = 1
    told: ReadPosition | None = None
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.connection = connect(threads=1)
        self.go.set()
        self.move(self.position)

    def move(self, position: int) -> None:
        """Bring the rows somewhere else, and say so."""
        self.position = position
        self.told = self._now()

    def standing(self) -> ReadPosition | None:
        """Tell what was told last."""
        return self.told

    def ask(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T, ReadPosition]:
        """Run a query on the rows as they are when it begins, but only when it may go on."""
        standing = self._now()
        self.began.release()
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TEMP VIEW things AS SELECT range AS id, {standing.position} AS position FROM range(9)"
            )
            spying = Spying(cursor, self.asked)
            return query(spying), standing  # type: ignore[arg-type]

    def close(self) -> None:
        """Let all go that is held up."""
        self.go.set()

    def _now(self) -> ReadPosition:
        return ReadPosition(self.position, self.position, "", "", 1, "digest")

    async def until_begun(self) -> None:
        """Wait until one more query has begun."""
        assert await asyncio.to_thread(self.began.acquire, timeout=SECONDS)


class Spying:
    """A connection that takes note of what is looked up or reported."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, asked: list[str]) -> None:
        self._cursor = cursor
        self._asked = asked

    def execute(self, sql: str, values: Any) -> duckdb.DuckDBPyConnection:
        """Note the values, and pass it on."""
        self._asked.append(" ".join(str(v) for v in (values.values() if isinstance(values, dict) else values)))
        return self._cursor.execute(sql, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextmanager
def batching(**options: Any) -> Iterator[tuple[ReadSource, QueryBatcher]]:
    """Make a source and an batcher of it."""
    source = ReadSource()
    with closing(QueryBatcher(source, **options)) as batcher, closing(source):
        yield source, batcher


def run(doing: Callable[[], Awaitable[None]]) -> None:
    """Run a test in an event loop of its own, for a bounded time."""

    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await doing()

    asyncio.run(bounded())


def thing(number: int, bound: Bound = THING) -> Question:
    """Ask for a thing."""
    return Question(bound, (number,))


def row(answered: Answer) -> Any:
    """Read an answer."""
    return orjson.loads(answered.data)


def test_questions_that_come_together_become_one_query() -> None:
    """Each gets its own row; those that find none too."""

    async def doing() -> None:
        with batching() as (source, batcher):
            found = await asyncio.gather(*(batcher.ask(thing(n)) for n in (3, 1, 8, 99)))
            assert source.asked == ["3 1 8 99"]
            assert [row(a) and row(a)["id"] for a in found] == [3, 1, 8, None]
            assert [a.found for a in found] == [True, True, True, False]

    run(doing)


def test_a_query_has_so_many_questions_at_most() -> None:
    """What is left over is asked next, and nothing twice."""

    async def doing() -> None:
        with batching(max_batch=2, threads=1) as (source, batcher):
            found = await asyncio.gather(*(batcher.ask(thing(n)) for n in range(5)))
            assert source.asked == ["0 1", "2 3", "4"]
            assert [row(a)["id"] for a in found] == list(range(5))

    run(doing)


def test_the_same_question_asked_twice_is_asked_once() -> None:
    """Together, while it is under way, and afterwards as long as nothing has changed."""

    async def doing() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            first = [asyncio.create_task(batcher.ask(thing(1))) for _ in range(3)]
            await source.until_begun()
            later = asyncio.create_task(batcher.ask(thing(1)))
            await asyncio.sleep(0)
            source.go.set()
            found = await asyncio.gather(*first, later)
            found.append(await batcher.ask(thing(1)))
            assert source.asked == ["1"]
            assert len({id(a) for a in found}) == 1

    run(doing)


def test_a_kept_answer_is_dropped_when_the_read_models_move() -> None:
    """Forward, and back as after a rollback."""

    async def doing() -> None:
        with batching() as (source, batcher):
            for position in (1, 2, 1):
                source.move(position)
                for _ in range(2):
                    answered = await batcher.ask(thing(1))
                    assert (row(answered)["position"], answered.shown.position) == (position, position)
            assert source.asked == ["1", "1", "1"]

    run(doing)


def test_an_answer_that_is_ahead_of_what_is_told_is_not_kept() -> None:
    """A live database has moved, and its reader not been told yet: what is told decides what is kept."""

    async def doing() -> None:
        with batching() as (source, batcher):
            source.position = 2
            assert row(await batcher.ask(thing(1)))["position"] == 2
            source.move(2)
            assert row(await batcher.ask(thing(1)))["position"] == 2
            assert source.asked == ["1", "1"]

    run(doing)


def test_who_wants_a_position_gets_no_answer_from_before() -> None:
    """What is under way when it is asked was begun before that position was shown: it is asked again, once for all."""

    async def doing() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            old = asyncio.create_task(batcher.ask(thing(1)))
            await source.until_begun()
            source.move(2)
            new = [asyncio.create_task(batcher.ask(thing(1), min_position=2)) for _ in range(3)]
            patient = asyncio.create_task(batcher.ask(thing(1)))
            await asyncio.sleep(0)
            source.go.set()
            assert [row(a)["position"] for a in await asyncio.gather(old, patient, *new)] == [1, 1, 2, 2, 2]
            assert source.asked == ["1", "1"]

    run(doing)


def test_who_goes_away_takes_nobody_with_him() -> None:
    """A request that is cancelled leaves those that ask the same, or in the same query, their answers."""

    async def doing() -> None:
        with batching() as (source, batcher):
            source.go.clear()
            gone = asyncio.create_task(batcher.ask(thing(1)))
            same = asyncio.create_task(batcher.ask(thing(1)))
            beside = asyncio.create_task(batcher.ask(thing(2)))
            await source.until_begun()
            gone.cancel()
            await asyncio.wait([gone])
            source.go.set()
            assert [row(a)["id"] for a in await asyncio.gather(same, beside)] == [1, 2]
            assert gone.cancelled()

    run(doing)


def test_an_error_reaches_all_who_asked_and_no_one_after() -> None:
    """The next question is asked anew; an error that nobody waits for any more is not a loose end."""

    async def doing() -> None:
        loose: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(context))
        with batching() as (source, batcher):
            source.error = UsageError("no")
            failed = await asyncio.gather(*(batcher.ask(thing(n)) for n in (1, 1, 2)), return_exceptions=True)
            assert [str(error) for error in failed] == ["no"] * 3
            source.go.clear()
            gone = asyncio.create_task(batcher.ask(thing(3)))
            await source.until_begun()
            await source.until_begun()
            gone.cancel()
            await asyncio.wait([gone])
            source.go.set()
            source.error = None
            assert row(await batcher.ask(thing(1)))["id"] == 1
        assert loose == []

    run(doing)


def test_groups_take_turns() -> None:
    """One that always has more to ask does not keep another from being asked."""

    async def doing() -> None:
        with batching(max_batch=2, threads=1) as (source, batcher):
            many = [asyncio.create_task(batcher.ask(thing(n))) for n in range(6)]
            one = asyncio.create_task(batcher.ask(thing(8, OTHER)))
            await asyncio.gather(*many, one)
            assert source.asked == ["0 1", "8", "2 3", "4 5"]

    run(doing)


def test_reports_leave_a_thread_to_lookups() -> None:
    """Two that take long are asked one after the other; who looks for a row does not wait for them."""

    async def doing() -> None:
        with batching(threads=2, report_seconds=SECONDS) as (source, batcher):
            source.go.clear()
            reports = [asyncio.create_task(batcher.ask(Question(REPORT, (n,)))) for n in range(3)]
            await source.until_begun()
            looking = asyncio.create_task(batcher.ask(thing(7)))
            await source.until_begun()
            source.go.set()
            await looking
            assert [row(a) for a in await asyncio.gather(*reports)] == [[{"n": 0}], [{"n": 1}], [{"n": 2}]]
            assert sorted(source.asked[:2]) == ["0", "7"]

    run(doing)


def test_a_report_alone_has_the_only_thread() -> None:
    """With one thread, reports and lookups share it."""

    async def doing() -> None:
        with batching(threads=1) as (_, batcher):
            found = await asyncio.gather(batcher.ask(Question(REPORT, (1,))), batcher.ask(thing(2)))
            assert [row(a) for a in found] == [[{"n": 1}], {"id": 2, "position": 1}]

    run(doing)


def test_a_report_that_takes_too_long_is_interrupted() -> None:
    """Only that one; what is asked next is answered."""

    async def doing() -> None:
        with batching(report_seconds=0.05) as (_, batcher):
            with pytest.raises(duckdb.InterruptException):
                await batcher.ask(Question(ENDLESS, (1,)))
            assert row(await batcher.ask(Question(REPORT, (1,)))) == [{"n": 1}]

    run(doing)
