"""The envelope of rows, as SQL: a mapping written over the columns of a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.checks.column import Column, FindColumn
from refold.pipelines.ingest.checks.value_rules import VALID_TIME, is_date_or_time
from refold.pipelines.ingest.mapping import (
    OPTIONAL,
    REQUIRED,
    UNITS,
    ColumnMapping,
    ValueSource,
)
from refold.warehouse.engine.sql import literal

NEWEST = 0
"""Stands for the newest schema version of an event type, until the type is known."""

_FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class EnvelopeSql:
    """Expressions for the envelope of a row.

    Attributes:
        columns: the envelope columns that a row gives, and ``_type`` and ``_version`` as the file names them. Of an
            invalid row ``stream_id``, ``_type``, ``_version`` or ``occurred_at`` is NULL.
        reason: why a row is invalid; empty for one that cannot be read at all.
    """

    columns: Mapping[str, str]
    reason: str


def check_columns(mapping: ColumnMapping, find: FindColumn, *, file: str, names: list[str]) -> None:
    """Check that a table has the columns of each required value.

    Raises:
        UsageError: one is missing; the message has the names of all columns.
    """
    for name in (*REQUIRED, *OPTIONAL):
        source = mapping.envelope.get(name)
        if source is None or source.constant is not None or (name in OPTIONAL and source.columns == (name,)):
            continue
        found = [c for c in source.reads if find(c) is not None]
        if len(found) < (len(source.reads) if source.template else 1):
            missing = [c for c in source.reads if c not in found]
            raise UsageError(
                f"{file} has no column {missing[0]!r}, from which {name} is taken; it has {', '.join(names)}. "
                "Name the right column in a mapping file."
            )


def envelope_sql(
    mapping: ColumnMapping, find: FindColumn, *, event_id: str, recorded_at: str, readable: str = ""
) -> EnvelopeSql:
    """Write the envelope of a row.

    Args:
        mapping: where each value comes from.
        find: the columns of the chunk.
        event_id: an expression for the identity of an event that has none.
        recorded_at: when the import began, RFC 3339.
        readable: condition under which a row has columns at all; empty: it always has.
    """
    given = mapping.envelope
    texts = {
        name: _text(given[name], find) if name in given else "NULL::VARCHAR"
        for name in ("stream_id", "event_id", "event_type", "correlation_id", "causation_id")
    }
    time, time_text = _time(given["occurred_at"], find, recorded_at)
    version, version_text = _version(given.get("schema_version"), find)
    reason = f"""CASE
        WHEN NOT ({readable or "true"}) THEN ''
        WHEN {texts["stream_id"]} IS NULL THEN {literal(_missing("stream_id", given["stream_id"]))}
        WHEN {texts["event_type"]} IS NULL THEN {literal(_missing("event_type", given["event_type"]))}
        WHEN {time} IS NULL AND {time_text} IS NULL THEN {literal(_missing("occurred_at", given["occurred_at"]))}
        WHEN {time} IS NULL THEN 'occurred_at: expected a time, found ' || {time_text}
        WHEN {version} IS NULL THEN 'schema_version: expected a number from 1, found ' || {version_text}
    END"""
    columns = {
        "stream_id": texts["stream_id"],
        "event_id": f"coalesce({texts['event_id']}, {event_id})",
        "occurred_at": time,
        "correlation_id": texts["correlation_id"],
        "causation_id": texts["causation_id"],
        "_type": f"CASE WHEN {readable} THEN {texts['event_type']} END" if readable else texts["event_type"],
        "_version": version,
    }
    return EnvelopeSql(columns, reason)


def _missing(name: str, source: ValueSource) -> str:
    return f"{name} is missing (it comes from {source.template or ' or '.join(source.columns)})"


def _text(source: ValueSource, find: FindColumn) -> str:
    """Write a text, NULL in place of an empty one."""
    if source.constant is not None:
        return literal(str(source.constant))
    if source.template:
        parts = [_column_text(find(part)) if is_column else literal(part) for part, is_column in source.parts()]
        return f"({' || '.join(parts)})"
    texts = [_column_text(column) for name in source.columns if (column := find(name)) is not None]
    value = f"coalesce({', '.join(texts)})" if texts else "NULL::VARCHAR"
    return f"nullif(regexp_extract({value}, {literal(source.pattern)}, 1), '')" if source.pattern else value


def _column_text(column: Column | None) -> str:
    if column is None:
        return "NULL::VARCHAR"
    return f"nullif({column.sql if pt.is_string(column.type) else f'CAST({column.sql} AS VARCHAR)'}, '')"


def _version(source: ValueSource | None, find: FindColumn) -> tuple[str, str]:
    """Write a schema version, NULL where it is no number from 1, and the text that it is read from."""
    if source is None:
        return f"{_FIRST_VERSION}::INTEGER", "NULL"
    if source.constant is not None:
        version = NEWEST if source.constant == "newest" else int(source.constant)
        return f"{version}::INTEGER", "NULL"
    text = _text(source, find)
    own = find(source.columns[0]) if len(source.columns) == 1 and not source.pattern else None
    number = f"TRY_CAST({own.sql if own is not None and pt.is_integer(own.type) else text} AS INTEGER)"
    return f"CASE WHEN {number} >= 1 THEN {number} WHEN {text} IS NULL THEN {_FIRST_VERSION} END", text


def _time(source: ValueSource, find: FindColumn, recorded_at: str) -> tuple[str, str]:
    """Write a time, NULL where it is invalid, and the text that it is read from."""
    if source.constant == "now":
        return f"TIMESTAMPTZ {literal(recorded_at)}", "NULL"
    text = _text(source, find)
    if source.unit == "iso":
        columns = [c for name in source.columns if (c := find(name)) is not None]
        typed = len(columns) == 1 and not source.pattern and is_date_or_time(columns[0].type)
        time = f"TRY_CAST({columns[0].sql if typed else text} AS TIMESTAMPTZ)"
    elif source.unit == "ns":
        time = f"make_timestamptz(TRY_CAST({text} AS BIGINT) // 1000)"
    else:
        time = f"make_timestamptz(TRY_CAST(TRY_CAST({text} AS DECIMAL(38,9)) * {UNITS[source.unit]} AS BIGINT))"
    return f"CASE WHEN {VALID_TIME.format(time)} THEN {time} END", text
