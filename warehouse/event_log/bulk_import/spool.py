"""The spool: events of one bulk import on local disk, sorted by bucket, so that memory does not grow with the history.

Chunks of typed events come in the order of the source. Each becomes one Arrow file a shape, with one record batch a
bucket, and then one line of the journal, which makes it count. A killed import goes on behind the last chunk in the
journal::

    <folder>/journal.jsonl                               who it is, then a line a chunk
    <folder>/chunks/00000007/OrderPlaced@3.arrow         events of chunk 7; batches are buckets
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from refold.event_schemas import LogError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.sql import columns

SPOOLED = ("position", "stream_id", "event_id", "occurred_at", "correlation_id", "causation_id")
"""Envelope columns that a chunk brings; ``position`` counts from 1, within the chunk or through the whole import."""

_BUCKETS = b"buckets"
_JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFile:
    """Events of one chunk and shape.

    Attributes:
        event_type: of all its events.
        schema_version: of all its events.
        bytes: its size.
    """

    event_type: str
    schema_version: int
    bytes: int

    @property
    def name(self) -> str:
        """Its name in the chunk's folder."""
        return _file_name(self.event_type, self.schema_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolChunk:
    """One line of the journal.

    Attributes:
        number: of the chunk, from 0.
        base: what to add to the positions in its files.
        events: how many events it holds.
        source: what the reader of the source needs to go on behind it.
        files: its files.
    """

    number: int
    base: int
    events: int
    source: dict[str, Any]
    files: tuple[SpoolFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What is in a spool.

    Attributes:
        spool_id: given when it was begun.
        recorded_at: when the import began, which is when its events were recorded, RFC 3339.
        context: what else must be the same for an import to go on.
        chunks: its chunks.
    """

    spool_id: str
    recorded_at: str
    context: str
    chunks: tuple[SpoolChunk, ...] = ()

    @property
    def events(self) -> int:
        """How many events are spooled."""
        return sum(c.events for c in self.chunks)

    @property
    def source(self) -> dict[str, Any]:
        """What the last chunk says of the source; empty before the first."""
        return self.chunks[-1].source if self.chunks else {}


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one chunk, shape and bucket, in the order in which they were spooled.

    Attributes:
        base: what to add to its positions.
        rows: ``SPOOLED`` and the payload's columns.
    """

    base: int
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Typed events of one shape, sorted by bucket.

    Attributes:
        rows: ``SPOOLED`` and the payload's columns.
        buckets: the bucket of each row.
    """

    rows: pa.Table
    buckets: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a spool holds, for reading; any number of processes may.

    Attributes:
        folder: of the spool.
        journal: what is in it.
    """

    folder: Path
    journal: Journal

    def buckets(self) -> list[int]:
        """Name the buckets that have events."""
        found: set[int] = set()
        for chunk in self.journal.chunks:
            for file in chunk.files:
                found.update(_open(_chunk_folder(self.folder, chunk.number) / file.name)[0])
        return sorted(found)

    def read_bucket(self, bucket: int) -> dict[SchemaKey, list[Batch]]:
        """Read one bucket: shape to its events, chunk by chunk."""
        found: dict[SchemaKey, list[Batch]] = {}
        for chunk in self.journal.chunks:
            for file in chunk.files:
                buckets, reader = _open(_chunk_folder(self.folder, chunk.number) / file.name)
                if bucket in buckets:
                    rows = reader.get_batch(buckets.index(bucket)).replace_schema_metadata(None)
                    found.setdefault((file.event_type, file.schema_version), []).append(Batch(chunk.base, rows))
        return found

    def read_chunk(self, number: int) -> dict[SchemaKey, pa.Table]:
        """Read one chunk: shape to its events, positions through the whole import."""
        chunk = self.journal.chunks[number]
        found = {}
        for file in chunk.files:
            table = _open(_chunk_folder(self.folder, number) / file.name)[1].read_all()
            positions = pa.array(table["position"].to_numpy() + chunk.base, pa.int64())
            found[(file.event_type, file.schema_version)] = table.set_column(0, "position", positions)
        return found


def read_spool(folder: Path) -> Spooled:
    """Open a spool for reading, as far as its journal goes.

    Raises:
        LogError: there is none.
    """
    journal = _read_journal(folder / _JOURNAL)
    if journal is None:
        raise LogError(f"There is no spool in {folder}. Run the import again.")
    return Spooled(folder, journal)


class Spool:
    """Events of one import on local disk, by chunk, shape and bucket.

    Args:
        folder: kept between runs of the same import; what a killed run left unfinished in it is removed.
        bucket_count: of the log.
        context: whatever must be the same for a later run to go on; if it is not, the spool starts anew.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Spool(Path(folder), bucket_count=4).journal.events
        0
    """

    def __init__(self, folder: Path, *, bucket_count: int, context: str = "") -> None:
        self.folder = folder
        self._bucket_count = bucket_count
        self._path = folder / _JOURNAL
        self.journal = self._recover(f"{bucket_count} {context}")

    def add(
        self,
        connection: duckdb.DuckDBPyConnection,
        relations: Mapping[SchemaKey, str],
        payloads: Mapping[SchemaKey, Sequence[str]],
        *,
        source: Mapping[str, Any],
    ) -> int:
        """Spool one chunk, whole or not at all.

        Args:
            connection: where the relations can be queried.
            relations: shape to an SQL relation with ``SPOOLED`` and the payload's columns, typed; positions count
                through the whole import.
            payloads: shape to the names of the payload's columns.
            source: what the journal shall keep for the reader of the source.

        Returns:
            How many events it held.
        """
        parts = {}
        for schema_key, relation in relations.items():
            bucket = f"(md5_number_lower(stream_id) % {self._bucket_count})::USMALLINT AS _bucket"
            select = f"SELECT {columns([*SPOOLED, *payloads[schema_key]])}, {bucket} FROM {relation} ORDER BY _bucket"
            table = connection.sql(select).to_arrow_table()
            parts[schema_key] = Partitioned(table.drop_columns(["_bucket"]), table["_bucket"].to_numpy())
        files = self.write(len(self.journal.chunks), parts)
        self.commit(files, base=0, events=sum(len(p.buckets) for p in parts.values()), source=source)
        return self.journal.chunks[-1].events

    def write(self, number: int, parts: Mapping[SchemaKey, Partitioned]) -> tuple[SpoolFile, ...]:
        """Write the files of one chunk, which count once :meth:`commit` says so; threads may write side by side."""
        folder = _chunk_folder(self.folder, number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return tuple(
            SpoolFile(
                event_type=schema_key[0],
                schema_version=schema_key[1],
                bytes=_write(folder / _file_name(*schema_key), part),
            )
            for schema_key, part in parts.items()
            if len(part.buckets)
        )

    def commit(self, files: Sequence[SpoolFile], *, base: int, events: int, source: Mapping[str, Any]) -> None:
        """Make the next chunk count."""
        chunk = SpoolChunk(
            number=len(self.journal.chunks), base=base, events=events, source=dict(source), files=tuple(files)
        )
        with self._path.open("ab") as file:
            file.write(orjson.dumps(asdict(chunk)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(chunk)

    def _take(self, chunk: SpoolChunk) -> None:
        told = self.journal
        self.journal = Journal(
            spool_id=told.spool_id,
            recorded_at=told.recorded_at,
            context=told.context,
            chunks=(*told.chunks, chunk),
        )

    def _recover(self, context: str) -> Journal:
        found = _read_journal(self._path)
        if found is None or found.context != context or not all(map(self._whole, found.chunks)):
            shutil.rmtree(self.folder, ignore_errors=True)
            found = Journal(spool_id=str(uuid.uuid4()), recorded_at=datetime.now(UTC).isoformat(), context=context)
        self._write_journal(found)
        kept = {f"{c.number:08d}" for c in found.chunks}
        for folder in (self.folder / "chunks").glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder)
        return found

    def _whole(self, chunk: SpoolChunk) -> bool:
        folder = _chunk_folder(self.folder, chunk.number)
        paths = [(folder / f.name, f.bytes) for f in chunk.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def _write_journal(self, journal: Journal) -> None:
        (self.folder / "chunks").mkdir(parents=True, exist_ok=True)
        head = {"spool_id": journal.spool_id, "recorded_at": journal.recorded_at, "context": journal.context}
        lines = [orjson.dumps(head), *(orjson.dumps(asdict(c)) for c in journal.chunks)]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in lines))
        os.replace(temporary, self._path)


def _chunk_folder(folder: Path, number: int) -> Path:
    return folder / "chunks" / f"{number:08d}"


def _read_journal(path: Path) -> Journal | None:
    """Read the lines that were written whole; the last one may be torn."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    if not lines:
        return None
    return Journal(**orjson.loads(lines[0]), chunks=tuple(_chunk_from_json(line) for line in lines[1:]))


def _chunk_from_json(line: bytes) -> SpoolChunk:
    values = orjson.loads(line)
    return SpoolChunk(**{**values, "files": tuple(SpoolFile(**f) for f in values["files"])})


def _file_name(event_type: str, schema_version: int) -> str:
    return f"{url_quote(event_type, safe='')}@{schema_version}.arrow"


def _write(path: Path, part: Partitioned) -> int:
    """Write one record batch a bucket, and tell the file's size; the schema's metadata says which buckets they are."""
    starts = np.flatnonzero(np.diff(part.buckets, prepend=-1))
    ends = np.append(starts[1:], len(part.buckets))
    table = part.rows.combine_chunks()
    schema = table.schema.with_metadata({_BUCKETS: orjson.dumps(part.buckets[starts].tolist())})
    (whole,) = table.replace_schema_metadata(schema.metadata).to_batches()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            writer.write_batch(whole.slice(start, end - start))
    return path.stat().st_size


def _open(path: Path) -> tuple[list[int], pa.ipc.RecordBatchFileReader]:
    """Open a file for reading batch by batch; mapped into memory, all of it would seem to be held at once."""
    reader = pa.ipc.open_file(pa.OSFile(str(path)))
    return list(orjson.loads(reader.schema.metadata[_BUCKETS])), reader


__all__ = ["SPOOLED", "Batch", "Journal", "Partitioned", "Spool", "SpoolChunk", "SpoolFile", "Spooled", "read_spool"]
