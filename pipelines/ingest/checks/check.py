"""One chunk of rows becomes typed events, sorted by bucket, and invalid rows, each with its reason.

Every worker has a checker of its own, with a database in memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from refold.event_schemas import ENVELOPE, RefoldError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.chunk import CHUNK, TIME_REASON, Chunk, Provenance, load_chunk
from refold.pipelines.ingest.checks.context import CheckContext, Indices, nullable_type
from refold.pipelines.ingest.checks.document_payload import StructureCache
from refold.pipelines.ingest.checks.json_documents import TOMBSTONE, explain_malformed
from refold.pipelines.ingest.checks.named_columns import Name, found_names
from refold.pipelines.ingest.formats import Format
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import Rows
from refold.warehouse.event_log.bulk_import.spool import SPOOLED, Partitioned
from refold.warehouse.personal.personal_data import PersonalData

_FROM_ROWS = SPOOLED[1:]
"""Envelope columns that the rows give; positions are given once the invalid rows are known."""

_REQUIRED = ("stream_id", "_type", "_version", "occurred_at")
_MAX_CODES = 1 << 20
"""Pairs of type and version up to which counting them costs less than sorting them; 8 MB of counters."""


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """The events and the invalid rows of a chunk.

    Attributes:
        parts: schema to its events; positions count from 1 within the chunk.
        events: how many events.
        invalid: row to the reason why it cannot become an event.
        lines: the line of each event, in the order of the events.
        local: how many times have no zone.
        tombstones: rows that are ``null``, such as Kafka writes after a delete.
        found: the names of the mapping that a row had; see :class:`NamedColumns`.
    """

    parts: dict[SchemaKey, Partitioned]
    events: int
    invalid: dict[int, str]
    lines: Indices
    local: int = 0
    tombstones: int = 0
    found: frozenset[Name] = frozenset()


class Checker:
    """Checks chunks of one file, one after the other.

    Args:
        connection: a database for its own use.
        registry: the contracts.
        mapping: of the file's columns.
        bucket_count: of the log.
        personal: the personal data of the log, which encrypts marked fields.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        registry: Registry,
        mapping: ColumnMapping,
        *,
        bucket_count: int,
        personal: PersonalData,
    ) -> None:
        self._context = CheckContext(connection, registry, mapping, bucket_count)
        self._personal = personal
        self._structures: StructureCache = {}

    def check(self, rows: Rows, provenance: Provenance, format: Format, wanted: Collection[Name] = ()) -> CheckedChunk:
        """Turn the rows of a chunk into events.

        Args:
            rows: the chunk.
            provenance: where it comes from.
            format: of the file.
            wanted: the names of the mapping to look for.

        Raises:
            UsageError: the file lacks a column, or has one of a type that no field can be taken from.
        """
        invalid = dict(rows.invalid)
        chunk = load_chunk(self._context, rows, provenance, format, self._structures)
        valid = self._check_envelope(chunk, rows, invalid)
        schema_keys, number = self._schema_keys(chunk.envelope, valid, invalid)
        buckets = self._context.buckets(chunk.envelope["stream_id"].combine_chunks().fill_null(""))
        tables: dict[SchemaKey, pa.Table] = {}
        self._local = chunk.local
        for i, schema_key in enumerate(schema_keys):
            picked = np.flatnonzero(number == i)
            picked = picked[np.argsort(buckets[picked], kind="stable")]
            tables[schema_key] = self._events(chunk, schema_key, picked, buckets, invalid)
        found = self._found(chunk, wanted, schema_keys, number) if wanted else frozenset()
        checked = self._numbered(tables, rows, invalid)
        return replace(checked, local=self._local, found=found)

    def _found(
        self, chunk: Chunk, wanted: Collection[Name], schema_keys: list[SchemaKey], number: Indices
    ) -> frozenset[Name]:
        of_type: dict[str, list[int]] = {}
        for i, (event_type, _) in enumerate(schema_keys):
            of_type.setdefault(event_type, []).append(i)
        self._context.register(CHUNK, chunk.table)
        rows_of = {event_type: np.flatnonzero(np.isin(number, found)) for event_type, found in of_type.items()}
        return found_names(self._context, chunk, wanted, rows_of)

    def _check_envelope(self, chunk: Chunk, rows: Rows, invalid: dict[int, str]) -> Indices:
        """Return whether each row has a valid envelope; note the reasons of those that have none."""
        valid = np.ones(len(chunk.envelope), bool)
        for name in _REQUIRED:
            if chunk.envelope[name].null_count:
                valid &= chunk.envelope[name].is_valid().to_numpy()
        suspects = np.flatnonzero(~valid)
        if len(suspects):
            self._context.register(CHUNK, chunk.table.take(pa.array(suspects)))
            reasons = self._context.select(chunk.relation, {"_row": "_row", "_reason": chunk.reason})
            times = _time_reasons(chunk.envelope)
            for row, reason in zip(reasons["_row"].to_pylist(), reasons["_reason"].to_pylist(), strict=True):
                invalid[row] = reason or times.get(row) or explain_malformed(rows.text(row))
        return valid

    def _schema_keys(
        self, envelope: pa.Table, valid: Indices, invalid: dict[int, str]
    ) -> tuple[list[SchemaKey], Indices]:
        """Return the schemas of the rows, and the index of each row's schema in them; -1 for an invalid row."""
        types = envelope["_type"].combine_chunks().fill_null("").dictionary_encode()
        version = envelope["_version"].combine_chunks().fill_null(0).to_numpy().astype(np.int64)
        span = int(version.max(initial=0)) + 1
        code = types.indices.to_numpy().astype(np.int64) * span + version
        if len(types.dictionary) * span <= _MAX_CODES:
            present = np.flatnonzero(np.bincount(code[valid]))
        else:
            present = np.unique(code[valid])
        schema_keys: dict[SchemaKey, int] = {}
        number = np.full(len(code), -1)
        for one in present.tolist():
            schema_key, unknown = self._context.resolve(types.dictionary[one // span].as_py(), one % span)
            same = (code == one) & valid
            if unknown:
                invalid |= dict.fromkeys(envelope["_row"].to_numpy()[same].tolist(), unknown)
            else:
                number[same] = schema_keys.setdefault(schema_key, len(schema_keys))
        return list(schema_keys), number

    def _events(
        self, chunk: Chunk, schema_key: SchemaKey, picked: Indices, buckets: Indices, invalid: dict[int, str]
    ) -> pa.Table:
        """Return the events of some rows, which all have one schema; note the reasons of those that are invalid."""
        events = chunk.envelope.select(["_row", *_FROM_ROWS]).take(pa.array(picked))
        payload = chunk.payload.read(self._context, schema_key, picked)
        self._local += payload.local
        columns = [*events.columns, pa.array(buckets[picked]), *payload.columns.values()]
        events = pa.table(columns, names=[*events.column_names, "_bucket", *payload.columns])
        reasons = payload.reasons
        if reasons.null_count == len(reasons):
            return events
        noted = zip(events["_row"].to_pylist(), reasons.to_pylist(), strict=True)
        invalid |= {row: reason for row, reason in noted if reason is not None}
        return events.filter(reasons.is_null())

    def _numbered(self, tables: dict[SchemaKey, pa.Table], rows: Rows, invalid: dict[int, str]) -> CheckedChunk:
        """Number the events of a chunk in the order of its rows, without gaps for the invalid ones."""
        gone = np.sort(np.fromiter(invalid, np.int64, len(invalid)))
        parts = {}
        for schema_key, table in tables.items():
            row = table["_row"].to_numpy()
            position = pa.array(row + 1 - np.searchsorted(gone, row), pa.int64())
            payload = self._context.registry.schema(*schema_key)
            columns = table.select([*_FROM_ROWS, *payload.names])
            events = columns.cast(_spooled_schema(payload)).add_column(0, "position", position)
            if fields := self._context.registry.personal(schema_key):
                events = self._personal.encrypted_table(events, fields, schema_key[0])
            parts[schema_key] = Partitioned(events, table["_bucket"].to_numpy())
        events_count = sum(len(p.buckets) for p in parts.values())
        if events_count + len(invalid) != rows.count:
            raise RefoldError(
                f"Of {rows.count} rows {events_count} became events and {len(invalid)} were invalid; that does not add "
                "up. This is an error in refold: please report it."
            )
        lines = np.delete(_lines(rows), gone)
        reasons = {row: reason for row, reason in invalid.items() if reason and reason != TOMBSTONE}
        tombstones = sum(reason == TOMBSTONE for reason in invalid.values())
        return CheckedChunk(parts, events_count, reasons, lines, tombstones=tombstones)


def _lines(rows: Rows) -> Indices:
    if isinstance(rows.lines, range):
        return np.arange(rows.lines.start, rows.lines.stop, rows.lines.step)
    return np.asarray(rows.lines, np.int64)


def _time_reasons(envelope: pa.Table) -> dict[int, str]:
    """Return why times are none, by row."""
    if TIME_REASON not in envelope.column_names:
        return {}
    reasons = envelope[TIME_REASON]
    picked = envelope.select(["_row", TIME_REASON]).filter(reasons.is_valid())
    return dict(zip(picked["_row"].to_pylist(), picked[TIME_REASON].to_pylist(), strict=True))


def _spooled_schema(payload: pa.Schema) -> pa.Schema:
    """Return the schema that all parts of a payload schema have, whatever their columns are taken from."""
    fields = [*(ENVELOPE.field(name) for name in _FROM_ROWS), *payload]
    return pa.schema([pa.field(f.name, nullable_type(f.type)) for f in fields])
