"""Columns with names that generated SQL might use itself: a rebuild and a stream give the same, right rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, Projection, ReadModel
from refold.warehouse.declarations.reducers import (
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    minimum,
    total,
)
from refold.warehouse.event_log import Appender
from tests.properties.engine import Tables, Writer, scratch_folder, seal

HOSTILE = [
    *("x", "value", "c", "d", "e", "f", "h", "n", "p", "t", "event", "at_", "row", "key", "state", "models", "found"),
    *("select", "from", "order", "group", "position", "stream_id", "payload", "bucket", "handler", "delete", "seen"),
    *('a"b', "a'b", "a.b", "two words", "per%cent", "back\\slash", "{braces}", "$dollar", "?", "日本", "ÄÖ", "1st"),
]


@event(schema_version=1)
class Noted:
    """Something with a value was noted."""

    x: str
    value: int
    c: str
    d: int
    t: list[int]


@event(schema_version=1)
class Struck:
    """It was struck."""

    x: str


def fold(state: dict[str, Any] | None, noted: Any) -> dict[str, Any]:
    """Sum in a column of a hostile name."""
    before = state["x"] if state else 0
    return {"x": before + noted.value, "value": noted.value, "c": noted.c}


def quoted(name: str) -> str:
    """Quote a column."""
    return '"' + name.replace('"', '""') + '"'


def projection(name: str, column: str) -> Projection:
    """Declare a read model whose every column has a hostile name, with each reducer once."""
    columns = {f"{column}{i}": reducer for i, reducer in enumerate(REDUCERS)}
    columns |= {column: collect("BIGINT"), "x": total("BIGINT"), "value": latest("VARCHAR")}
    selected = ", ".join(f"value AS {quoted(c)}" for c in columns if c != "value")
    return Projection(
        name=name,
        key={f"{column} key": "VARCHAR"},
        columns=columns,
        on={
            Noted: f"SELECT x AS {quoted(f'{column} key')}, c AS value, {selected}",
            Struck: Delete(f"SELECT x AS {quoted(f'{column} key')}"),
        },
        derived={f"{column}+": f"{quoted(column)}[1]"},
    )


REDUCERS = (
    total("BIGINT"),
    count(),
    minimum("BIGINT"),
    maximum("BIGINT"),
    first("BIGINT"),
    latest("BIGINT"),
    collect("BIGINT"),
    count_distinct(),
)
FOLDED = Fold(
    name="folded",
    key={"t": "VARCHAR", "d": "BIGINT"},
    columns={"x": "BIGINT", "value": "BIGINT", "c": "VARCHAR"},
    on={Noted: "SELECT x AS t, d, value, c"},
    fold=fold,
)
UNNESTED = Projection(
    name="event",
    key={"event": "VARCHAR"},
    columns={"x": collect("BIGINT"), "event.x": latest("BIGINT"), "n": count()},
    on={Noted: 'SELECT x AS event, unnest(t) AS x, d AS "event.x", 1 AS n'},
)
EVENTS: list[list[Noted | Struck]] = [
    [Noted(x="a", value=0, c="c0", d=0, t=[0, 1]), Noted(x="b", value=0, c="b", d=0, t=[])],
    [Noted(x="a", value=1, c="c1", d=1, t=[1, 2]), Noted(x="b", value=-1, c="b", d=0, t=[])],
    [Noted(x="a", value=2, c="c2", d=0, t=[2, 3]), Noted(x="b", value=-2, c="b", d=0, t=[])],
    [Noted(x="a", value=3, c="c3", d=1, t=[3, 4]), Noted(x="b", value=-3, c="b", d=0, t=[])],
    [Struck(x="b"), Noted(x="b", value=7, c="last", d=1, t=[7])],
]


def read(tables: Tables, model: ReadModel) -> list[tuple[Any, ...]]:
    """Read all columns of a table, derived ones too."""
    return sorted(tables.connection.execute(f'FROM "{model.name}"').fetchall())


@pytest.mark.slow
@pytest.mark.parametrize("column", [c for c in HOSTILE if c not in ("x", "value")])
def test_a_column_may_have_any_name(column: str) -> None:
    """A lambda, an alias or a helper column of generated SQL takes no column of the user for its own."""
    model = projection("hostile", column)
    models = (model, FOLDED, UNNESTED)
    domain = Domain(name="depot", events=(Noted, Struck), read_models=models)
    with scratch_folder() as name:
        folder = Path(name)
        log = Writer(folder, domain.registry, bucket_count=2).log
        streamed = Tables(folder / "streamed", domain)
        appender = Appender(log, domain.registry)
        for number, events in enumerate(EVENTS):
            appender.append(f"s-{number % 3}", events)
            streamed.catch_up(log)
        seal(log, domain.registry)
        rebuilt = Tables(folder / "rebuilt", domain)
        rebuilt.rebuild(log)
        for each in models:
            assert read(streamed, each) == read(rebuilt, each)
        numbers, named = [0, 1, 2, 3], ("a", 6, 4, 0, 3, 0, 3, [0, 1, 2, 3], 4)
        [of_a, of_b] = read(rebuilt, model)
        assert of_a == (*named, numbers, 6, "c3", 0)
        assert of_b == ("b", 7, 1, 7, 7, 7, 7, [7], 1, [7], 7, "last", 7)
        assert ("a", [0, 1, 1, 2, 2, 3, 3, 4], 1, 8) in read(rebuilt, UNNESTED)
        assert read(rebuilt, FOLDED) == [
            ("a", 0, 2, 2, "c2"),
            ("a", 1, 4, 3, "c3"),
            ("b", 0, -6, -3, "b"),
            ("b", 1, 7, 7, "last"),
        ]
        streamed.close()
        rebuilt.close()
