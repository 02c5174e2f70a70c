"""Every type of DuckDB's catalogue as key, column and fold column: kept by every way, or refused when it is declared.

Each type is tried alone and nested. A log that is followed append by append, one that is rebuilt from several buckets,
and a plain query over the values have the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, Projection, ReadModel
from refold.warehouse.declarations.reducers import (
    Reducer,
    collect,
    count,
    count_distinct,
    first,
    latest,
    maximum,
    minimum,
    total,
)
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import literal, quote
from refold.warehouse.event_log import Appender, create_log
from tests.properties.engine import Tables, scratch_folder, seal

pytestmark = pytest.mark.slow

VALUES: dict[str, tuple[str, ...]] = {
    "BIGINT": ("-9223372036854775808", "9223372036854775807", "0"),
    "BIGNUM": ("-99999999999999999999999999999999999999999999", "5", "40"),
    "BIT": ("101", "0", "0101"),
    "BLOB": (r"\x00\xFF", "a", ""),
    "BOOLEAN": ("true", "false"),
    "DATE": ("2024-02-29", "0001-01-01", "9999-12-31"),
    "DECIMAL(18,4)": ("2.50", "2.5", "-99999999999999.9999"),
    "DECIMAL(38,10)": ("1234567890123456789012345678.0123456789", "0.0000000001", "-1"),
    "DOUBLE": ("NaN", "-0.0", "0.0", "1e300", "-inf", "5e-324"),
    "ENUM('low', 'medium', 'high')": ("medium", "high", "low"),
    "FLOAT": ("NaN", "-0.0", "0.0", "1e-45", "inf"),
    "HUGEINT": ("-170141183460469231731687303715884105728", "170141183460469231731687303715884105727", "7"),
    "INTEGER": ("-2147483648", "2147483647"),
    "INTERVAL": ("1 month", "30 days 00:00:00.000001", "-5 years"),
    "JSON": ('{"a": 1}', '{"a":1}', "null", '"text"'),
    "SMALLINT": ("-32768", "32767"),
    "TIME": ("23:59:59.999999", "00:00:00"),
    "TIME WITH TIME ZONE": ("12:00:00+00", "13:00:00+01", "12:00:00.5-15:59"),
    "TIMESTAMP": ("2024-02-29 12:00:00.000001", "0001-01-01", "9999-12-31 23:59:59.999999"),
    "TIMESTAMP WITH TIME ZONE": (
        "2024-02-29 12:00:00.000001+02",
        "2024-02-29 10:00:00.000001+00",
        "9999-12-31 23:59:59.999999+00",
    ),
    "TIMESTAMPTZ_NS": ("2024-02-29 12:00:00.123456789+02", "2024-02-29 10:00:00.123456789+00"),
    "TIMESTAMP_MS": ("2024-02-29 12:00:00.001", "1969-12-31 23:59:59.999"),
    "TIMESTAMP_NS": ("2024-02-29 12:00:00.123456789", "1969-12-31 23:59:59.999999999"),
    "TIMESTAMP_S": ("2024-02-29 12:00:01", "1969-12-31 23:59:59"),
    "TIME_NS": ("23:59:59.999999999", "00:00:00"),
    "TINYINT": ("-128", "127"),
    "UBIGINT": ("18446744073709551615", "0"),
    "UHUGEINT": ("340282366920938463463374607431768211455", "1"),
    "UINTEGER": ("4294967295", "0"),
    "USMALLINT": ("65535", "0"),
    "UTINYINT": ("255", "0"),
    "UUID": ("00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "VARCHAR": ("a", "A", "", "NULL", 'it\'s "quoted", [1] {x}', "e\u0301", "\u00e9"),
}
NESTED = ("LIST", "MAP", "STRUCT")
REFUSED = {
    "ARRAY": "INTEGER[2]",
    "GEOMETRY": "GEOMETRY",
    "NULL": '"NULL"',
    "TUPLE": "TUPLE(INTEGER, VARCHAR)",
    "TYPE": "TYPE",
    "UNION": "UNION(a INTEGER, b VARCHAR)",
    "VARIANT": "VARIANT",
}


@event(schema_version=1)
class Valued:
    """A value as text, for a group."""

    grouped: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Shape:
    """A type made of another one, and an expression that makes a value of it from the column ``value``."""

    type: str
    sql: str


def shapes(dtype: str) -> list[Shape]:
    """Give a type alone and nested."""
    value = f"CAST(value AS {dtype})"
    some = "WHEN value IS NOT NULL THEN"
    return [
        Shape(dtype, value),
        Shape(f"{dtype}[]", f"CASE {some} [{value}, NULL] END"),
        Shape(f'STRUCT("a b" {dtype}, n INTEGER)', f'CASE {some} struct_pack("a b" := {value}, n := 1) END'),
        Shape(f"MAP(VARCHAR, {dtype})", f"CASE {some} MAP {{'k': {value}}} END"),
    ]


PLAIN = {
    "first": "arg_min(x, pos)",
    "latest": "arg_max_null(x, pos)",
    "collect": "coalesce(list(x ORDER BY pos) FILTER (x IS NOT NULL), [])",
    "minimum": "min(x)",
    "maximum": "max(x)",
    "count": "count(x)",
    "count_distinct": "count(DISTINCT x)",
}
"""Name of a reducer to the same aggregate in a plain query."""


def reducers_of(dtype: str) -> dict[str, Reducer]:
    """Give every reducer over a type."""
    return {
        "first": first(dtype),
        "latest": latest(dtype),
        "collect": collect(dtype),
        "minimum": minimum(dtype),
        "maximum": maximum(dtype),
        "count": count(),
        "count_distinct": count_distinct(),
    }


def keep_last(state: dict[str, object] | None, valued: object) -> dict[str, object]:
    """Fold: the last value, and a count."""
    return {"x": valued.x, "n": (state["n"] if state else 0) + 1}  # type: ignore[attr-defined, operator]


def declared(shape: Shape, number: int) -> Iterator[tuple[str, ReadModel | ProjectionError]]:
    """Declare a type in every role; give the read model, or why it is refused."""
    grouped, keyed = (
        f"SELECT grouped AS g, {shape.sql} AS x",
        f"SELECT {shape.sql} AS x, 1 AS n WHERE value IS NOT NULL",
    )
    kept = {}
    for role, reducer in reducers_of(shape.type).items():
        made = attempt(Projection, f"{role}_{number}", {"g": "VARCHAR"}, {"x": reducer}, grouped)
        if isinstance(made, ProjectionError):
            yield role, made
        else:
            kept[f"{role}_x"] = reducer
    together = ", ".join(["SELECT grouped AS g", *(f"{shape.sql} AS {column}" for column in kept)])
    yield "columns", Projection(name=f"columns_{number}", key={"g": "VARCHAR"}, columns=kept, on={Valued: together})
    yield "key", attempt(Projection, f"key_{number}", {"x": shape.type}, {"n": total("BIGINT")}, keyed)
    yield (
        "fold",
        attempt(Fold, f"fold_{number}", {"g": "VARCHAR"}, {"x": shape.type, "n": "BIGINT"}, grouped, fold=keep_last),
    )
    yield "fold key", attempt(Fold, f"fold_key_{number}", {"x": shape.type}, {"n": "BIGINT"}, keyed, fold=count_events)


def count_events(state: dict[str, int] | None, _valued: object) -> dict[str, int]:
    """Fold: a count."""
    return {"n": (state["n"] if state else 0) + 1}


def attempt(
    kind: type[Projection | Fold], name: str, key: dict[str, str], columns: dict[str, Any], select: str, **more: Any
) -> ReadModel | ProjectionError:
    """Declare a read model, or give the error."""
    try:
        made: ReadModel = kind(name=name, key=key, columns=columns, on={Valued: select}, **more)
    except ProjectionError as error:
        return error
    return made


def expected_refusal(role: str, dtype: str) -> bool:
    """Say whether a type is refused in a role: the list of docs/reference/types.md."""
    if role in ("key", "fold key", "minimum", "maximum", "count_distinct") and "INTERVAL" in dtype:
        return True
    if role in ("key", "fold key") and "MAP" in dtype:
        return True
    no_python = ("ENUM", "HUGEINT", "BIGNUM", "BIT", "INTERVAL", "_NS", "TIMESTAMP_", "TIME WITH TIME ZONE")
    return role == "fold" and any(part in dtype for part in no_python)


def plain_query(role: str, model: ReadModel) -> str:
    """Give the plain query for a read model, over ``v(pos, g, x)``."""
    if role in ("key", "fold key"):
        return "SELECT x, count(*) AS n FROM v WHERE x IS NOT NULL GROUP BY x"
    if role == "fold":
        return "SELECT g, arg_max_null(x, pos) AS x, count(*) AS n FROM v GROUP BY g"
    each = ", ".join(f"{PLAIN[column.removesuffix('_x')]} AS {column}" for column in model.columns)
    return f"SELECT g, {each} FROM v GROUP BY g"


def test_the_catalogue_has_no_other_types() -> None:
    """A new type of DuckDB is added to these tests, and supported or refused."""
    with connect() as connection:
        found = {row[0] for row in connection.execute("SELECT logical_type FROM duckdb_types()").fetchall()}
    known = {name.split("(")[0] for name in VALUES} | {*REFUSED, *NESTED}
    assert found <= known


@pytest.mark.parametrize("dtype", REFUSED.values())
@pytest.mark.parametrize("nested", ["{}", "{}[]", "STRUCT(a {})", "MAP(VARCHAR, {})"])
def test_a_type_that_containers_cannot_hold_is_refused(dtype: str, nested: str) -> None:
    """The message names read model, column and type."""
    named = nested.format(dtype)
    with pytest.raises(
        ProjectionError, match=r"Read model p, column x: '.*' is not (supported|a DuckDB type)"
    ) as raised:
        Projection(
            name="p",
            key={"g": "VARCHAR"},
            columns={"x": latest(named)},
            on={Valued: "SELECT grouped AS g, NULL AS x"},
        )
    assert named in str(raised.value)


@pytest.mark.parametrize("dtype", VALUES)
def test_every_way_keeps_every_type(dtype: str) -> None:
    """Increments, a rebuild of several buckets and a plain query agree; or the type is refused."""
    models: dict[tuple[str, str], ReadModel] = {}
    for number, shape in enumerate(shapes(dtype)):
        for role, made in declared(shape, number):
            assert isinstance(made, ProjectionError) == expected_refusal(role, shape.type), (role, shape.type, made)
            if isinstance(made, ProjectionError):
                assert re.search(rf"{role.replace(' ', '_')}_{number}, (key )?column x: ", str(made)), made
            else:
                models[role, shape.type] = made
    texts = [*VALUES[dtype], None, *reversed(VALUES[dtype]), VALUES[dtype][0]]
    events = [(f"s-{i % 5}", Valued(grouped="ab"[i % 2], value=text)) for i, text in enumerate(texts)]
    domain = Domain(name="typed", events=(Valued,), read_models=tuple(models.values()))
    with scratch_folder() as folder:
        log = create_log(str(Path(folder) / "log"), domain_name="typed", bucket_count=4)
        followed = Tables(Path(folder) / "followed", domain)
        rebuilt = Tables(Path(folder) / "rebuilt", domain)
        for start in range(0, len(events), 3):
            for stream_id, each in events[start : start + 3]:
                Appender(log, domain.registry).append(stream_id, [each])
            followed.catch_up(log)
        seal(log, domain.registry)
        rebuilt.rebuild(log)
        for (role, named), model in models.items():
            shape = next(s for s in shapes(dtype) if s.type == named)
            for tables in (followed, rebuilt):
                compare(tables.connection, role, model, shape, events)
            assert shown(followed.connection, model) == shown(rebuilt.connection, model), (role, named)
        followed.close()
        rebuilt.close()


def compare(
    connection: duckdb.DuckDBPyConnection,
    role: str,
    model: ReadModel,
    shape: Shape,
    events: list[tuple[str, Valued]],
) -> None:
    """Compare a table with the plain query."""
    rows = ", ".join(
        f"({i}, {literal(e.grouped)}, {'NULL' if e.value is None else literal(e.value)})"
        for i, (_, e) in enumerate(events)
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE v AS SELECT pos, g, {shape.sql} AS x FROM (VALUES {rows}) t(pos, g, value)"
    )
    plain, table = plain_query(role, model), f"FROM {quote(model.name)}"
    for these, those in ((plain, table), (table, plain)):
        extra = connection.execute(f"({these}) EXCEPT ALL ({those})").fetchall()
        assert not extra, (role, shape.type, these, extra)


def shown(connection: duckdb.DuckDBPyConnection, model: ReadModel) -> list[tuple[str, ...]]:
    """Give the rows as text, as readers see them."""
    texts = ", ".join(f"CAST({quote(c)} AS VARCHAR)" for c in model.table)
    return sorted(connection.execute(f"SELECT {texts} FROM {quote(model.name)}").fetchall(), key=repr)
