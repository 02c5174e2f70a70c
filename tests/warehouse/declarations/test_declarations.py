"""Declarations that are rejected because a rebuild and an increment would give different rows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from refold.event_schemas import (
    ContractError,
    ProjectionError,
    RecordedEvent,
    event,
    upcaster,
)
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, Projection
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    latest,
    total,
)
from refold.warehouse.replay.contributions import Order, compile_model


@event(schema_version=1)
class Packed:
    """A box with numbers."""

    sku: str
    quantity: int
    numbers: list[int]


@event(schema_version=1)
class Weighed:
    """A box was weighed."""

    sku: str
    quantity: str
    ref: UUID | None


SPLIT = pa.schema([pa.field("skus", pa.list_(pa.string()), nullable=False)])


def declared(select: str | Delete, **columns: Any) -> Projection:
    """Declare a projection of one handler."""
    return Projection(name="p", key={"k": "VARCHAR"}, columns=columns or {"n": total("BIGINT")}, on={Packed: select})


def forget(_state: Any, _event: Any) -> None:
    """Return no state."""


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ("SELECT sku AS k, quantity AS n LIMIT 1", "selects among many events"),
        ("SELECT sku AS k, quantity AS n FROM event USING SAMPLE 10%", "selects among many events"),
        ("SELECT DISTINCT ON (sku) sku AS k, quantity AS n", "selects among many events"),
        ("SELECT sku AS k, row_number() OVER () AS n", "a window spans many events"),
        ("SELECT sku AS k, lag(quantity) OVER (PARTITION BY sku ORDER BY position) AS n", "a window spans many"),
        ("SELECT sku AS k, quantity AS n QUALIFY row_number() OVER () = 1", "a window spans many events"),
        ("SELECT sku AS k, (SELECT count(*) FROM event) AS n", "event is read twice"),
        ("SELECT a.sku AS k, b.quantity AS n FROM event a JOIN event b USING (sku)", "event is read twice"),
        ("SELECT sku AS k, epoch_us(now()) AS n", r"now\(\) returns a different value each time"),
        ("SELECT sku || uuid() AS k, quantity AS n", r"uuid\(\) returns a different value each time"),
    ],
)
def test_a_handler_sees_one_event(select: str, why: str) -> None:
    """SQL that counts, numbers, picks or compares events would depend on the boundaries of increments."""
    with pytest.raises(ProjectionError, match=f"Read model p, event Packed: .*{why}"):
        declared(select)


@pytest.mark.parametrize(
    "select",
    [
        "SELECT sku AS k, quantity AS n WHERE quantity > 0",
        "SELECT sku AS k, n, FROM (SELECT *, unnest(numbers) AS n FROM event)",
        "SELECT sku AS k, n * row_number() OVER (PARTITION BY position) AS n FROM event, unnest(numbers) AS u(n)",
        "SELECT sku AS k, (SELECT max(x) FROM unnest(numbers) AS u(x) LIMIT 1) AS n",
        "SELECT sku AS k, quantity AS n UNION ALL SELECT sku || '!' AS k, 1 AS n",
        "SELECT sku AS k, CASE WHEN quantity < 0 THEN error('negative') ELSE quantity END AS n",
    ],
)
def test_what_a_handler_may_do_with_one_event(select: str) -> None:
    """Lists of the event may be taken apart, counted and numbered."""
    declared(select)


UNORDERED = [
    "SELECT sku AS k, n FROM event, range(quantity) AS u(n)",
    "SELECT sku AS k, n FROM event, unnest(list_filter(numbers, lambda x: x > 1)) AS u(n)",
    "SELECT DISTINCT sku AS k, n FROM event, unnest(numbers) AS u(n)",
    "SELECT sku AS k, quantity AS n UNION SELECT sku AS k, 1 AS n",
    "SELECT sku AS k, max(quantity) AS n GROUP BY ALL",
]


@pytest.mark.parametrize("select", UNORDERED)
def test_rows_of_one_event_need_an_order_where_it_counts(select: str) -> None:
    """DuckDB promises none for what it joins or groups by hash; a sum does not care."""
    declared(select)
    for reducer in (latest("BIGINT"), collect("BIGINT")):
        with pytest.raises(ProjectionError, match="n depends on the order of rows"):
            declared(select, n=reducer)
    with pytest.raises(ProjectionError, match="the state depends on the order of rows"):
        Fold(name="f", key={"k": "VARCHAR"}, columns={"n": "BIGINT"}, on={Packed: select}, fold=forget)


@pytest.mark.parametrize(
    "select", ["SELECT sku FROM event, unnest(list_sort(skus)) AS u(sku)", "SELECT 'a' AS sku LIMIT 1"]
)
def test_an_upcaster_makes_events_in_order_and_one_by_one(select: str) -> None:
    """The events that an SQL upcaster makes of one event keep their order, and depend on that event alone."""

    def split() -> str:
        return select

    @event(schema_version=2)
    class Sold:
        sku: str

    step = upcaster(Sold, from_version=1, schema=SPLIT)(split)
    with pytest.raises(ContractError, match=r"upcaster split .*(have no order|many events)"):
        Domain(name="d", events=(Sold,), upcasters=(step,))


@pytest.mark.parametrize("dtype", ["VARCHAR", "TIMESTAMPTZ", "UUID", "BIGINT[]"])
def test_what_cannot_be_added_up(dtype: str) -> None:
    """A total of text is an error of the declaration, not of each event."""
    with pytest.raises(ProjectionError, match=r"Read model p, column n: .* has no sum"):
        declared("SELECT sku AS k, NULL AS n", n=total(dtype))


def test_the_events_of_a_fold_have_columns_of_one_type() -> None:
    """Which events lie in a bucket or increment must not decide what type a fold meets."""
    on = {Packed: "SELECT sku AS k, quantity AS x, 1 AS y, NULL AS z", Weighed: "SELECT sku AS k, 1.5 AS y, ref AS z"}
    fold = Fold(name="f", key={"k": "VARCHAR"}, columns={}, on=on, fold=forget)
    assert fold.event_columns == {"x": "BIGINT", "y": "DECIMAL(11,1)", "z": "UUID"}
    with pytest.raises(
        ProjectionError, match=r"Fold f, column quantity: events yield different types \(BIGINT from Pack"
    ):
        Fold(
            name="f",
            key={"k": "VARCHAR"},
            columns={},
            on={Packed: "SELECT sku AS k, quantity", Weighed: "SELECT sku AS k, quantity"},
            fold=forget,
        )


def test_the_events_of_a_fold_have_names_that_python_can_write() -> None:
    """A fold reads ``event.name``."""
    for name in ("class", "a b", "1st"):
        with pytest.raises(ProjectionError, match="Python cannot write this name"):
            Fold(
                name="f", key={"k": "VARCHAR"}, columns={}, on={Packed: f'SELECT sku AS k, 1 AS "{name}"'}, fold=forget
            )


@upcaster("Boxed", from_version=1, schema=SPLIT, into=Weighed)
def unbox(boxed: RecordedEvent) -> list[Weighed]:
    """Split, in Python."""
    return [Weighed(sku=sku, quantity="1", ref=None) for sku in boxed.payload["skus"]]


@pytest.mark.parametrize(
    ("select", "columns", "expected"),
    [
        ("SELECT sku AS k, quantity AS n", {"n": latest("BIGINT")}, Order.POSITION),
        ("SELECT sku AS k, unnest(numbers) AS n", {"n": total("BIGINT")}, Order.POSITION),
        (
            "SELECT sku AS k, unnest(numbers) AS n, stream_id AS s",
            {"n": count(), "s": latest("VARCHAR")},
            Order.POSITION,
        ),
        ("SELECT sku AS k, unnest(numbers) AS n", {"n": latest("BIGINT")}, Order.ROW),
        ("SELECT sku AS k, unlist(numbers) AS n", {"n": latest("BIGINT")}, Order.ROW),
        ("SELECT sku AS k, 1 AS n UNION ALL SELECT sku AS k, 2 AS n", {"n": latest("INTEGER")}, Order.ROW),
        ("SELECT sku AS k, n FROM event, unnest(numbers) AS u(n)", {"n": collect("BIGINT")}, Order.ROW),
    ],
)
def test_what_it_takes_to_order_contributions(select: str, columns: dict[str, Any], expected: Order) -> None:
    """The order is the position, plus the row if one event may contribute twice to an ordered column."""
    model = declared(select, **columns)
    assert compile_model(model, Domain(name="d", events=(Packed, Weighed), upcasters=(unbox,))).order is expected


def test_split_events_are_ordered_among_themselves() -> None:
    """Events that one stored event became are ordered by their index."""
    model = Projection(
        name="p", key={"k": "VARCHAR"}, columns={"n": latest("VARCHAR")}, on={Weighed: "SELECT sku AS k, quantity AS n"}
    )
    assert compile_model(model, Domain(name="d", events=(Packed, Weighed), upcasters=(unbox,))).order is Order.SPLIT
