"""Sealing: commits become segments. This is the work of one worker; ``pipelines/seal.py`` runs it in parallel.

Two steps: :func:`repartition` reads a range of commits into one file sorted by bucket; :func:`seal_bucket` reads one
bucket out of all these files and writes it as typed segments. A manifest then makes all segments live at once; until
then no reader sees them.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from refold.event_schemas import ENVELOPE, Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import copy_to_parquet, parquet_relation
from refold.warehouse.engine.sql import columns, literal
from refold.warehouse.event_log import manifest
from refold.warehouse.event_log.commit import COMMIT_SCHEMA, CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.payload_parsing import typed_events
from refold.warehouse.event_log.segments import (
    segment_relations,
    untyped_relation,
    write_heads,
    write_segment,
)
from refold.warehouse.event_log.written_segments import WrittenSegmentError
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.checked_files import put_checked_file

_MERGE_FACTOR = 4
"""A segment is merged in if it has at most this many times the new rows: so an event is rewritten O(log n) times."""

_MAX_HEADS_RUNS = 8
"""Runs of stream heads of a bucket, each of which a lookup opens; beyond it they are merged."""

COMMIT_COLUMNS = (*ENVELOPE.names, "payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBucket:
    """The objects that sealing one bucket wrote, and the older objects that they replace.

    Attributes:
        bucket: the bucket.
        segments: new segments.
        replaced: keys of the small segments that were merged into them.
        heads: the new run of stream heads.
        replaced_heads: keys of the runs that were merged into it.
    """

    bucket: int
    segments: tuple[Segment, ...]
    replaced: tuple[str, ...] = ()
    heads: tuple[HeadsRun, ...] = ()
    replaced_heads: tuple[str, ...] = ()


def repartition(log: EventLog, infos: Sequence[CommitInfo], staging: ObjectStore, name: str) -> tuple[str, list[int]]:
    """Read commits into one staged file, sorted by bucket.

    Returns:
        The key of the file, and the buckets of its events.
    """
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        connection = connect(threads=1, temp_directory=folder)
        path = Path(folder) / "repartitioned.parquet"
        rows = parquet_relation(log.commit_paths(infos))
        bucket = f"(md5_number_lower(stream_id) % {log.bucket_count})::INTEGER AS bucket"
        sorted_rows = f"SELECT {columns(COMMIT_COLUMNS)}, {bucket} FROM {rows} ORDER BY bucket"
        copy_to_parquet(connection, sorted_rows, path, "COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 8192")
        found = connection.execute(f"SELECT DISTINCT bucket FROM {parquet_relation([path])}").fetchall()
        return put_checked_file(staging, name, path), sorted(row[0] for row in found)


def seal_bucket(
    log: EventLog, registry: Registry, bucket: int, repartitioned: Sequence[Path], sealed: Manifest
) -> SealedBucket:
    """Write one bucket of repartitioned events as typed segments; invalid events stay JSON, in untyped segments.

    Small segments of the same schema are merged in, so that their number stays bounded.
    """
    connection = connect(threads=1)
    rows = parquet_relation(repartitioned)
    connection.execute(
        f"CREATE TEMP TABLE _new AS SELECT {columns(COMMIT_COLUMNS)} FROM {rows} WHERE bucket = {bucket}"
    )
    typed = typed_events(connection, "_new", registry)
    made: list[Segment] = []
    replaced: list[str] = []
    for schema_key, relation in typed.relations.items():
        segment, merged = _write_typed(connection, log, registry, sealed, schema_key, bucket, relation)
        made += [segment] if segment else []
        replaced += merged
    made += _write_untyped(connection, log, bucket, [e.position for e in typed.invalid_events])
    heads, replaced_heads = _write_heads(connection, log, bucket, sealed)
    return SealedBucket(
        bucket=bucket,
        segments=tuple(made),
        replaced=tuple(replaced),
        heads=heads,
        replaced_heads=replaced_heads,
    )


def _write_typed(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    registry: Registry,
    sealed: Manifest,
    schema_key: SchemaKey,
    bucket: int,
    relation: str,
) -> tuple[Segment | None, list[str]]:
    """Write new events of one schema, with small segments of it; return the segment and the keys of those merged."""
    schema = registry.stored_schema(*schema_key)
    write = functools.partial(
        write_segment, connection, log.store, schema_key=schema_key, bucket=bucket, payload=schema
    )
    known = sealed.segments_of({schema_key}, bucket)
    old = _to_merge(connection, relation, [s for s in known if not s.untyped and not s.archive])
    if old:
        merged = segment_relations(log, old, registry)[schema_key]
        names = columns([*ENVELOPE.names, *schema.names])
        both = f"(SELECT {names} FROM {relation} UNION ALL SELECT {names} FROM {merged})"
        try:
            segment = write(relation=both)
            return segment, [s.key for s in old] if segment else []
        except WrittenSegmentError:
            pass  # an old segment may be damaged: `refold events verify` names it, and new events do not wait for it
    return write(relation=relation), []


def _to_merge(connection: duckdb.DuckDBPyConnection, relation: str, existing: Iterable[Segment]) -> list[Segment]:
    """Select existing segments that are not much larger than the new rows, smallest first."""
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    rows = int(row[0]) if row else 0
    selected: list[Segment] = []
    for segment in sorted(existing, key=lambda s: s.rows):
        if segment.rows > _MERGE_FACTOR * rows:
            break
        selected.append(segment)
        rows += segment.rows
    return selected


def _write_untyped(
    connection: duckdb.DuckDBPyConnection, log: EventLog, bucket: int, positions: list[int]
) -> list[Segment]:
    if not positions:
        return []
    listed = ", ".join(map(str, positions))
    schema_keys: list[SchemaKey] = connection.execute(
        f"SELECT DISTINCT event_type, schema_version FROM _new WHERE position IN ({listed}) ORDER BY ALL"
    ).fetchall()
    made = []
    for schema_key in schema_keys:
        rows = (
            f"(SELECT * FROM _new WHERE position IN ({listed}) AND event_type = {literal(schema_key[0])} "
            f"AND schema_version = {schema_key[1]})"
        )
        made.append(
            write_segment(
                connection,
                log.store,
                schema_key=schema_key,
                bucket=bucket,
                relation=rows,
                payload=pa.schema([COMMIT_SCHEMA.field("payload")]),
                untyped=True,
            )
        )
    return [m for m in made if m]


def _write_heads(
    connection: duckdb.DuckDBPyConnection, log: EventLog, bucket: int, sealed: Manifest
) -> tuple[tuple[HeadsRun, ...], tuple[str, ...]]:
    old = [h for h in sealed.heads if h.bucket == bucket]
    merged = old if len(old) >= _MAX_HEADS_RUNS else []
    relation = "(SELECT stream_id, stream_version FROM _new"
    if merged:
        runs = parquet_relation([log.heads_path(h) for h in merged])
        relation += f" UNION ALL SELECT stream_id, stream_version FROM {runs}"
    run = write_heads(connection, log.store, bucket=bucket, relation=relation + ")")
    return ((run,) if run else ()), tuple(h.key for h in merged)


def next_manifest(before: Manifest, tail: Sequence[CommitInfo], sealed: Iterable[SealedBucket]) -> Manifest:
    """Return the manifest after a seal of ``tail``: with the new segments, and those of bulk imports in it."""
    buckets = list(sealed)
    replaced = {key for b in buckets for key in b.replaced}
    replaced_heads = {key for b in buckets for key in b.replaced_heads}
    segments = [s for s in before.segments if s.key not in replaced]
    heads = [h for h in before.heads if h.key not in replaced_heads]
    imports = dict(before.imports)
    for info in tail:
        segments += [based(s, info) for s in info.segments]
        heads += info.heads_runs
        if info.import_id:
            imports[info.import_id] = info.number
    for bucket in buckets:
        segments += bucket.segments
        heads += bucket.heads
    return Manifest(
        number=before.number + 1,
        sealed_commit=tail[-1].number,
        sealed_position=tail[-1].last_position,
        recorded_at=tail[-1].recorded_at.isoformat(),
        sealed_digest=tail[-1].digest,
        removed_before=before.removed_before,
        segments=tuple(sorted(segments, key=lambda s: (s.event_type, s.schema_version, s.bucket, s.first_position))),
        heads=tuple(heads),
        imports=imports,
    )


def based(segment: Segment, info: CommitInfo) -> Segment:
    """Return a bulk import's segment with the positions of its commit."""
    return dataclasses.replace(segment, position_base=info.first_position - 1, commit_base=info.number)


def publish(log: EventLog, made: Manifest) -> bool:
    """Make a manifest the newest; return False if another sealer took its number."""
    return manifest.publish(log.store, made)


__all__ = ["SealedBucket", "based", "next_manifest", "publish", "repartition", "seal_bucket", "untyped_relation"]
