"""One chunk of rows as SQL: its envelope, and where its payloads are.

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

from event_schemas import UsageError
from pipelines.ingesting.envelope import Column, Find, check_columns, envelope_sql, path_of
from pipelines.ingesting.mapping import DEFAULT_PAYLOAD, FLAT, ColumnMapping
from pipelines.ingesting.rows import ParquetRows, Rows, TextRows
from warehouse.sql import literal, quote, result_schema

_CHUNK = "_chunk"
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
class Chunk:
    """Rows of a file in a database.

    Attributes:
        count: how many rows, good and bad.
        broken: rows that could not be read, and why.
        rows: relation of the envelope, with ``_row``; ``_wrong`` says why a row is no event, and is empty where only a
            look at the row can tell. ``_structure`` tells keys and types of the document, if payloads are documents;
            ``_document`` and ``_inner`` hold it. Else the file's columns follow.
        find: the file's columns in that relation.
        documents: whether payloads are documents.
        prefix: where the payload is in ``_document``; ``_inner`` is the payload itself, where it is a text in the row.
        empty_is_null: whether an empty text stands for no value.
        flat: whether the payload's fields are columns of the row.
    """

    count: int
    broken: Mapping[int, str]
    rows: str
    find: Find = lambda _: None
    documents: bool
    prefix: tuple[str, ...] = ()
    empty_is_null: bool = False
    flat: bool = False


def load_chunk(
    connection: duckdb.DuckDBPyConnection, rows: Rows, mapping: ColumnMapping, origin: Origin, *, is_json: bool
) -> Chunk:
    """Make a chunk's rows known to a connection.

    Raises:
        UsageError: a table lacks the columns of a required value.
    """
    first = rows.after["row"] - rows.count
    event_id = f"{literal(origin.event_id)} || ({first + 1} + _row)"
    if isinstance(rows, TextRows):
        connection.register(_CHUNK, _numbered(rows))
        if is_json:
            return _json_chunk(rows, mapping, origin, event_id)
        return _table_chunk(connection, rows, _CHUNK, mapping, origin, event_id, empty_is_null=True)
    source = _parquet_source(rows)
    return _table_chunk(connection, rows, source, mapping, origin, event_id, empty_is_null=False)


def _numbered(rows: TextRows) -> pa.Table:
    """Number the rows that could be read."""
    good = np.arange(rows.count)
    if not rows.broken:
        return rows.columns.append_column("_row", pa.array(good))
    good = np.setdiff1d(good, np.fromiter(rows.broken, np.int64))
    return rows.columns.take(pa.array(good)).append_column("_row", pa.array(good))


def _parquet_source(rows: ParquetRows) -> str:
    last = rows.first + rows.count - 1
    options = "file_row_number = true, binary_as_string = true, hive_partitioning = false"
    file = f"read_parquet({literal(str(rows.path))}, {options})"
    return (
        f"(SELECT * EXCLUDE (file_row_number), file_row_number - {rows.first} AS _row FROM {file} "
        f"WHERE file_row_number BETWEEN {rows.first} AND {last})"
    )


def _json_chunk(rows: TextRows, mapping: ColumnMapping, origin: Origin, event_id: str) -> Chunk:
    reads = {c: "VARCHAR" for source in mapping.envelope.values() for c in source.reads}
    structure: dict[str, Any] = {}
    for name, dtype in reads.items():
        _put(structure, path_of(name), dtype)
    flat = mapping.payload == FLAT
    prefix = () if flat else path_of(mapping.payload)
    if not flat:
        _put(structure, prefix, "JSON")
        _put(structure, (*prefix[:-1], f"{prefix[-1]}_base64"), "VARCHAR")
    envelope = envelope_sql(
        mapping,
        lambda name: Column(_inside("_j", path_of(name)), pa.string()),
        event_id=event_id,
        recorded_at=origin.recorded_at,
        unreadable=f"_j IS NULL OR left(ltrim(_text, {_SPACE}), 1) <> '{{'",
    )
    payload = "_text" if flat else _inside("_j", prefix)
    encoded = "NULL" if flat else f"TRY(decode(from_base64({_inside('_j', (*prefix[:-1], prefix[-1] + '_base64'))})))"
    inner = f"""CASE
        WHEN {payload} IS NULL THEN {encoded}
        WHEN left({payload}, 1) = '"' THEN json_extract_string({payload}, '$')
    END"""
    structured = _STRUCTURE.format(document="coalesce(_inner, _payload, '{}')")
    relation = f"""(
        SELECT * EXCLUDE (_payload), {structured} AS _structure FROM (
            SELECT _row, {envelope}, _text AS _document, {payload} AS _payload, {inner} AS _inner FROM (
                SELECT _row, _text, TRY(json_transform(_text, {literal(json.dumps(structure))})) AS _j FROM {_CHUNK}
            )
        ))"""
    return Chunk(count=rows.count, broken=rows.broken, rows=relation, documents=True, prefix=prefix)


def _put(structure: dict[str, Any], path: tuple[str, ...], dtype: str) -> None:
    for name in path[:-1]:
        inner = structure.setdefault(name, {})
        structure = inner if isinstance(inner, dict) else structure
    structure.setdefault(path[-1], dtype)


def _inside(struct: str, path: tuple[str, ...]) -> str:
    return struct + "".join(f".{quote(name)}" for name in path)


def _table_chunk(
    connection: duckdb.DuckDBPyConnection,
    rows: Rows,
    source: str,
    mapping: ColumnMapping,
    origin: Origin,
    event_id: str,
    *,
    empty_is_null: bool,
) -> Chunk:
    schema = result_schema(connection, f"SELECT * FROM {source} LIMIT 0")
    find = _finder(schema)
    check_columns(mapping, find, where=origin.name, names=[n for n in schema.names if n != "_row"])
    envelope = envelope_sql(mapping, find, event_id=event_id, recorded_at=origin.recorded_at)
    payload = None if mapping.payload == FLAT else find(mapping.payload)
    if payload is None and mapping.payload not in (FLAT, DEFAULT_PAYLOAD):
        raise UsageError(f"{origin.name} has no column {mapping.payload!r}, which the mapping names as payload.")
    broken = rows.broken if isinstance(rows, TextRows) else {}
    if payload is not None and pt.is_string(payload.type):
        relation = f"""(
            SELECT *, {_STRUCTURE.format(document="coalesce(_inner, '{}')")} AS _structure FROM (
                SELECT _row, {envelope}, NULL AS _document, nullif({payload.sql}, '') AS _inner FROM {source}
            ))"""
        return Chunk(count=rows.count, broken=broken, rows=relation, documents=True)
    names = [n for n in schema.names if n != "_row"]
    own = {f"_c{i}": quote(n) for i, n in enumerate(names)}
    carried = ", ".join(f"{sql} AS {alias}" for alias, sql in own.items())
    aliases = {n: f"_c{i}" for i, n in enumerate(names)}
    return Chunk(
        count=rows.count,
        broken=broken,
        rows=f"(SELECT _row, {envelope}, '' AS _structure, {carried} FROM {source})",
        find=_finder(pa.schema([schema.field(n).with_name(aliases[n]) for n in names]), aliases),
        documents=False,
        empty_is_null=empty_is_null,
        flat=payload is None,
    )


def _finder(schema: pa.Schema, aliases: Mapping[str, str] | None = None) -> Find:
    """Find columns by name, or by a path into objects."""

    def find(name: str) -> Column | None:
        own = aliases.get(name, "") if aliases else name
        if own in schema.names:
            return Column(quote(own), schema.field(own).type)
        path = path_of(name)
        first = aliases.get(path[0], "") if aliases else path[0]
        if len(path) == 1 or first not in schema.names:
            return None
        found, sql = schema.field(first).type, quote(first)
        for part in path[1:]:
            index = found.get_field_index(part) if pt.is_struct(found) else -1
            if index < 0:
                return None
            found, sql = found.field(index).type, f"{sql}.{quote(part)}"
        return Column(sql, found)

    return find


def describe_rows(connection: duckdb.DuckDBPyConnection, rows: ParquetRows, picked: list[int]) -> dict[int, str]:
    """Write some rows of a Parquet file as JSON text."""
    connection.register("_picked", pa.table({"_picked": picked}))
    query = f"SELECT _picked, to_json(r) FROM _picked JOIN {_parquet_source(rows)} r ON r._row = _picked"
    return dict(connection.execute(query).fetchall())


def malformed(text: str) -> str:
    """Say why a row is no JSON object; empty for a blank line."""
    if not text.strip():
        return ""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is no JSON: {error}"
    return "expected a JSON object" if not isinstance(found, dict) else "this JSON cannot be read"
