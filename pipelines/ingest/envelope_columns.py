"""The envelope of foreign rows, in SQL: what a mapping says, said over the columns that a chunk has.

Every row gets ``_type`` and ``_version`` as the file tells them, the other columns of the envelope, and ``_wrong``: why
the row cannot be an event, or NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.mapping import (
    OPTIONAL,
    REQUIRED,
    UNITS,
    ColumnMapping,
    ValueSource,
)
from refold.warehouse.engine.sql import literal

NEWEST = 0
"""Stands for the newest version of whatever type it is."""

_FIRST_VERSION = 1

TIMES = ("TIMESTAMPTZ '0001-01-01 00:00:00+00'", "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'")
"""The first and the last time that Python, for one, can hold."""

DATES = ("DATE '0001-01-01'", "DATE '9999-12-31'")
"""The first and the last date."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chunk.

    Attributes:
        sql: an expression for it.
        type: of the expression.
        whole: whether it is a column of its own, not a field inside one.
    """

    sql: str
    type: pa.DataType
    whole: bool = True


Find = Callable[[str], Column | None]
"""The column of a name, or None if the chunk has none."""


def path_of(name: str) -> tuple[str, ...]:
    """Split the name of a column inside objects: ``a.b``, or ``/a.b`` for one key with a dot in it.

    Example:
        >>> path_of("order.id"), path_of("/order.id")
        (('order', 'id'), ('order.id',))
    """
    return tuple(name[1:].split("/")) if name.startswith("/") else tuple(name.split("."))


def check_columns(mapping: ColumnMapping, find: Find, *, where: str, names: list[str]) -> None:
    """Refuse a table that lacks the columns of a required value.

    Raises:
        UsageError: with the names of those that there are.
    """
    for name in (*REQUIRED, *OPTIONAL):
        source = mapping.envelope.get(name)
        if source is None or source.constant is not None or (name in OPTIONAL and source.columns == (name,)):
            continue
        found = [c for c in source.reads if find(c) is not None]
        if len(found) < (len(source.reads) if source.template else 1):
            missing = [c for c in source.reads if c not in found]
            raise UsageError(
                f"{where} has no column {missing[0]!r}, from which {name} is to be taken; it has {', '.join(names)}. "
                "Say in a mapping file where it comes from."
            )


def envelope_sql(
    mapping: ColumnMapping, find: Find, *, event_id: str, recorded_at: str, unreadable: str = "false"
) -> dict[str, str]:
    """Write an expression for every column of a row's envelope.

    Args:
        mapping: where each value comes from.
        find: the columns of the chunk.
        event_id: an expression for the identity of an event that brings none.
        recorded_at: when the import began, RFC 3339.
        unreadable: condition under which a row has no columns at all; ``_wrong`` is empty then.

    Returns:
        By the names that the module's docstring tells. Where ``_wrong`` has something to say, ``stream_id``, ``_type``,
        ``_version`` or ``occurred_at`` is NULL, or the row is unreadable.
    """
    given = mapping.envelope
    found = {
        name: _text(given[name], find) if name in given else "NULL::VARCHAR"
        for name in ("stream_id", "event_id", "event_type", "correlation_id", "causation_id")
    }
    time, time_text = _time(given["occurred_at"], find, recorded_at)
    version, version_text = _version(given.get("schema_version"), find)
    wrong = f"""CASE
        WHEN {unreadable} THEN ''
        WHEN {found["stream_id"]} IS NULL THEN {literal(_missing("stream_id", given["stream_id"]))}
        WHEN {found["event_type"]} IS NULL THEN {literal(_missing("event_type", given["event_type"]))}
        WHEN {time} IS NULL AND {time_text} IS NULL THEN {literal(_missing("occurred_at", given["occurred_at"]))}
        WHEN {time} IS NULL THEN 'occurred_at: expected a time, found ' || {time_text}
        WHEN {version} IS NULL THEN 'schema_version: expected a number from 1, found ' || {version_text}
    END"""
    return {
        "stream_id": found["stream_id"],
        "event_id": f"coalesce({found['event_id']}, {event_id})",
        "occurred_at": time,
        "correlation_id": found["correlation_id"],
        "causation_id": found["causation_id"],
        "_type": found["event_type"],
        "_version": version,
        "_wrong": wrong,
    }


def selected(expressions: Mapping[str, str]) -> str:
    """Write a select list."""
    return ", ".join(f"{sql} AS {name}" for name, sql in expressions.items())


def in_range(value: str, bounds: tuple[str, str]) -> str:
    """Write the condition that a time or a date is one that every reader can hold."""
    return f"{value} BETWEEN {bounds[0]} AND {bounds[1]}"


def _missing(name: str, source: ValueSource) -> str:
    return f"{name} is missing (it comes from {source.template or ' or '.join(source.columns)})"


def _text(source: ValueSource, find: Find) -> str:
    """Write a text that is never empty: NULL stands for no value."""
    if source.constant is not None:
        return literal(str(source.constant))
    if source.template:
        parts = [_column_text(find(part)) if is_column else literal(part) for part, is_column in source.parts()]
        return f"({' || '.join(parts)})"
    texts = [_column_text(found) for name in source.columns if (found := find(name)) is not None]
    value = f"coalesce({', '.join(texts)})" if texts else "NULL::VARCHAR"
    return f"nullif(regexp_extract({value}, {literal(source.pattern)}, 1), '')" if source.pattern else value


def _column_text(column: Column | None) -> str:
    if column is None:
        return "NULL::VARCHAR"
    return f"nullif({column.sql if pt.is_string(column.type) else f'CAST({column.sql} AS VARCHAR)'}, '')"


def _version(source: ValueSource | None, find: Find) -> tuple[str, str]:
    """Write a schema version, which is NULL where it is no number from 1, and the text that it was made of."""
    if source is None:
        return f"{_FIRST_VERSION}::INTEGER", "NULL"
    if source.constant is not None:
        version = NEWEST if source.constant == "newest" else int(source.constant)
        return f"{version}::INTEGER", "NULL"
    text = _text(source, find)
    own = find(source.columns[0]) if len(source.columns) == 1 and not source.pattern else None
    number = f"TRY_CAST({own.sql if own is not None and pt.is_integer(own.type) else text} AS INTEGER)"
    return f"CASE WHEN {number} >= 1 THEN {number} WHEN {text} IS NULL THEN {_FIRST_VERSION} END", text


def _time(source: ValueSource, find: Find, recorded_at: str) -> tuple[str, str]:
    """Write a time, and the text that it was made of."""
    if source.constant == "now":
        return f"TIMESTAMPTZ {literal(recorded_at)}", "NULL"
    text = _text(source, find)
    if source.unit == "iso":
        found = [c for name in source.columns if (c := find(name)) is not None]
        typed = len(found) == 1 and not source.pattern and (pt.is_timestamp(found[0].type) or pt.is_date(found[0].type))
        time = f"TRY_CAST({found[0].sql if typed else text} AS TIMESTAMPTZ)"
    elif source.unit == "ns":
        time = f"make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000)"
    else:
        time = f"make_timestamptz(TRY_CAST(TRY_CAST({text} AS DECIMAL(38,9)) * {UNITS[source.unit]} AS BIGINT))"
    return f"CASE WHEN {in_range(time, TIMES)} THEN {time} END", text
