"""One chunk of rows, loaded: its envelope as a table, and its payloads as columns or as JSON documents.

A document is JSON text: the row itself, a part of it, or a column of a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.pipelines.ingest.checks.column import Column, FindColumn, column_finder, field_of
from refold.pipelines.ingest.checks.column_payload import ColumnPayload
from refold.pipelines.ingest.checks.context import CheckContext
from refold.pipelines.ingest.checks.document_payload import DocumentPayload, StructureCache
from refold.pipelines.ingest.checks.envelope import EnvelopeSql, check_columns, envelope_sql
from refold.pipelines.ingest.formats import Format
from refold.pipelines.ingest.mapping import DEFAULT_PAYLOAD, FLAT, ColumnMapping, path_of
from refold.pipelines.ingest.rows import Rows
from refold.warehouse.engine.sql import literal, result_schema

CHUNK = "_chunk"
"""The rows of a chunk in the database, with ``_row``, the index of a row among all rows of the chunk."""

_ALIASES = {"event_type": "_type", "schema_version": "_version"}
"""Envelope columns that are resolved later, from the names and versions of the file."""

_MICROSECONDS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""From the year 1 to the year 9999, counted from 1970."""

_SPACE = "E' \\t\\r\\n'"
_STRUCTURE = "coalesce(TRY(json_structure({}))::VARCHAR, '')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a chunk comes from.

    Attributes:
        file: name of the file, for errors.
        event_id: beginning of the identity of an event that has none; the number of its row follows.
        recorded_at: when the import began, RFC 3339.
    """

    file: str
    event_id: str
    recorded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The readable rows of a chunk.

    Attributes:
        table: the rows as they were read, with ``_row``.
        relation: an SQL relation over ``CHUNK`` that has the columns of the envelope's expressions.
        envelope: ``_row``, and the envelope of each row; see :class:`EnvelopeSql` for what an invalid row has.
        reason: an expression over ``relation`` for why a row is invalid.
        payload: the payloads.
    """

    table: pa.Table
    relation: str
    envelope: pa.Table
    reason: str
    payload: ColumnPayload | DocumentPayload


def load_chunk(
    context: CheckContext, rows: Rows, provenance: Provenance, format: Format, cache: StructureCache
) -> Chunk:
    """Load a chunk.

    Args:
        context: the rows are registered in its database.
        rows: the chunk.
        provenance: where it comes from.
        format: of the file.
        cache: of the structures of documents.

    Raises:
        UsageError: a table lacks the columns of a required value.
    """
    first_row = rows.after["row"] - rows.count + 1
    event_id = f"{literal(provenance.event_id)} || ({first_row} + _row)"
    if format.documents:
        table = _numbered(rows.columns, rows)
        context.register(CHUNK, table)
        return _load_documents(context, table, event_id, provenance.recorded_at, cache)
    aliases = {name: f"_c{i}" for i, name in enumerate(rows.columns.schema.names)}
    table = _numbered(rows.columns.rename_columns(list(aliases.values())), rows)
    context.register(CHUNK, table)
    find = column_finder(result_schema(context.connection, f"FROM {CHUNK} LIMIT 0"), aliases)
    check_columns(context.mapping, find, file=provenance.file, names=list(aliases))
    envelope = envelope_sql(context.mapping, find, event_id=event_id, recorded_at=provenance.recorded_at)
    column = _payload_column(context.mapping, find, provenance.file)
    if column is not None and pt.is_string(column.type):
        document = f"coalesce(nullif({column.sql}, ''), '{{}}')"
        more = {"_document": document, "_inner": "NULL::VARCHAR", "_structure": _STRUCTURE.format(document)}
        computed = context.select(CHUNK, {"_row": "_row", **envelope.columns, **more})
        return _document_chunk(table, CHUNK, envelope, computed, computed["_document"], (), cache)
    return Chunk(
        table=table,
        relation=CHUNK,
        envelope=_envelope(context, table, envelope, aliases),
        reason=envelope.reason,
        payload=ColumnPayload(
            table=table,
            find=find,
            prefix="" if column is None else f"{context.mapping.payload}.",
            empty_is_null=format.empty_is_null,
        ),
    )


def _numbered(table: pa.Table, rows: Rows) -> pa.Table:
    """Number the rows, and leave out those that could not be read."""
    readable = np.arange(rows.count)
    if rows.invalid:
        readable = np.setdiff1d(readable, np.fromiter(rows.invalid, np.int64))
        table = table.take(pa.array(readable))
    return table.append_column("_row", pa.array(readable))


def _payload_column(mapping: ColumnMapping, find: FindColumn, file: str) -> Column | None:
    """Return the column that holds the payload; None if the fields are columns of the table itself."""
    column = None if mapping.payload == FLAT else find(mapping.payload)
    if column is None and mapping.payload not in (FLAT, DEFAULT_PAYLOAD):
        raise UsageError(
            f"{file} has no column {mapping.payload!r}, which the mapping names as payload. Name another column."
        )
    return column


def _envelope(context: CheckContext, table: pa.Table, envelope: EnvelopeSql, aliases: Mapping[str, str]) -> pa.Table:
    """Return the envelope of each row; a column that is as the envelope wants it is moved, not computed."""
    columns = {"_row": table["_row"]}
    for name, source in context.mapping.envelope.items():
        alias = aliases.get(source.columns[0]) if source.is_column else None
        if alias is not None and _needs_no_change(_ALIASES.get(name, name), table[alias]):
            columns[_ALIASES.get(name, name)] = table[alias]
    rest = {name: sql for name, sql in envelope.columns.items() if name not in columns}
    if rest:
        computed = context.select(CHUNK, rest)
        columns |= {name: computed[name] for name in rest}
    return pa.table(columns)


def _needs_no_change(name: str, column: pa.ChunkedArray) -> bool:
    """Check whether a column of the file can be moved into the envelope as it is."""
    if name == "_version":
        return bool(pt.is_int32(column.type) and not column.null_count and pc.min(column).as_py() >= 1)
    if name == "occurred_at":
        if column.type != UTC_MICROSECONDS:
            return False
        edges = pc.min_max(column.cast(pa.int64()))
        first, last = edges["min"].as_py(), edges["max"].as_py()
        return first is None or bool(_MICROSECONDS[0] <= first and last <= _MICROSECONDS[1])
    if not pt.is_string(column.type) or (name == "event_id" and column.null_count):
        return False
    return bool(pc.min(pc.binary_length(column)).as_py() != 0)


def _load_documents(
    context: CheckContext, table: pa.Table, event_id: str, recorded_at: str, cache: StructureCache
) -> Chunk:
    """Load rows that are JSON documents."""
    mapping = context.mapping
    structure: dict[str, Any] = {}
    for source in mapping.envelope.values():
        for name in source.reads:
            _add_path(structure, path_of(name), "VARCHAR")
    prefix = () if mapping.payload == FLAT else path_of(mapping.payload)
    payload, encoded = "_text", "NULL"
    if prefix:
        in_base64 = (*prefix[:-1], f"{prefix[-1]}_base64")
        _add_path(structure, prefix, "JSON")
        _add_path(structure, in_base64, "VARCHAR")
        payload = field_of("_j", prefix)
        encoded = f"TRY(decode(from_base64({field_of('_j', in_base64)})))"
    inner = f"""CASE
        WHEN {payload} IS NULL THEN {encoded}
        WHEN left({payload}, 1) = '"' THEN json_extract_string({payload}, '$')
    END"""
    envelope = envelope_sql(
        mapping,
        lambda name: Column(field_of("_j", path_of(name)), pa.string()),
        event_id=event_id,
        recorded_at=recorded_at,
        readable=f"_j IS NOT NULL AND left(ltrim(_text, {_SPACE}), 1) = '{{'",
    )
    relation = f"(SELECT *, TRY(json_transform(_text, {literal(json.dumps(structure))})) AS _j FROM {CHUNK})"
    structured = _STRUCTURE.format(f"coalesce({inner}, {payload}, '{{}}')")
    computed = context.select(relation, {"_row": "_row", **envelope.columns, "_inner": inner, "_structure": structured})
    return _document_chunk(table, relation, envelope, computed, table["_text"], prefix, cache)


def _document_chunk(
    table: pa.Table,
    relation: str,
    envelope: EnvelopeSql,
    computed: pa.Table,
    documents: pa.ChunkedArray,
    prefix: tuple[str, ...],
    cache: StructureCache,
) -> Chunk:
    return Chunk(
        table=table,
        relation=relation,
        envelope=computed.select(["_row", *envelope.columns]),
        reason=envelope.reason,
        payload=DocumentPayload(
            documents=documents,
            prefix=prefix,
            inner=computed["_inner"],
            structures=computed["_structure"],
            cache=cache,
        ),
    )


def _add_path(structure: dict[str, Any], path: tuple[str, ...], dtype: str) -> None:
    for name in path[:-1]:
        inner = structure.setdefault(name, {})
        structure = inner if isinstance(inner, dict) else structure
    structure.setdefault(path[-1], dtype)
