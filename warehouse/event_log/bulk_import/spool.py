"""The spool: the events of a bulk import on local disk, partitioned by bucket, so that memory stays bounded.

Chunks of typed events come in source order. Each is one Arrow file for every event type and schema version, with one
record batch for every bucket; then a line in the journal makes it part of the spool. A killed import continues after
the last chunk in the journal::

    <folder>/journal.jsonl                               the import, then one line for every chunk
    <folder>/chunks/00000007/OrderPlaced@3.arrow         events of chunk 7; every batch is a bucket
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from refold.event_schemas import LogError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.sql import columns
from refold.warehouse.event_log.bulk_import.spool_journal import (
    Journal,
    SpoolChunk,
    SpoolFile,
    append_chunk,
    file_name,
    new_journal,
    read_journal,
    write_journal,
)
from refold.warehouse.event_log.layout import bucket_sql

SPOOLED = ("position", "stream_id", "event_id", "occurred_at", "correlation_id", "causation_id")
"""Envelope columns of a chunk; ``position`` counts from 1, within the chunk or through the whole import."""

_BUCKETS = b"buckets"
_LINES = "lines.npy"
_HASHES = "identities.npy"
_MAX_HASHES = 32 << 20
"""Hashes that are compared at a time; 256 MB of them."""
_LEFT_OUT = "left-out.npy"
_IDENTITY = [SPOOLED.index("stream_id"), SPOOLED.index("event_id")]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one chunk, event type, schema version and bucket, in the order in which they were spooled.

    Attributes:
        base: offset of its positions.
        rows: ``SPOOLED`` and the payload's columns.
    """

    base: int
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Typed events of one event type and schema version, sorted by bucket.

    Attributes:
        rows: ``SPOOLED`` and the payload's columns.
        buckets: the bucket of each row.
    """

    rows: pa.Table
    buckets: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Spooled:
    """A spool opened for reading, by any number of processes.

    Attributes:
        folder: the spool's folder.
        journal: its content.
        left_out: positions of the events that are left out, sorted; those that follow move up.
    """

    folder: Path
    journal: Journal
    left_out: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def events(self) -> int:
        """The number of its events, without those that are left out."""
        return self.journal.events - len(self.left_out)

    def buckets(self) -> list[int]:
        """Return the buckets that have events."""
        found: set[int] = set()
        for chunk in self.journal.chunks:
            for file in chunk.files:
                found.update(_open(_chunk_folder(self.folder, chunk.number) / file.name)[0])
        return sorted(found)

    def read_bucket(self, bucket: int) -> dict[SchemaKey, list[Batch]]:
        """Read the events of one bucket by schema, chunk by chunk."""
        found: dict[SchemaKey, list[Batch]] = {}
        for chunk in self.journal.chunks:
            for file in chunk.files:
                buckets, reader = _open(_chunk_folder(self.folder, chunk.number) / file.name)
                if bucket in buckets:
                    rows = reader.get_batch(buckets.index(bucket)).replace_schema_metadata(None)
                    batch = self._without_left_out(Batch(chunk.base, rows))
                    found.setdefault((file.event_type, file.schema_version), []).append(batch)
        return {key: batches for key, batches in found.items() if any(b.rows.num_rows for b in batches)}

    def _without_left_out(self, batch: Batch) -> Batch:
        if not len(self.left_out):
            return batch
        position = batch.rows["position"].to_numpy() + batch.base
        kept = ~np.isin(position, self.left_out)
        position = position[kept] - np.searchsorted(self.left_out, position[kept])
        rows = batch.rows.filter(pa.array(kept))
        return Batch(0, rows.set_column(0, "position", pa.array(position, pa.int64())))

    def identities(self, bucket: int) -> pa.Table:
        """Read stream and id of the events of one bucket."""
        parts = []
        for chunk in self.journal.chunks:
            for file in chunk.files:
                path = _chunk_folder(self.folder, chunk.number) / file.name
                buckets, reader = _open(path, fields=_IDENTITY)
                if bucket in buckets:
                    parts.append(reader.get_batch(buckets.index(bucket)).select(["stream_id", "event_id"]))
        return pa.Table.from_batches([p.replace_schema_metadata(None) for p in parts])

    def has_twins(self) -> bool:
        """Check whether two events may have the same stream and id: whether two hashes are equal."""
        paths = [_chunk_folder(self.folder, c.number) / _HASHES for c in self.journal.chunks if c.events]
        passes = -(-self.journal.events // _MAX_HASHES)
        for number in range(passes):
            found = [hashes[hashes % passes == number] if passes > 1 else hashes for hashes in map(np.load, paths)]
            ordered = np.sort(np.concatenate(found))
            if (ordered[1:] == ordered[:-1]).any():
                return True
        return False

    def line_of(self, position: int) -> tuple[int, int]:
        """Return the chunk that an event is in, and its line in the source; the position counts all spooled events."""
        chunk = next(c for c in reversed(self.journal.chunks) if c.base < position)
        lines = np.load(_chunk_folder(self.folder, chunk.number) / _LINES)
        return chunk.number, int(lines[position - chunk.base - 1])

    def read_chunk(self, number: int) -> dict[SchemaKey, pa.Table]:
        """Read the events of one chunk by schema, with positions through the whole import."""
        chunk = self.journal.chunks[number]
        found = {}
        for file in chunk.files:
            reader = _open(_chunk_folder(self.folder, number) / file.name)[1]
            batches = [self._without_left_out(Batch(chunk.base, rows)) for rows in _batches_of(reader)]
            found[(file.event_type, file.schema_version)] = pa.concat_tables(map(_positioned, batches))
        return found

    def read_positions(self, first: int, last: int) -> Iterator[dict[SchemaKey, pa.Table]]:
        """Read the events of some positions, the last one included, chunk by chunk."""
        for chunk in self.journal.chunks:
            base = chunk.base - int(np.searchsorted(self.left_out, chunk.base, side="right"))
            if base < last and chunk.events and base + chunk.events >= first:
                yield {
                    key: table.filter((pc.field("position") >= first) & (pc.field("position") <= last))
                    for key, table in self.read_chunk(chunk.number).items()
                }

    def leave_out(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Spooled:
        """Return the spool without some events; whoever opens it later finds it so."""
        if len(positions):
            np.save(self.folder / _LEFT_OUT, positions)
        else:
            (self.folder / _LEFT_OUT).unlink(missing_ok=True)
        return replace(self, left_out=positions)


def _batches_of(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    return (reader.get_batch(i) for i in range(reader.num_record_batches))


def _positioned(batch: Batch) -> pa.Table:
    """Return the rows of a batch with positions through the whole import."""
    position = pa.array(batch.rows["position"].to_numpy() + batch.base, pa.int64())
    return pa.Table.from_batches([batch.rows]).set_column(0, "position", position).replace_schema_metadata(None)


def read_spool(folder: Path) -> Spooled:
    """Open a spool for reading, as it is now.

    Raises:
        LogError: there is no spool in the folder.
    """
    journal = read_journal(folder)
    if journal is None:
        raise LogError(f"The unfinished import in {folder} is gone. Run the import again from its start.")
    left_out = folder / _LEFT_OUT
    return Spooled(folder, journal, np.load(left_out)) if left_out.exists() else Spooled(folder, journal)


class Spool:
    """Writes the events of one import to local disk, by chunk, schema and bucket.

    Args:
        folder: kept between runs of the same import; incomplete chunks of a killed run are removed.
        bucket_count: bucket count of the log.
        context: what must be equal for a later run to continue; if it differs, the spool starts again.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Spool(Path(folder), bucket_count=4).journal.events
        0
    """

    def __init__(self, folder: Path, *, bucket_count: int, context: str = "") -> None:
        self.folder = folder
        self._bucket_count = bucket_count
        self.journal = self._recover(f"{bucket_count} {context}")

    def add(
        self,
        connection: duckdb.DuckDBPyConnection,
        relations: Mapping[SchemaKey, str],
        payloads: Mapping[SchemaKey, Sequence[str]],
        *,
        source: Mapping[str, Any],
    ) -> int:
        """Spool one chunk atomically.

        Args:
            connection: connection on which the relations can be queried.
            relations: schema to the SQL relation of its events, with ``SPOOLED`` and the payload's typed columns;
                positions count through the whole import.
            payloads: schema to the names of the payload's columns.
            source: state of the reader of the source, for the journal.

        Returns:
            The number of its events.
        """
        parts = {}
        for key, relation in relations.items():
            bucket = f"{bucket_sql(self._bucket_count)}::USMALLINT AS _bucket"
            select = f"SELECT {columns([*SPOOLED, *payloads[key]])}, {bucket} FROM {relation} ORDER BY _bucket"
            table = connection.sql(select).to_arrow_table()
            parts[key] = Partitioned(table.drop_columns(["_bucket"]), table["_bucket"].to_numpy())
        files = self.write(len(self.journal.chunks), parts)
        self.commit(files, base=0, events=sum(len(p.buckets) for p in parts.values()), source=source)
        return self.journal.chunks[-1].events

    def write(
        self,
        number: int,
        parts: Mapping[SchemaKey, Partitioned],
        *,
        lines: np.ndarray[Any, Any] | None = None,
        identities: np.ndarray[Any, Any] | None = None,
    ) -> tuple[SpoolFile, ...]:
        """Write the files of one chunk, for :meth:`commit`; threads may write chunks concurrently.

        Args:
            number: of the chunk.
            parts: its events, by schema.
            lines: the line of the source that each event comes from, in the order of the events.
            identities: a hash of stream and id of each event, in any order.
        """
        folder = _chunk_folder(self.folder, number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if lines is not None:
            np.save(folder / _LINES, lines)
        if identities is not None:
            np.save(folder / _HASHES, identities)
        return tuple(
            SpoolFile(event_type=key[0], schema_version=key[1], bytes=_write(folder / file_name(*key), part))
            for key, part in parts.items()
            if len(part.buckets)
        )

    def commit(self, files: Sequence[SpoolFile], *, base: int, events: int, source: Mapping[str, Any]) -> None:
        """Make the next chunk part of the spool."""
        chunk = SpoolChunk(
            number=len(self.journal.chunks), base=base, events=events, source=dict(source), files=tuple(files)
        )
        self.journal = append_chunk(self.folder, self.journal, chunk)

    def _recover(self, context: str) -> Journal:
        found = read_journal(self.folder)
        if found is None or found.context != context or not all(map(self._is_complete, found.chunks)):
            shutil.rmtree(self.folder, ignore_errors=True)
            found = new_journal(context)
        write_journal(self.folder, found)  # without an incomplete last line
        kept = {f"{c.number:08d}" for c in found.chunks}
        for folder in (self.folder / "chunks").glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder)
        return found

    def _is_complete(self, chunk: SpoolChunk) -> bool:
        folder = _chunk_folder(self.folder, chunk.number)
        paths = [(folder / f.name, f.bytes) for f in chunk.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _chunk_folder(folder: Path, number: int) -> Path:
    return folder / "chunks" / f"{number:08d}"


def _write(path: Path, part: Partitioned) -> int:
    """Write one record batch for every bucket, with the list of buckets as metadata, and return the file's size."""
    starts = np.flatnonzero(np.diff(part.buckets, prepend=-1))
    ends = np.append(starts[1:], len(part.buckets))
    table = part.rows.combine_chunks()
    schema = table.schema.with_metadata({_BUCKETS: orjson.dumps(part.buckets[starts].tolist())})
    (rows,) = table.replace_schema_metadata(schema.metadata).to_batches()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            writer.write_batch(rows.slice(start, end - start))
    return path.stat().st_size


def _open(path: Path, *, fields: list[int] | None = None) -> tuple[list[int], pa.ipc.RecordBatchFileReader]:
    """Open a file to read it batch by batch. It is not memory-mapped: resident memory would seem to hold all of it."""
    reader = pa.ipc.open_file(pa.OSFile(str(path)), options=pa.ipc.IpcReadOptions(included_fields=fields))
    return list(orjson.loads(reader.schema.metadata[_BUCKETS])), reader
