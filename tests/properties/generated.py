"""Hypothesis strategies: domains of any contracts, upcasters and read models, whose meaning the sequential fold gives.

An event type has a newest class, and older versions from which an upcaster leads on: in SQL (rename, add, filter) or in
Python (split, drop, add). A merger may join runs of further events. Read models combine random expressions over the
fields, by random reducers or a fold; some totals leave their column's type.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa
from hypothesis import strategies as st

from refold.event_schemas import RecordedEvent, Upcaster, event, merger, schema_of, upcaster
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.handlers import Delete
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
from tests.properties.hostile_values import values


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A nested object."""

    sku: str | None
    amount: Annotated[Decimal, pa.decimal128(12, 3)]
    seen: datetime | None


ANNOTATIONS: dict[Any, str] = {
    str: "VARCHAR",
    int: "BIGINT",
    bool: "BOOLEAN",
    date: "DATE",
    datetime: "TIMESTAMPTZ",
    UUID: "UUID",
    float: "DOUBLE",
    Annotated[int, pa.int8()]: "TINYINT",
    Annotated[int, pa.int16()]: "SMALLINT",
    Annotated[int, pa.int32()]: "INTEGER",
    Annotated[int, pa.uint8()]: "UTINYINT",
    Annotated[int, pa.uint16()]: "USMALLINT",
    Annotated[int, pa.uint32()]: "UINTEGER",
    Annotated[int, pa.uint64()]: "UBIGINT",
    Annotated[Decimal, pa.decimal128(9, 2)]: "DECIMAL(9,2)",
    Annotated[Decimal, pa.decimal128(18, 0)]: "DECIMAL(18,0)",
    Annotated[Decimal, pa.decimal128(38, 10)]: "DECIMAL(38,10)",
    list[str]: "VARCHAR[]",
    list[int]: "BIGINT[]",
    Part: "STRUCT(sku VARCHAR, amount DECIMAL(12,3), seen TIMESTAMPTZ)",
    list[Part]: "STRUCT(sku VARCHAR, amount DECIMAL(12,3), seen TIMESTAMPTZ)[]",
}
"""Annotation to DuckDB type."""

ORDERED = ("VARCHAR", "BIGINT", "BOOLEAN", "DATE", "TIMESTAMPTZ", "UUID", "DOUBLE", "UBIGINT", "DECIMAL(38,10)")


@dataclass(frozen=True, slots=True)
class FieldOf:
    """A field of a newest class."""

    name: str
    annotation: Any
    optional: bool

    @property
    def sql(self) -> str:
        """Its DuckDB type."""
        return ANNOTATIONS[self.annotation]


@st.composite
def event_classes(draw: st.DrawFn, name: str) -> tuple[type, list[FieldOf]]:
    """Draw the newest class of an event type."""
    chosen = draw(st.lists(st.sampled_from(list(ANNOTATIONS)), min_size=1, max_size=5))
    fields = [FieldOf(f"f{i}", a, draw(st.booleans())) for i, a in enumerate(chosen)]
    annotations = {f.name: f.annotation | None if f.optional else f.annotation for f in fields}
    cls = type(name, (), {"__annotations__": annotations, "__doc__": "A generated event."})
    return event(schema_version=draw(st.integers(1, 3)), name=name)(cls), fields


@st.composite
def upcasters_to(draw: st.DrawFn, cls: Any) -> list[Upcaster]:
    """Draw an upcaster from each older version; every step loses a field, renames one, or filters."""
    found: list[Upcaster] = []
    schema = schema_of(cls)
    for version in range(cls.__schema_version__ - 1, 0, -1):
        kind = draw(st.sampled_from(["rename", "add", "filter", "split", "drop"]))
        field = schema.field(draw(st.integers(0, len(schema) - 1)))
        older, step = _step(draw, kind, schema, field, version)
        found.append(upcaster(cls.__event_type__, from_version=version, schema=older)(step))
        schema = older
    return found


def _step(draw: st.DrawFn, kind: str, schema: pa.Schema, field: pa.Field, version: int) -> tuple[pa.Schema, Any]:
    index = schema.get_field_index(field.name)
    name = field.name
    if kind == "rename":
        old = f"was_{version}_{name}"
        text = f'SELECT * EXCLUDE ("{old}"), "{old}" AS "{name}" FROM event'
        return schema.set(index, field.with_name(old)), lambda: text
    if kind == "filter":
        text = f'SELECT * FROM event WHERE "{name}" IS NOT NULL AND stream_version % 5 <> 3'
        return schema, lambda: text
    if kind == "add" and field.nullable and len(schema) > 1:
        text = f'SELECT *, NULL AS "{name}" FROM event'
        return schema.remove(index), lambda: text
    added = draw(values(field))

    def split(recorded: RecordedEvent) -> list[dict[str, Any]]:
        """Split into as many as the text of a value has odd digits, modulo 3."""
        payload = {**recorded.payload, name: recorded.payload.get(name, added)}
        return [payload] * (zlib.crc32(str(sorted(recorded.payload)).encode()) % 2 + recorded.stream_version % 2)

    def drop(recorded: RecordedEvent) -> list[dict[str, Any]]:
        """Drop some, and say a lacking value."""
        lacking = recorded.payload.get(name) is None
        return (
            [{**recorded.payload, name: added if lacking else recorded.payload[name]}] if recorded.position % 4 else []
        )

    return (schema if len(schema) == 1 else schema.remove(index)), split if kind == "split" else drop


@st.composite
def mergers_to(draw: st.DrawFn, cls: Any) -> list[Upcaster]:
    """Draw a merger of two further event types, one of which may come by way of SQL that drops events."""
    schema, mark = schema_of(cls), pa.schema([pa.field("mark", pa.int64())])
    least, fails = draw(st.integers(1, 3)), draw(st.booleans())
    kept = {field.name: draw(values(field)) for field in schema}

    def join(run: list[RecordedEvent]) -> list[Any]:
        """Join to one event of the last whole payload, to several, or to none; a long run may fail."""
        if fails and len(run) == 3:
            raise ValueError("three at once")
        whole = [recorded.payload for recorded in run if recorded.event_type == "Whole"]
        marks = sum(recorded.payload["mark"] or 0 for recorded in run if recorded.event_type == "Mark")
        payload = dict(whole[-1]) if whole else kept
        return [cls(**payload)] * (1 + marks % 2) if len(run) >= least else []

    first = draw(st.booleans())
    sources = (("Whole", 1, schema), ("Mark", 2 if first else 1, mark))
    found = [merger(sources, into=cls, version="1")(join)]
    if first:
        text = "SELECT * FROM event WHERE mark IS DISTINCT FROM 1"
        found.append(upcaster("Mark", from_version=1, schema=mark)(lambda: text))
    return found


def _conditions(fields: Sequence[FieldOf]) -> st.SearchStrategy[str]:
    """Draw conditions of SQL on an event."""
    found = ["true", "stream_version % 2 = 0", "occurred_at > TIMESTAMPTZ '2000-01-01 00:00:00+00'", "position % 7 < 5"]
    found += [f"{f.name} IS NOT NULL" for f in fields if f.optional]
    found += [f"{f.name} <> ''" for f in fields if f.sql == "VARCHAR"]
    return st.sampled_from(found)


@st.composite
def expressions(draw: st.DrawFn, fields: Sequence[FieldOf], sql: str) -> str:
    """Draw an expression of a type over an event: a field, a constant, an envelope's column, maybe under a CASE."""
    found = [f.name for f in fields if f.sql == sql]
    found += {
        "VARCHAR": [
            "stream_id",
            "'x'",
            "event_id",
            *(f"CAST({f.name} AS VARCHAR)" for f in fields if f.sql == "BIGINT"),
        ],
        "BIGINT": ["position", "stream_version", "1", *(f"len({f.name})" for f in fields if f.sql == "VARCHAR")],
        "TIMESTAMPTZ": ["occurred_at", "recorded_at"],
        "BOOLEAN": ["true", "stream_version % 2 = 0"],
    }.get(sql, [])
    found += [f"{f.name}.amount" for f in fields if f.annotation is Part and sql == "DECIMAL(12,3)"]
    chosen = draw(st.sampled_from(found)) if found else f"CAST(NULL AS {sql})"
    if draw(st.integers(0, 3)) == 0:
        return f"CASE WHEN {draw(_conditions(fields))} THEN {chosen} END"
    return chosen


REDUCERS: dict[str, Any] = {
    "minimum": minimum,
    "maximum": maximum,
    "first": first,
    "latest": latest,
    "collect": collect,
}


@st.composite
def reducers(draw: st.DrawFn) -> Reducer:
    """Draw the reducer of a column."""
    kind = draw(st.sampled_from(["total", "count", "count_distinct", *REDUCERS, *REDUCERS]))
    if kind == "total":
        return total(draw(st.sampled_from(["BIGINT", "HUGEINT", "DECIMAL(38,10)", "TINYINT", "DECIMAL(9,2)"])))
    if kind in ("count", "count_distinct"):
        return {"count": count, "count_distinct": count_distinct}[kind]()
    ordered = kind in ("minimum", "maximum")
    return REDUCERS[kind](draw(st.sampled_from(ORDERED if ordered else list(ANNOTATIONS.values()))))  # type: ignore[no-any-return]


KEYS: dict[str, str] = {"VARCHAR": "'none'", "BIGINT": "0", "DATE": "DATE '2000-01-01'", "BOOLEAN": "false"}
KEYS |= {"UUID": "UUID '00000000-0000-0000-0000-000000000007'", "TIMESTAMPTZ": "occurred_at", "DECIMAL(9,2)": "0.01"}
"""Types of keys, each with a value for an event that has none."""


@st.composite
def selects(
    draw: st.DrawFn, fields: Sequence[FieldOf], key: dict[str, str], columns: dict[str, str | None], *, deletes: bool
) -> str:
    """Draw a handler: any of the columns, a condition, and one of several forms."""
    named = {} if deletes else {c: t for c, t in columns.items() if draw(st.integers(0, 3))}
    outputs = [f"{draw(_key(fields, t))} AS {k}" for k, t in key.items()]
    for column, dtype in named.items():
        wanted = dtype or draw(st.sampled_from([f.sql for f in fields if "[" not in f.sql] or ["BIGINT"]))
        outputs.append(f"{draw(_value(fields, wanted))} AS {column}")
    condition = draw(_conditions(fields))
    text = f"SELECT {', '.join(outputs)} FROM event WHERE {condition}"
    lists = [f for f in fields if f.sql == "VARCHAR[]"]
    form = draw(st.sampled_from(["plain", "plain", "short", "subquery", "union", "unnest"]))
    if form == "short":
        return text.replace(" FROM event", "")
    if form == "subquery":
        return f"SELECT {', '.join((*key, *named))} FROM (SELECT *, {text.removeprefix('SELECT ')})"
    if form == "union" and not deletes:
        return f"{text} UNION ALL {text.replace(condition, 'stream_version = 2')}"
    if form == "unnest" and lists and "VARCHAR" in named.values():
        column = next(c for c, t in named.items() if t == "VARCHAR")
        outputs = [f"unnest({lists[0].name}) AS {c}" if c == column else c for c in (*key, *named)]
        return f"SELECT {', '.join(outputs)} FROM (SELECT *, {text.removeprefix('SELECT ')})"
    return text


@st.composite
def _key(draw: st.DrawFn, fields: Sequence[FieldOf], sql: str) -> str:
    if sql == "VARCHAR" and draw(st.booleans()):
        return "stream_id"
    return f"CAST(coalesce({draw(expressions(fields, sql))}, {KEYS[sql]}) AS {sql})"


@st.composite
def _value(draw: st.DrawFn, fields: Sequence[FieldOf], sql: str) -> str:
    if sql == "BIGINT":
        return f"CAST(({draw(expressions(fields, sql))}) % 1000 AS BIGINT)"
    if sql == "HUGEINT":
        numbers = [f.name for f in fields if f.sql.endswith("INT") or f.sql.endswith("INTEGER")]
        return f"CAST({draw(st.sampled_from([*numbers, 'position']))} AS HUGEINT)"
    if sql.startswith("DECIMAL(38"):
        numbers = [f.name for f in fields if f.sql in ("DECIMAL(9,2)", "DECIMAL(18,0)", "TINYINT", "UINTEGER")]
        scaled = draw(st.sampled_from([*numbers, "position"]))
        return f"CAST({scaled} AS {sql})"
    return draw(expressions(fields, sql))


def mix(state: dict[str, Any] | None, e: Any) -> dict[str, Any] | None:
    """Depend on each value of each event, and on the order of events; delete the row now and then."""
    values = [(type(v).__name__, v) for v in e]
    code = zlib.crc32(json.dumps([e.event_type, values], default=str).encode())
    if code % 11 == 0:
        return None
    before = state or {"n": 0, "mixed": 7, "trail": []}
    mixed = (before["mixed"] * 31 + code) % 1_000_003
    return {"n": before["n"] + 1, "mixed": mixed, "trail": [*before["trail"], f"{mixed}"][-3:]}


@st.composite
def read_models(draw: st.DrawFn, classes: Sequence[tuple[type, list[FieldOf]]]) -> ReadModel:
    """Draw a projection or a fold."""
    types = draw(st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=2))
    key = {f"k{i}": t for i, t in enumerate(types)}
    read = draw(st.lists(st.sampled_from(range(len(classes))), min_size=1, unique=True))
    mine = [classes[i] for i in read]
    if draw(st.integers(0, 3)) == 0:
        passed = draw(st.lists(st.sampled_from(list(ANNOTATIONS.values())), max_size=4))
        wanted: dict[str, str | None] = {f"c{i}": t for i, t in enumerate(passed)}
        on = {cls: draw(selects(fields, key, wanted, deletes=False)) for cls, fields in mine}
        state = {"n": "BIGINT", "mixed": "BIGINT", "trail": "VARCHAR[]"}
        return Fold(name="model", key=key, columns=state, on=on, fold=mix)
    columns = {f"c{i}": r for i, r in enumerate(draw(st.lists(reducers(), max_size=5)))}
    counted = [t for t in ANNOTATIONS.values() if "[" not in t]  # values of one type, from all events
    wanted = {c: r.type or draw(st.sampled_from(counted)) for c, r in columns.items()}
    handlers: dict[type, str | Delete] = {}
    kept = draw(st.integers(0, len(mine) - 1))
    for i, (cls, fields) in enumerate(mine):
        deletes = i != kept and draw(st.integers(0, 1)) == 0
        text = draw(selects(fields, key, wanted, deletes=deletes))
        handlers[cls] = Delete(text) if deletes else text
    zoned = types[0] == "TIMESTAMPTZ"  # text of it depends on the reader's zone
    derived = {"twice": "concat(k0, k0)"} if not zoned and draw(st.booleans()) else {}
    return Projection(name="model", key=key, columns=columns, on=handlers, derived=derived)


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    """Draw a domain with one read model."""
    classes = [draw(event_classes(f"Event{i}")) for i in range(draw(st.integers(1, 3)))]
    steps = [step for cls, _ in classes for step in draw(upcasters_to(cls))]
    if draw(st.booleans()):
        steps += draw(mergers_to(draw(st.sampled_from(classes))[0]))
    models = (draw(read_models(classes)),)
    return Domain(name="depot", events=tuple(cls for cls, _ in classes), upcasters=tuple(steps), read_models=models)


def describe(domain: Domain) -> str:
    """Write a drawn domain for the report of a failing example."""
    lines = [f"{key}: {domain.registry.schema(*key)}" for key in domain.registry.schema_keys]
    lines += [u.sql() if u.form is Form.SQL else u.name for u in domain.upcasters]
    for model in domain.read_models:
        lines += [
            f"{model.name}: {model.key} {model.columns}",
            *(f"{cls.__name__}: {on}" for cls, on in model.on.items()),
        ]
    return "\n".join(lines)
