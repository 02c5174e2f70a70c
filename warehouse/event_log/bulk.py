"""Bulk import: a history becomes segments directly, and one commit that names them makes it part of the log.

Chunks of typed events are spooled by bucket to local disk, so memory does not grow with the history. Then each bucket is
sorted by stream and written as segments. A bulk writer wins its commit number only at the very end, so positions inside its
segments are relative, and its streams must be new to the log. The spool keeps a journal: a killed import goes on behind
the last chunk that was spooled whole.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote
from urllib.parse import unquote

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from event_schemas import ENVELOPE, LogError, Registry
from event_schemas.registry import Shape
from warehouse.duck import connect
from warehouse.event_log import commit
from warehouse.event_log.commit import CommitInfo
from warehouse.event_log.heads import files_literal, heads_path
from warehouse.event_log.layout import commit_key
from warehouse.event_log.log import EventLog, Head
from warehouse.event_log.manifest import HeadsRun
from warehouse.event_log.sealing import SealedBucket
from warehouse.event_log.segments import write_heads, write_segment
from warehouse.sql import columns, literal

SPOOLED = ("position", "stream_id", "event_id", "occurred_at", "correlation_id", "causation_id")
"""Envelope columns that a chunk brings; ``position`` counts from 1 through the whole import."""

_IPC = pa.ipc.IpcWriteOptions(compression="lz4")
_COMMIT_NAMESPACE = uuid.UUID("6d1f8f0e-7d5c-4b07-9d0b-6b8e7a3c51f2")


class StreamsNotNewError(LogError):
    """A stream of the import has events in the log already: it must go through ordinary commits.

    Attributes:
        stream_id: one such stream.
    """

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        super().__init__(
            f"Stream {stream_id!r} has events in the log already, so this import cannot be published as segments. It "
            "must go through ordinary commits."
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Cross process borders with its attribute."""
        return (StreamsNotNewError, (self.stream_id,))


@dataclass(slots=True)
class Journal:
    """How far a spool is; written after each chunk.

    Attributes:
        events: events spooled.
        recorded_at: when the import began, which is when its events were recorded.
        source: whatever the reader of the source needs to go on.
        sizes: spool file to its length.
    """

    events: int = 0
    recorded_at: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


class Spool:
    """Events of one import on local disk, by bucket and shape.

    Args:
        folder: kept between runs of the same import; whatever a killed run left unfinished in it is cut off.
        bucket_count: of the log.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Spool(Path(folder), bucket_count=4).journal.events
        0
    """

    def __init__(self, folder: Path, *, bucket_count: int) -> None:
        self._folder = folder
        self._bucket_count = bucket_count
        self._files = folder / "spool"
        self._files.mkdir(parents=True, exist_ok=True)
        self.journal = self._recover()

    def add(
        self,
        connection: duckdb.DuckDBPyConnection,
        relations: Mapping[Shape, str],
        payloads: Mapping[Shape, Sequence[str]],
        *,
        source: Mapping[str, Any],
    ) -> int:
        """Spool one chunk, whole or not at all.

        Args:
            connection: where the relations can be queried.
            relations: shape to an SQL relation with ``SPOOLED`` and the payload's columns, typed.
            payloads: shape to the names of the payload's columns.
            source: what the journal shall keep for the reader of the source.

        Returns:
            How many events it held.
        """
        added = 0
        for shape, relation in relations.items():
            bucket = f"(md5_number_lower(stream_id) % {self._bucket_count})::INTEGER AS _bucket"
            select = f"SELECT {columns([*SPOOLED, *payloads[shape]])}, {bucket} FROM {relation} ORDER BY _bucket"
            added += self._write(shape, connection.sql(select).to_arrow_table())
        self.journal.events += added
        self.journal.source = dict(source)
        self._save()
        return added

    def buckets(self) -> list[int]:
        """Name the buckets that have events."""
        return sorted({int(name.split("/")[0]) for name in self.journal.sizes})

    def _write(self, shape: Shape, table: pa.Table) -> int:
        buckets = table["_bucket"].to_numpy()
        table = table.drop_columns(["_bucket"]).combine_chunks()
        edges = np.flatnonzero(np.diff(buckets)) + 1
        starts = [0, *edges.tolist()] if len(buckets) else []
        for start, end in zip(starts, [*edges.tolist(), len(buckets)], strict=False):
            name = _spool_name(int(buckets[start]), shape)
            path = self._files / name
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file, pa.ipc.new_stream(file, table.schema, options=_IPC) as writer:
                writer.write_table(table.slice(start, end - start))
            self.journal.sizes[name] = path.stat().st_size
        return len(table)

    def _save(self) -> None:
        journal = self.journal
        data = orjson.dumps(
            {
                "events": journal.events,
                "recorded_at": journal.recorded_at,
                "source": journal.source,
                "sizes": journal.sizes,
            }
        )
        temporary = self._folder / "journal.json.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, self._folder / "journal.json")

    def _recover(self) -> Journal:
        path = self._folder / "journal.json"
        journal = Journal(**orjson.loads(path.read_bytes())) if path.exists() else Journal()
        journal.recorded_at = journal.recorded_at or datetime.now(UTC).isoformat()
        for file in self._files.rglob("*.arrows"):
            length = journal.sizes.get(file.relative_to(self._files).as_posix(), 0)
            if file.stat().st_size > length:
                os.truncate(file, length)
        return journal


def _spool_name(bucket: int, shape: Shape) -> str:
    return f"{bucket:04d}/{url_quote(shape[0], safe='')}@{shape[1]}.arrows"


def _read_spool(folder: Path, bucket: int) -> dict[Shape, pa.Table]:
    found: dict[Shape, pa.Table] = {}
    for path in sorted((folder / "spool" / f"{bucket:04d}").glob("*.arrows")):
        event_type, _, version = path.stem.rpartition("@")
        if path.stat().st_size:
            found[(unquote(event_type), int(version))] = pa.concat_tables(_streams(path))
    return found


def _streams(path: Path) -> Iterator[pa.Table]:
    with pa.memory_map(str(path)) as source:
        while source.tell() < source.size():
            yield pa.ipc.open_stream(source).read_all()


def build_bucket(log: EventLog, registry: Registry, folder: Path, bucket: int, recorded_at: str) -> SealedBucket:
    """Write one spooled bucket as segments, and the heads of its streams."""
    connection = connect(threads=1)
    tables = _read_spool(folder, bucket)
    names = {shape: f"_spool_{i}" for i, shape in enumerate(tables)}
    for shape, table in tables.items():
        connection.register(names[shape], table)
    union = " UNION ALL ".join(f"SELECT position, stream_id FROM {name}" for name in names.values())
    connection.execute(
        "CREATE TEMP TABLE _versions AS SELECT position, stream_id, "
        f"row_number() OVER (PARTITION BY stream_id ORDER BY position) AS stream_version FROM ({union})"
    )
    segments = [
        write_segment(
            connection,
            log.store,
            shape=shape,
            bucket=bucket,
            relation=_enveloped(name, recorded_at),
            payload=registry.schema(*shape).names,
        )
        for shape, name in names.items()
    ]
    heads = write_heads(connection, log.store, bucket=bucket, relation="_versions")
    return SealedBucket(bucket=bucket, segments=tuple(s for s in segments if s), heads=(heads,) if heads else ())


def _enveloped(name: str, recorded_at: str) -> str:
    brought = {"position", "stream_id", "event_id", "occurred_at", "correlation_id", "causation_id"}
    told = {"commit_number": "0::BIGINT", "recorded_at": f"TIMESTAMPTZ {literal(recorded_at)}"}
    envelope = [f"{sql} AS {column}" for column, sql in told.items()]
    assert brought | set(told) | {"stream_version", "event_type", "schema_version"} == set(ENVELOPE.names)
    return (
        f"(SELECT e.*, {', '.join(envelope)}, v.stream_version "
        f"FROM {name} e JOIN (SELECT position, stream_version FROM _versions) v USING (position))"
    )


def publish_import(
    log: EventLog, import_id: str, events: int, recorded_at: str, built: Sequence[SealedBucket]
) -> CommitInfo:
    """Make an import part of the log, with one commit that names its segments.

    Args:
        log: the log.
        import_id: identity of the import; a second publish of the same finds the first.
        events: how many events its segments hold.
        recorded_at: when they were recorded, RFC 3339.
        built: its buckets.

    Raises:
        StreamsNotNewError: the log has events of one of its streams; nothing was published.
    """
    heads = tuple(h for b in built for h in b.heads)
    segments = tuple(s for b in built for s in b.segments)
    while True:
        head = log.head()
        if (found := find_import(log, head, import_id)) is not None:
            return found
        with connect() as connection:
            if overlap := existing_streams(connection, log, head, heads):
                raise StreamsNotNewError(overlap[0])
        info = CommitInfo(
            number=head.commit + 1,
            uuid=str(uuid.uuid5(_COMMIT_NAMESPACE, import_id)),
            first_position=head.position + 1,
            last_position=head.position + events,
            recorded_at=max(datetime.fromisoformat(recorded_at), _recorded_at(head)),
            segments=segments,
            heads_runs=heads,
            import_id=import_id,
        )
        if log.store.put_if_absent(commit_key(info.number), commit.encode(info, ())):
            return info


def _recorded_at(head: Head) -> datetime:
    return datetime.fromisoformat(head.recorded_at or "1970-01-01T00:00:00+00:00")


def find_import(log: EventLog, head: Head, import_id: str) -> CommitInfo | None:
    """Find the commit of an import that was published before."""
    for info in head.tail:
        if info.import_id == import_id:
            return info
    number = head.sealed.imports.get(import_id)
    return log.commit_info(number) if number is not None else None


def existing_streams(
    connection: duckdb.DuckDBPyConnection, log: EventLog, head: Head, runs: Sequence[HeadsRun], *, limit: int = 1
) -> list[str]:
    """Name streams of some runs that have events in the log already.

    Args:
        connection: any.
        log: the log.
        head: its end.
        runs: the streams of an import.
        limit: how many to name at most.
    """
    in_tail = sorted({s for info in head.tail for s in info.heads})
    in_runs = [*head.sealed.heads, *(h for info in head.tail for h in info.heads_runs)]
    connection.register("_tail_streams", pa.table({"stream_id": pa.array(in_tail, pa.string())}))
    for bucket in sorted({r.bucket for r in runs}):
        mine = files_literal([heads_path(log, r) for r in runs if r.bucket == bucket])
        others = [heads_path(log, r) for r in in_runs if r.bucket == bucket]
        known = "SELECT stream_id FROM _tail_streams"
        if others:
            known += f" UNION ALL SELECT stream_id FROM read_parquet({files_literal(others)})"
        found = connection.execute(
            f"SELECT stream_id FROM read_parquet({mine}) SEMI JOIN ({known}) USING (stream_id) LIMIT {limit}"
        ).fetchall()
        if found:
            return [row[0] for row in found]
    return []
