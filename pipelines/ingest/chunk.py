"""One chunk of rows, as what checking needs to know of it: where its envelope comes from, and where its payloads are.

A payload is a *document* (JSON text: the row itself, a part of it, or a column), or it is *typed*: columns of the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.envelope_columns import (
    Column,
    Find,
    check_columns,
    envelope_sql,
    path_of,
    selected,
)
from refold.pipelines.ingest.mapping import DEFAULT_PAYLOAD, FLAT, ColumnMapping
from refold.pipelines.ingest.rows import Rows
from refold.warehouse.engine.sql import literal, quote, result_schema

CHUNK = "_chunk"
"""The chunk's columns in the database, with ``_row``, the index of a row in its chunk."""

_OWN = {"event_type": "_type", "schema_version": "_version"}
"""What the file tells of the shape, before it is known what that means here."""

_SPACE = "E' \\t\\r\\n'"
_STRUCTURE = "coalesce(TRY(json_structure({document}))::VARCHAR, '')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a chunk is from, for what its events are told of it.

    Attributes:
        name: of the file, for errors.
        event_id: beginning of the identity of an event that brings none; the number of the row follows.
        recorded_at: when the import began, RFC 3339.
    """

    name: str
    event_id: str
    recorded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Rows whose payloads are documents.

    Attributes:
        relation: the envelope, with ``_row``; ``_wrong`` says why a row is no event, and is empty where only a look at
            the row can tell. ``_structure`` tells keys and types of the document, ``_document`` and ``_inner`` hold it.
        prefix: where the payload is in ``_document``; ``_inner`` is the payload itself, where it is a text in the row.
    """

    relation: str
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Rows whose payloads are typed columns.

    Attributes:
        table: the file's columns, under other names, with ``_row``.
        find: columns of the table by the names that the file gives them.
        envelope: envelope column to an expression over the table.
        plain: envelope column to the column of the table that has its values, if there is one.
        prefix: of the names of the payload's columns, such as ``"payload."``.
        empty_is_null: whether an empty text stands for no value.
    """

    table: pa.Table
    find: Find
    envelope: Mapping[str, str]
    plain: Mapping[str, str]
    prefix: str
    empty_is_null: bool


def load_chunk(
    connection: duckdb.DuckDBPyConnection, rows: Rows, mapping: ColumnMapping, origin: Origin, *, form: str
) -> Documents | Columns:
    """Make a chunk's rows known to a connection.

    Args:
        connection: where they are registered.
        rows: the chunk.
        mapping: of its columns.
        origin: where it is from.
        form: ``jsonl``, ``json``, ``csv`` or ``parquet``.

    Raises:
        UsageError: a table lacks the columns of a required value.
    """
    first = rows.after["row"] - rows.count
    event_id = f"{literal(origin.event_id)} || ({first + 1} + _row)"
    if form in ("jsonl", "json"):
        connection.register(CHUNK, _numbered(rows.columns, rows))
        return _json_chunk(mapping, origin, event_id)
    aliases = {name: f"_c{i}" for i, name in enumerate(rows.columns.schema.names)}
    table = _numbered(rows.columns.rename_columns(list(aliases.values())), rows)
    connection.register(CHUNK, table)
    find = _finder(result_schema(connection, f"FROM {CHUNK} LIMIT 0"), aliases)
    check_columns(mapping, find, where=origin.name, names=list(aliases))
    payload = None if mapping.payload == FLAT else find(mapping.payload)
    if payload is None and mapping.payload not in (FLAT, DEFAULT_PAYLOAD):
        raise UsageError(f"{origin.name} has no column {mapping.payload!r}, which the mapping names as payload.")
    envelope = envelope_sql(mapping, find, event_id=event_id, recorded_at=origin.recorded_at)
    if payload is not None and pt.is_string(payload.type):
        return _text_chunk(envelope, payload)
    sources = {_OWN.get(name, name): source.columns[0] for name, source in mapping.envelope.items() if source.is_column}
    return Columns(
        table=table,
        find=find,
        envelope=envelope,
        plain={name: aliases[column] for name, column in sources.items() if column in aliases},
        prefix="" if payload is None else f"{mapping.payload}.",
        empty_is_null=form == "csv",
    )


def _numbered(table: pa.Table, rows: Rows) -> pa.Table:
    """Number the rows that could be read."""
    good = np.arange(rows.count)
    if rows.broken:
        good = np.setdiff1d(good, np.fromiter(rows.broken, np.int64))
        table = table.take(pa.array(good))
    return table.append_column("_row", pa.array(good))


def _json_chunk(mapping: ColumnMapping, origin: Origin, event_id: str) -> Documents:
    structure: dict[str, Any] = {}
    for source in mapping.envelope.values():
        for name in source.reads:
            _put(structure, path_of(name), "VARCHAR")
    flat = mapping.payload == FLAT
    prefix = () if flat else path_of(mapping.payload)
    encoded = "NULL"
    if not flat:
        in_base64 = (*prefix[:-1], f"{prefix[-1]}_base64")
        _put(structure, prefix, "JSON")
        _put(structure, in_base64, "VARCHAR")
        encoded = f"TRY(decode(from_base64({_inside('_j', in_base64)})))"
    envelope = envelope_sql(
        mapping,
        lambda name: Column(_inside("_j", path_of(name)), pa.string()),
        event_id=event_id,
        recorded_at=origin.recorded_at,
        unreadable=f"_j IS NULL OR left(ltrim(_text, {_SPACE}), 1) <> '{{'",
    )
    payload = "_text" if flat else _inside("_j", prefix)
    inner = f"""CASE
        WHEN {payload} IS NULL THEN {encoded}
        WHEN left({payload}, 1) = '"' THEN json_extract_string({payload}, '$')
    END"""
    structured = _STRUCTURE.format(document="coalesce(_inner, _payload, '{}')")
    relation = f"""(
        SELECT * EXCLUDE (_payload), {structured} AS _structure FROM (
            SELECT _row, {selected(envelope)}, _text AS _document, {payload} AS _payload, {inner} AS _inner FROM (
                SELECT _row, _text, TRY(json_transform(_text, {literal(json.dumps(structure))})) AS _j FROM {CHUNK}
            )
        ))"""
    return Documents(relation=relation, prefix=prefix)


def _text_chunk(envelope: Mapping[str, str], payload: Column) -> Documents:
    """Take the documents from a column of a table."""
    structured = _STRUCTURE.format(document="coalesce(_inner, '{}')")
    return Documents(
        relation=f"""(
            SELECT *, {structured} AS _structure FROM (
                SELECT _row, {selected(envelope)}, NULL AS _document, nullif({payload.sql}, '') AS _inner FROM {CHUNK}
            ))"""
    )


def _put(structure: dict[str, Any], path: tuple[str, ...], dtype: str) -> None:
    for name in path[:-1]:
        inner = structure.setdefault(name, {})
        structure = inner if isinstance(inner, dict) else structure
    structure.setdefault(path[-1], dtype)


def _inside(struct: str, path: tuple[str, ...]) -> str:
    return struct + "".join(f".{quote(name)}" for name in path)


def _finder(schema: pa.Schema, aliases: Mapping[str, str]) -> Find:
    """Find columns by name, or by a path into objects."""

    def find(name: str) -> Column | None:
        if name in aliases:
            return Column(aliases[name], schema.field(aliases[name]).type)
        first, *path = path_of(name)
        if first not in aliases:
            return None
        found, sql = schema.field(aliases[first]).type, aliases[first]
        for part in path:
            index = found.get_field_index(part) if pt.is_struct(found) else -1
            if index < 0:
                return None
            found, sql = found.field(index).type, f"{sql}.{quote(part)}"
        return Column(sql, found, whole=False)

    return find


def malformed(text: str) -> str:
    """Say why a row is no JSON object; empty for a blank line."""
    if not text.strip():
        return ""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is no JSON: {error}"
    return "expected a JSON object" if not isinstance(found, dict) else "this JSON cannot be read"
