"""Faults that the law found, or that were found beside it, each as small as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from refold.event_schemas import (
    InvalidEventsError,
    ProjectionError,
    RecordedEvent,
    event,
    merger,
    upcaster,
)
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, Projection, ReadModel
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    count_distinct,
    first,
    latest,
    total,
)
from refold.warehouse.engine.sql import quote
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
)
from tests.properties.engine import Tables, scratch_folder, seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something with an identity, inside an event."""

    ref: UUID
    weight: int


@event(schema_version=1, name="shop.Sold")
class Sold:
    """An article was sold; a dot in the name of an event type is usual elsewhere."""

    sku: str
    quantity: int


@event(schema_version=1)
class Packed:
    """UUIDs inside lists and structs."""

    refs: list[UUID]
    parts: list[Part]
    last: Part | None


@event(schema_version=1)
class Joined:
    """What a merger makes."""

    trail: str


BOXED = pa.schema([pa.field("n", pa.int64(), nullable=False)])
WORD = pa.schema([pa.field("word", pa.string(), nullable=False)])


@upcaster("Boxed", from_version=1, schema=BOXED, into=Packed)
def unbox(boxed: RecordedEvent) -> list[Packed]:
    """Make UUIDs in Python."""
    ref = UUID(int=boxed.payload["n"])
    return [Packed(refs=[ref], parts=[Part(ref=ref, weight=1)], last=None), Packed(refs=[], parts=[], last=None)]


@upcaster("Ticked", from_version=1, schema=BOXED, into=Sold)
def drop(ticked: RecordedEvent) -> list[Sold]:
    """Drop in Python: the result is no relation, rather than an empty one."""
    return [Sold(sku="tick", quantity=1)] if ticked.payload["n"] else []


@merger([("Spoken", 1, WORD)], into=Joined)
def join(run: list[RecordedEvent]) -> list[Joined]:
    """Join words."""
    return [Joined(trail=" ".join(event.payload["word"] for event in run))]


def shop(*read_models: ReadModel) -> Domain:
    """Make a domain of some read models."""
    return Domain(
        name="shop", events=(Sold, Packed, Joined), upcasters=(unbox, drop, join), read_models=tuple(read_models)
    )


def ticked(n: int) -> NewEvent:
    """Give an event that is dropped, or not."""
    return NewEvent(payload={"n": n}, event_type="Ticked", schema_version=1)


def spoken(*words: str) -> list[NewEvent]:
    """Give events for a merger."""
    return [NewEvent(payload={"word": word}, event_type="Spoken", schema_version=1) for word in words]


def every_way(*appends: tuple[str, list[Any]], model: ReadModel) -> Iterator[Tables]:
    """Give the tables of a log that was followed append by append, and of one that was sealed and rebuilt."""
    domain = shop(model)
    with scratch_folder() as folder:
        log = create_log(str(Path(folder) / "log"), domain_name="shop", bucket_count=4)
        followed = Tables(Path(folder) / "followed", domain, dead_letter=True)
        rebuilt = Tables(Path(folder) / "rebuilt", domain, dead_letter=True)
        for stream_id, events in appends:
            Appender(log, domain.registry).append(stream_id, events)
            followed.catch_up(log)
        seal(log, domain.registry)
        rebuilt.rebuild(log)
        for tables in (followed, rebuilt):
            yield tables
            tables.close()


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=2)


def test_sums_beyond_what_a_double_can_hold() -> None:
    """Staged objects are Parquet, which has no HUGEINT; DuckDB would write a double instead."""
    odd = 2**61 + 1
    model = Projection(
        name="skus",
        key={"sku": "VARCHAR"},
        columns={"pieces": total("BIGINT")},
        on={Sold: "SELECT sku, quantity AS pieces"},
    )
    for tables in every_way(("s-1", [Sold(sku="a", quantity=odd)]), ("s-2", [Sold(sku="a", quantity=2)]), model=model):
        assert tables.rows("skus") == [{"sku": "a", "pieces": odd + 2}]


def test_the_order_of_rows_of_one_event_across_buckets() -> None:
    """The place of a row goes into 128 bits, which must survive staging too."""
    select = "SELECT sku, unnest([quantity, quantity + 1, quantity + 2]) AS last, unnest([1, 2, 3]) AS places"
    model = Projection(
        name="skus",
        key={"sku": "VARCHAR"},
        columns={"last": latest("BIGINT"), "places": collect("INTEGER")},
        on={Sold: select},
    )
    appends = [(f"s-{n}", [Sold(sku="a", quantity=10 * n)]) for n in range(5)]
    for tables in every_way(*appends, model=model):
        assert tables.rows("skus") == [{"sku": "a", "last": 42, "places": [1, 2, 3] * 5}]


def test_a_count_of_what_is_not_there_in_every_bucket() -> None:
    """A column that one handler names as a decimal and another not at all has one type in all staged objects."""
    model = Projection(
        name="skus",
        key={"sku": "VARCHAR"},
        columns={"priced": count()},
        on={
            Sold: "SELECT sku, quantity * 0.5 AS priced",
            Packed: "SELECT last.ref::VARCHAR AS sku WHERE last IS NOT NULL",
        },
    )
    packed = Packed(refs=[], parts=[], last=Part(ref=UUID(int=1), weight=1))
    appends: list[tuple[str, list[Any]]] = [
        ("s-1", [packed]),
        ("s-2", [Sold(sku="a", quantity=1)]),
        ("s-3", [Sold(sku="a", quantity=1)]),
    ]
    for tables in every_way(*appends, model=model):
        assert tables.rows("skus") == [{"sku": str(UUID(int=1)), "priced": 0}, {"sku": "a", "priced": 2}]


def test_uuids_inside_lists_and_structs_pass_through_python() -> None:
    """Arrow itself takes UUIDs at the top only."""

    def remember(state: dict[str, Any] | None, packed: Any) -> dict[str, Any]:
        return {"refs": [*(state or {"refs": []})["refs"], *packed.refs], "parts": packed.parts}

    model = Fold(
        name="boxes",
        key={"box": "VARCHAR"},
        columns={"refs": "UUID[]", "parts": "STRUCT(ref UUID, weight BIGINT)[]"},
        on={Packed: "SELECT stream_id AS box, refs, parts"},
        fold=remember,
    )
    boxed = [NewEvent(payload={"n": n}, event_type="Boxed", schema_version=1) for n in (1, 2)]
    parts = [Part(ref=UUID(int=4), weight=3)]
    appends: list[tuple[str, list[Any]]] = [
        ("b", [boxed[0]]),
        ("b", [boxed[1]]),
        ("b", [Packed(refs=[UUID(int=3)], parts=parts, last=None)]),
    ]
    for tables in every_way(*appends, model=model):
        assert tables.rows("boxes") == [
            {"box": "b", "refs": [UUID(int=n) for n in (1, 2, 3)], "parts": [{"ref": UUID(int=4), "weight": 3}]}
        ]


def test_an_event_that_fails_does_not_fail_its_increment() -> None:
    """Changes are computed before the transaction, which an error would end."""
    model = Projection(
        name="skus",
        key={"sku": "VARCHAR"},
        columns={"n": latest("BIGINT")},
        on={Sold: "SELECT sku, CAST(sku AS BIGINT) AS n"},
    )
    sold = [Sold(sku="1", quantity=1), Sold(sku="one", quantity=1), Sold(sku="2", quantity=1)]
    for tables in every_way(("s", sold), ("s", sold), model=model):
        assert tables.rows("skus") == [{"sku": "1", "n": 1}, {"sku": "2", "n": 2}]
        assert tables.dead_letters() == {("skus", 2), ("skus", 5)}
        found = tables.connection.execute("SELECT stream_id, event_type, payload, reason FROM refold.dead_letters")
        stream_id, event_type, payload, reason = found.fetchall()[0]
        assert (stream_id, event_type, payload) == ("s", "shop.Sold", '{"sku":"one","quantity":1}')
        assert "Could not convert string 'one'" in reason


def test_an_event_that_is_dropped_is_not_invalid() -> None:
    """A Python upcaster that drops all its events gives no relation; the search for invalid events allows that."""
    model = Projection(
        name="skus", key={"sku": "VARCHAR"}, columns={"n": count()}, on={Sold: "SELECT nullif(sku, '') AS sku, 1 AS n"}
    )
    events = [ticked(0), Sold(sku="", quantity=1), ticked(0), ticked(1), ticked(0)]
    for tables in every_way(("s", events), model=model):
        assert tables.dead_letters() == {("skus", 2)}
        assert tables.rows("skus") == [{"sku": "tick", "n": 1}]


@pytest.mark.parametrize(
    "select",
    ["nullif(trail, 'bad end') AS trail", "CASE trail WHEN 'bad end' THEN error('no') ELSE trail END AS trail"],
)
def test_all_events_of_a_failed_merge_are_left_out(select: str) -> None:
    """The search never splits a run, since the rest would be merged into an event that was never recorded."""
    model = Projection(
        name="trails", key={"trail": "VARCHAR"}, columns={"n": count()}, on={Joined: f"SELECT {select}, 1 AS n"}
    )
    appends = [
        ("s", spoken("good", "end")),
        ("s", spoken("bad", "end")),
        ("t", [*spoken("bad"), ticked(0), *spoken("end")]),
    ]
    for tables in every_way(*appends, model=model):
        assert tables.dead_letters() == {("trails", 3), ("trails", 4)}
        assert [row["trail"] for row in tables.rows("trails")] == ["bad", "end", "good end"]


def test_an_event_on_which_a_fold_fails_is_left_out_for_all_keys() -> None:
    """Though its keys are merged in groups of their own, none of which knows of the others."""

    def fragile(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
        if sold.n == 13:
            raise ValueError("thirteen")
        return {"n": (state or {"n": 0})["n"] + sold.n}

    model = Fold(
        name="digits",
        key={"digit": "BIGINT"},
        columns={"n": "BIGINT"},
        on={Sold: "SELECT unnest(range(10)) AS digit, CASE WHEN digit = 7 THEN quantity ELSE 1 END AS n"},
        fold=fragile,
    )
    sold = [Sold(sku="a", quantity=n) for n in (1, 13, 100)]
    for tables in every_way(("s", sold), ("t", [Sold(sku="a", quantity=13)]), model=model):
        assert tables.rows("digits") == [{"digit": digit, "n": 101 if digit == 7 else 2} for digit in range(10)]
        assert tables.dead_letters() == {("digits", 2), ("digits", 4)}


@pytest.mark.parametrize("key", ["value", "t", "d", "event", "order", "at", 'a "quoted" name'])
def test_a_key_may_have_any_name(key: str) -> None:
    """A key may have a name that the engine's SQL uses."""
    model = Projection(
        name="p",
        key={key: "VARCHAR"},
        columns={"n": count_distinct(), "first": first("BIGINT"), "values": collect("BIGINT")},
        on={Sold: f'SELECT sku AS {quote(key)}, quantity AS n, quantity AS "first", quantity AS "values"'},
    )
    for tables in every_way(("s", [Sold(sku="a", quantity=1)]), ("t", [Sold(sku="a", quantity=2)]), model=model):
        assert tables.rows("p") == [{key: "a", "n": 2, "first": 1, "values": [1, 2]}]


@pytest.mark.parametrize(
    ("fold", "dtype", "why"),
    [
        (lambda _state, _sold: {"n": 1, "seen": 2}, "BIGINT", "the state has seen, which is not a column"),
        (lambda _state, _sold: 7, "BIGINT", "the state is 7; expected a dict"),
        (lambda _state, sold: {"n": sold.quantity / 2}, "BIGINT", "column n: the state has a value that does not fit"),
        (lambda _state, _sold: {"n": True}, "DECIMAL(18,2)", "column n: the state has a value that does not fit"),
    ],
)
def test_a_state_that_an_increment_would_not_find_again(
    log: EventLog, tmp_path: Path, fold: Callable[..., Any], dtype: str, why: str
) -> None:
    """What is no column, or does not fit one, would be lost between increments, but not within a rebuild."""
    model = Fold(name="f", key={"sku": "VARCHAR"}, columns={"n": dtype}, on={Sold: "SELECT sku, quantity"}, fold=fold)
    Appender(log, shop().registry).append("s", [Sold(sku="a", quantity=1)])
    tables = Tables(tmp_path / "followed", shop(model))
    with pytest.raises(ProjectionError, match=why):
        tables.catch_up(log)
    seal(log, shop().registry)
    with pytest.raises(ProjectionError, match=why):
        tables.rebuild(log)
    tables.close()


def test_increments_leave_nothing_behind(log: EventLog, tmp_path: Path) -> None:
    """Increments drop their temporary tables, also after an error, since a follower's connection stays open."""
    model = Projection(
        name="skus", key={"sku": "VARCHAR"}, columns={"n": count()}, on={Sold: "SELECT nullif(sku, '') AS sku, 1 AS n"}
    )
    appender = Appender(log, shop().registry)
    tables = Tables(tmp_path / "followed", shop(model))

    def temporary() -> list[Any]:
        return tables.connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE temporary UNION ALL "
            "SELECT view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()

    appender.append("s", [Sold(sku="a", quantity=1), ticked(1)])
    tables.catch_up(log)
    assert temporary() == []
    appender.append("s", [Sold(sku="", quantity=1), ticked(1)])
    with pytest.raises(InvalidEventsError, match="a key column is NULL"):
        tables.catch_up(log)
    assert temporary() == []
    assert tables.rows("skus") == [{"sku": "a", "n": 1}, {"sku": "tick", "n": 1}]
    tables.close()
