"""The envelope of rows, as SQL: a mapping written over the columns of a chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.pipelines.ingest.checks.column import Column, FindColumn, without_null_values
from refold.pipelines.ingest.checks.value_rules import VALID_TIME, fast_text, is_date_or_time, local_time
from refold.pipelines.ingest.close_names import did_you_mean
from refold.pipelines.ingest.mapping import (
    OPTIONAL,
    REQUIRED,
    ColumnMapping,
    ValueSource,
    columns_in,
    parts_of,
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
        time_text: the text that the time is read from where ``occurred_at`` is NULL.
        reason: why a row is invalid; empty for one that cannot be read at all. It has no reason for a time that is read
            from ``time_text``.
        local: the condition that a column of times without a zone has one; empty if there is no such column.
    """

    columns: Mapping[str, str]
    time_text: str
    reason: str
    local: str = ""


def check_columns(
    mapping: ColumnMapping, find: FindColumn, *, file: str, column_names: Callable[[], list[str]]
) -> None:
    """Check that a table has the columns of each required value.

    Raises:
        UsageError: one is missing; the message has the names of all columns.
    """
    for name in (*REQUIRED, *OPTIONAL):
        source = mapping.envelope.get(name)
        if source is None or source.constant is not None or source.optional:
            continue
        lacking = [[c for c in columns_in(text) if find(c) is None] for text in source.alternatives]
        if all(lacking):
            missing, names = lacking[0][0], column_names()
            raise UsageError(
                f"{file} has no column {missing!r}, from which {name} is taken{did_you_mean(missing, names)}; it has "
                f"{', '.join(names)}. Name the right column in a mapping file, or say optional = true there."
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
        name: _text(given[name], find, mapping) if name in given else "NULL::VARCHAR"
        for name in ("stream_id", "event_id", "event_type", "correlation_id", "causation_id")
    }
    time = _time(given["occurred_at"], find, mapping, recorded_at)
    version, version_text = _version(given.get("schema_version"), find, mapping)
    reason = f"""CASE
        WHEN NOT ({readable or "true"}) THEN ''
        WHEN {texts["stream_id"]} IS NULL THEN {literal(_missing("stream_id", given["stream_id"]))}
        WHEN {texts["event_type"]} IS NULL THEN {literal(_missing("event_type", given["event_type"]))}
        WHEN {time.value} IS NULL AND {time.text} IS NULL THEN {literal(_missing("occurred_at", given["occurred_at"]))}
        WHEN {version} IS NULL THEN 'schema_version: expected a number from 1, found ' || {version_text}
    END"""
    columns = {
        "stream_id": texts["stream_id"],
        "event_id": f"coalesce({texts['event_id']}, {event_id})",
        "occurred_at": time.value,
        "correlation_id": texts["correlation_id"],
        "causation_id": texts["causation_id"],
        "_type": f"CASE WHEN {readable} THEN {texts['event_type']} END" if readable else texts["event_type"],
        "_version": version,
    }
    return EnvelopeSql(columns, time.text, reason, time.local)


def _missing(name: str, source: ValueSource) -> str:
    return f"{name} is missing (it comes from {' or '.join(source.alternatives)})"


def _text(source: ValueSource, find: FindColumn, mapping: ColumnMapping) -> str:
    """Write a text, NULL in place of an empty one."""
    if source.constant is not None:
        return literal(str(source.constant))
    texts = [_template(text, find, mapping) for text in source.alternatives]
    value = f"coalesce({', '.join(texts)})"
    return f"nullif(regexp_extract({value}, {literal(source.pattern)}, 1), '')" if source.pattern else value


def _template(template: str, find: FindColumn, mapping: ColumnMapping) -> str:
    """Write the text of a template, NULL if one of its columns has no value."""
    parts = [_column_text(find(p), mapping) if is_column else literal(p) for p, is_column in parts_of(template)]
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})"


def _column_text(column: Column | None, mapping: ColumnMapping) -> str:
    if column is None or pt.is_null(column.type):
        return "NULL::VARCHAR"
    column = without_null_values(column, mapping)
    return f"nullif({column.sql if pt.is_string(column.type) else f'CAST({column.sql} AS VARCHAR)'}, '')"


def _version(source: ValueSource | None, find: FindColumn, mapping: ColumnMapping) -> tuple[str, str]:
    """Write a schema version, NULL where it is no number from 1, and the text that it is read from."""
    if source is None:
        return f"{_FIRST_VERSION}::INTEGER", "NULL"
    if source.constant is not None:
        version = NEWEST if source.constant == "newest" else int(source.constant)
        return f"{version}::INTEGER", "NULL"
    text = _text(source, find, mapping)
    own = find(source.columns[0]) if source.is_column else None
    if own is not None and pt.is_integer(own.type):
        number = f"TRY_CAST({own.sql} AS INTEGER)"
    else:
        number = rf"CASE WHEN regexp_full_match({text}, '\d+(\.0+)?') THEN TRY_CAST({text} AS INTEGER) END"
    return f"CASE WHEN {number} >= 1 THEN {number} WHEN {text} IS NULL THEN {_FIRST_VERSION} END", text


@dataclass(frozen=True, slots=True)
class _TimeSql:
    """Expressions for a time.

    Attributes:
        value: the time; NULL where the database does not read it.
        text: that it is read from.
        local: see :class:`EnvelopeSql`.
    """

    value: str
    text: str
    local: str = ""


def _time(source: ValueSource, find: FindColumn, mapping: ColumnMapping, recorded_at: str) -> _TimeSql:
    if source.constant == "now":
        return _TimeSql(f"TIMESTAMPTZ {literal(recorded_at)}", "NULL::VARCHAR")
    text = _text(source, find, mapping)
    columns = [c for name in source.reads if (c := find(name)) is not None]
    if len(columns) == 1 and not source.pattern and source.unit == "iso" and is_date_or_time(columns[0].type):
        column = columns[0]
        if pt.is_timestamp(column.type) and column.type.tz:
            value = f"CASE WHEN {VALID_TIME.format(column.sql)} THEN CAST({column.sql} AS TIMESTAMPTZ) END"
            return _TimeSql(value, text)
        return _TimeSql(local_time(column, mapping)[0], text, f"{column.sql} IS NOT NULL")
    return _TimeSql(fast_text(text, UTC_MICROSECONDS, mapping, source), text)
