"""One chunk of rows, loaded: its envelope as a table, and its payloads as columns or as JSON documents.

A document is JSON text: the row itself, a part of it, or a column of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from refold.event_schemas import ENVELOPE, UsageError
from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.pipelines.ingest.checks.column import Column, FindColumn, column_finder, exists_in_table, inside
from refold.pipelines.ingest.checks.column_payload import ColumnPayload
from refold.pipelines.ingest.checks.computed_fields import read_texts
from refold.pipelines.ingest.checks.context import CheckContext, replace_rows
from refold.pipelines.ingest.checks.document_paths import TRANSFORMED, DocumentPaths
from refold.pipelines.ingest.checks.document_payload import DocumentPayload, StructureCache, one_document
from refold.pipelines.ingest.checks.envelope import EnvelopeSql, check_columns, envelope_sql
from refold.pipelines.ingest.checks.named_columns import exists_in_document
from refold.pipelines.ingest.formats import Format
from refold.pipelines.ingest.mapping import DEFAULT_PAYLOAD, ColumnMapping, path_of
from refold.pipelines.ingest.rows import Rows
from refold.warehouse.engine.sql import literal, result_schema

CHUNK = "_chunk"
"""The rows of a chunk in the database, with ``_row``, the index of a row among all rows of the chunk."""

_ALIASES = {"event_type": "_type", "schema_version": "_version"}
"""Envelope columns that are resolved later, from the names and versions of the file."""

_MICROSECONDS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""From the year 1 to the year 9999, counted from 1970."""

TIME_REASON = "_time_reason"
"""A column of the envelope: why a time is none; there is none if all times were read by the database."""

_SPACE = "E' \\t\\r\\n'"
_EMPTY = "'{}'"
_BLANKS = " OR ".join(f"contains({{0}}, {blank})" for blank in ("' :'", "E'\\t:'", "E'\\n:'", "E'\\r:'"))
_COMPACT = f"CASE WHEN {_BLANKS} THEN CAST(TRY(json({{0}})) AS VARCHAR) ELSE {{0}} END"
"""A JSON text without blanks between a key and its colon, so that its keys can be counted."""

_KEYS = "((strlen({0}) - strlen(replace({0}, '\":', ''))) // 2)::INTEGER"
_STRUCTURE = "coalesce(TRY(json_structure({}))::VARCHAR, '')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a chunk comes from.

    Attributes:
        file: name of the file, for errors.
        event_id: beginning of the identity of an event that has none; the number of its row follows.
        recorded_at: when the import began, RFC 3339.
        column_names: returns the columns of the file, for errors.
    """

    file: str
    event_id: str
    recorded_at: str
    column_names: Callable[[], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The readable rows of a chunk.

    Attributes:
        table: the rows as they were read, with ``_row``.
        relation: an SQL relation over ``CHUNK`` that has the columns of the envelope's expressions.
        envelope: ``_row``, and the envelope of each row; see :class:`EnvelopeSql` for what an invalid row has.
        reason: an expression over ``relation`` for why a row is invalid.
        local: how many times of the envelope have no zone.
        exists: writes the condition that a row has a path; see :mod:`named_columns`.
        payload: the payloads.
    """

    table: pa.Table
    relation: str
    envelope: pa.Table
    reason: str
    local: int
    exists: Callable[[str], str]
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
    return _load_table(context, rows, provenance, format, event_id, cache)


def _load_table(
    context: CheckContext, rows: Rows, provenance: Provenance, format: Format, event_id: str, cache: StructureCache
) -> Chunk:
    """Load rows that have columns."""
    mapping = context.mapping
    aliases = {name: f"_c{i}" for i, name in enumerate(rows.columns.schema.names)}
    table = _numbered(rows.columns.rename_columns(list(aliases.values())), rows)
    context.register(CHUNK, table)
    find = column_finder(_schema_of(context, table), aliases)
    check_columns(mapping, find, file=provenance.file, column_names=provenance.column_names)
    envelope = envelope_sql(mapping, find, event_id=event_id, recorded_at=provenance.recorded_at)
    payload = _payload_column(mapping, find, provenance.file)
    if payload is not None and pt.is_string(payload.type):
        document = f"coalesce(nullif({payload.sql}, ''), '{{}}')"
        more = {
            "_document": document,
            "_structure": _STRUCTURE.format(document),
            "_keys": _KEYS.format(_COMPACT.format(document)),
        }
        computed = context.select(CHUNK, {"_row": "_row", **envelope.columns, **more})
        documents = DocumentPayload(
            documents=computed["_document"],
            structures=computed["_structure"],
            keys=computed["_keys"].to_numpy(),
            cache=cache,
            **one_document(len(table)),
        )
        return _document_chunk(context, table, CHUNK, envelope, computed, partial(exists_in_table, find), documents)
    made, local = read_times(context, table, CHUNK, envelope, _envelope(context, table, envelope, aliases))
    return Chunk(
        table=table,
        relation=CHUNK,
        envelope=made,
        reason=envelope.reason,
        local=local + _local_count(context, envelope),
        exists=partial(exists_in_table, find),
        payload=ColumnPayload(
            table=table,
            find=find if payload is None else lambda name: inside(payload, path_of(name)),
            empty_is_null=format.empty_is_null,
        ),
    )


def _local_count(context: CheckContext, envelope: EnvelopeSql) -> int:
    if not envelope.local:
        return 0
    return int(context.select(CHUNK, {"_n": f"count_if({envelope.local})::BIGINT"})["_n"][0].as_py())


def _schema_of(context: CheckContext, table: pa.Table) -> pa.Schema:
    """Return the types that the columns have in the database; a column of NULLs has none."""
    schema = result_schema(context.connection, f"FROM {CHUNK} LIMIT 0")
    return pa.schema([f if pt.is_null(f.type) else schema.field(f.name) for f in table.schema])


def _numbered(table: pa.Table, rows: Rows) -> pa.Table:
    """Number the rows, and leave out those that could not be read."""
    readable = np.arange(rows.count)
    if rows.invalid:
        readable = np.setdiff1d(readable, np.fromiter(rows.invalid, np.int64))
        table = table.take(pa.array(readable))
    return table.append_column("_row", pa.array(readable))


def _payload_column(mapping: ColumnMapping, find: FindColumn, file: str) -> Column | None:
    """Return the column that holds the payload; None if the fields are columns of the table itself."""
    found = [column for name in mapping.payloads if (column := find(name)) is not None]
    if not found:
        if mapping.payloads and mapping.payload != DEFAULT_PAYLOAD:
            raise UsageError(
                f"{file} has no column {mapping.payloads[0]!r}, which the mapping names as payload. Name another "
                "column."
            )
        return None
    if len(found) == 1:
        return found[0]
    if len({column.type for column in found}) > 1:
        raise UsageError(
            f"{file}: the columns {' and '.join(mapping.payloads)}, which the mapping names as payload, have different "
            "types. Convert the file."
        )
    return Column(f"coalesce({', '.join(c.sql for c in found)})", found[0].type, top_level=False)


def _envelope(context: CheckContext, table: pa.Table, envelope: EnvelopeSql, aliases: Mapping[str, str]) -> pa.Table:
    """Return the envelope of each row; a column that is as the envelope wants it is moved, not computed."""
    columns = {"_row": table["_row"]}
    for name, source in context.mapping.envelope.items():
        alias = aliases.get(source.columns[0]) if source.is_column else None
        plain = not (context.mapping.null_values and alias and pt.is_string(table[alias].type))
        if alias is not None and plain and _needs_no_change(_ALIASES.get(name, name), table[alias]):
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
    """Load rows that are JSON documents: all paths of the envelope are extracted at once."""
    mapping = context.mapping
    prefixes = [path_of(name) for name in mapping.payloads]
    encoded = {path: (*path[:-1], f"{path[-1]}_base64") for path in prefixes}
    reads = [path_of(name) for source in mapping.envelope.values() for name in source.reads]
    paths = DocumentPaths("_text", frozenset([*reads, *encoded.values()]), frozenset(prefixes))
    envelope = envelope_sql(
        mapping,
        lambda name: Column(paths.value(path_of(name)), pa.string(), top_level=False),
        event_id=event_id,
        recorded_at=recorded_at,
        readable=f"{TRANSFORMED} IS NOT NULL AND left(ltrim(_text, {_SPACE}), 1) = '{{'",
    )
    payloads = [f"nullif({paths.document(path)}, 'null')" for path in prefixes]
    relation = paths.relation(CHUNK)
    more = {
        "_inner": _inner(payloads, [paths.value(encoded[path]) for path in prefixes]),
        "_which": _first_of(payloads),
    }
    documents = f"coalesce({', '.join([more['_inner'], *payloads, _EMPTY])})" if prefixes else "_text"
    texts = [f"CAST({payload} AS VARCHAR)" for payload in payloads]
    compact = ", ".join([_COMPACT.format(more["_inner"] if prefixes else "_text"), *texts, _EMPTY])
    more |= {"_structure": _STRUCTURE.format(documents), "_keys": _KEYS.format(f"coalesce({compact})")}
    computed = context.select(relation, {"_row": "_row", **envelope.columns, **more})
    payload = DocumentPayload(
        documents=table["_text"],
        prefixes=tuple(prefixes) or ((),),
        which=computed["_which"].to_numpy(),
        inner=computed["_inner"],
        structures=computed["_structure"],
        keys=computed["_keys"].to_numpy(),
        cache=cache,
    )
    return _document_chunk(context, table, relation, envelope, computed, exists_in_document, payload)


def _inner(payloads: list[str], encoded: list[str]) -> str:
    """Write the text of a payload that is JSON inside a string, or in base64 under the name that CloudEvents use."""
    whens = "".join(
        f"""
        WHEN left({payload}, 1) = '"' THEN json_extract_string({payload}, '$')
        WHEN {payload} IS NOT NULL THEN NULL
        WHEN {base64} IS NOT NULL THEN TRY(decode(from_base64({base64})))"""
        for payload, base64 in zip(payloads, encoded, strict=True)
    )
    return f"CASE {whens} END" if whens else "NULL::VARCHAR"


def _first_of(payloads: list[str]) -> str:
    """Write the index of the first payload that a row has."""
    whens = " ".join(f"WHEN {payload} IS NOT NULL THEN {i}" for i, payload in enumerate(payloads))
    return f"CASE {whens} ELSE 0 END::UTINYINT" if len(payloads) > 1 else "0::UTINYINT"


def _document_chunk(
    context: CheckContext,
    table: pa.Table,
    relation: str,
    envelope: EnvelopeSql,
    computed: pa.Table,
    exists: Callable[[str], str],
    payload: DocumentPayload,
) -> Chunk:
    made, local = read_times(context, table, relation, envelope, computed.select(["_row", *envelope.columns]))
    return Chunk(
        table=table,
        relation=relation,
        envelope=made,
        reason=envelope.reason,
        local=local,
        exists=exists,
        payload=payload,
    )


def read_times(
    context: CheckContext, table: pa.Table, relation: str, sql: EnvelopeSql, envelope: pa.Table
) -> tuple[pa.Table, int]:
    """Read the times that the database does not; return the envelope, and how many of them have no zone."""
    missing = np.flatnonzero(envelope["occurred_at"].is_null().to_numpy())
    if not len(missing):
        return envelope, 0
    context.register(CHUNK, table.take(pa.array(missing)))
    texts = context.select(relation, {"_time": sql.time_text})["_time"]
    context.register(CHUNK, table)
    read = read_texts(texts, ENVELOPE.field("occurred_at"), context.mapping, context.mapping.envelope["occurred_at"])
    rows = missing[read.rows]
    times = replace_rows(envelope["occurred_at"], rows, read.values)
    given = pc.replace_substring(read.reasons, str(UTC_MICROSECONDS), "a time")
    reasons = replace_rows(pa.chunked_array([pa.nulls(len(envelope), pa.string())]), rows, given)
    index = envelope.schema.get_field_index("occurred_at")
    return envelope.set_column(index, "occurred_at", times).append_column(TIME_REASON, reasons), read.local
