"""Sealing: commits become segments. This is the work of one worker; ``pipelines/seal.py`` runs it in parallel.

Two steps: :func:`repartition` reads a range of commits into one file sorted by bucket; :func:`seal_buckets` reads
some buckets out of all these files and writes them as typed segments. A manifest then makes all segments live at once;
until then no reader sees them.
"""

from __future__ import annotations

import dataclasses
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
from refold.warehouse.event_log.layout import bucket_sql
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.payload_parsing import typed_events
from refold.warehouse.event_log.segments import (
    segment_relations,
    untyped_relation,
    write_heads,
    write_segments,
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
class SealedBuckets:
    """The objects that sealing some buckets wrote, and the older objects that they replace.

    Attributes:
        segments: new segments.
        replaced: keys of the small segments that were merged into them.
        heads: new runs of stream heads.
        replaced_heads: keys of the runs that were merged into them.
    """

    segments: tuple[Segment, ...]
    replaced: tuple[str, ...] = ()
    heads: tuple[HeadsRun, ...] = ()
    replaced_heads: tuple[str, ...] = ()


def repartition(
    log: EventLog, infos: Sequence[CommitInfo], staging: ObjectStore, name: str, *, bucket_count: int
) -> tuple[str, list[int]]:
    """Read commits into one staged file, sorted by bucket.

    Returns:
        The key of the file, and the buckets of its events.
    """
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        connection = connect(threads=1, temp_directory=folder)
        path = Path(folder) / "repartitioned.parquet"
        rows = parquet_relation(log.commit_paths(infos))
        bucket = bucket_sql(bucket_count)
        sorted_rows = f"SELECT {columns(COMMIT_COLUMNS)}, {bucket} AS bucket FROM {rows} ORDER BY bucket"
        copy_to_parquet(connection, sorted_rows, path, "COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 8192")
        found = connection.execute(f"SELECT DISTINCT bucket FROM {parquet_relation([path])}").fetchall()
        return put_checked_file(staging, name, path), sorted(row[0] for row in found)


def seal_buckets(
    log: EventLog, registry: Registry, buckets: range, repartitioned: Sequence[Path], sealed: Manifest
) -> SealedBuckets:
    """Write some buckets of repartitioned events as typed segments; invalid events stay JSON, in untyped segments.

    Small segments of the same schema are merged in, so that their number stays bounded.
    """
    with connect(threads=1) as connection:
        rows = parquet_relation(repartitioned)
        connection.execute(
            f"CREATE TEMP TABLE _new AS SELECT {columns(COMMIT_COLUMNS)} FROM {rows} "
            f"WHERE bucket BETWEEN {buckets[0]} AND {buckets[-1]}"
        )
        typed = typed_events(connection, "_new", registry)
        made: list[Segment] = []
        replaced: list[str] = []
        for schema_key, relation in typed.relations.items():
            segments, merged = _write_typed(connection, log, registry, sealed, schema_key, relation)
            made += segments
            replaced += merged
        made += _write_untyped(connection, log.store, sealed.bucket_count, [e.position for e in typed.invalid_events])
        heads, replaced_heads = _write_heads(connection, log, buckets, sealed)
    return SealedBuckets(
        segments=tuple(made), replaced=tuple(replaced), heads=tuple(heads), replaced_heads=replaced_heads
    )


def _write_typed(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    registry: Registry,
    sealed: Manifest,
    schema_key: SchemaKey,
    relation: str,
) -> tuple[list[Segment], list[str]]:
    """Write new events of one schema, with small segments of it; return the segments and the keys of those merged."""
    schema, count = registry.stored_schema(*schema_key), sealed.bucket_count
    old = _to_merge(connection, relation, count, sealed.segments_of({schema_key}))
    while True:
        merged = [segment for of_bucket in old.values() for segment in of_bucket]
        both = relation
        if merged:
            names = columns([*ENVELOPE.names, *schema.names])
            known = segment_relations(log, merged, registry)[schema_key]
            both = f"(SELECT {names} FROM {relation} UNION ALL SELECT {names} FROM {known})"
        try:
            made = write_segments(
                connection,
                log.store,
                bucket_count=sealed.bucket_count,
                schema_key=schema_key,
                relation=both,
                payload=schema,
            )
        except WrittenSegmentError as error:
            if old.pop(error.bucket, None) is None:
                raise
            continue  # an old segment may be damaged: `refold events verify` names it, and new events do not wait
        return made, [s.key for s in merged]


def _to_merge(
    connection: duckdb.DuckDBPyConnection, relation: str, bucket_count: int, existing: Iterable[Segment]
) -> dict[int, list[Segment]]:
    """Select the existing segments of each bucket that are not much larger than its new rows, smallest first."""
    counts = f"SELECT {bucket_sql(bucket_count)} AS _bucket, count(*) FROM {relation} GROUP BY 1"
    rows = dict(connection.execute(counts).fetchall())
    selected: dict[int, list[Segment]] = {bucket: [] for bucket in rows}
    for segment in sorted(existing, key=lambda s: s.rows):
        if segment.untyped or segment.archive or segment.rows > _MERGE_FACTOR * rows.get(segment.bucket, 0):
            continue
        selected[segment.bucket].append(segment)
        rows[segment.bucket] += segment.rows
    return selected


def _write_untyped(
    connection: duckdb.DuckDBPyConnection, store: ObjectStore, bucket_count: int, positions: list[int]
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
        payload = pa.schema([COMMIT_SCHEMA.field("payload")])
        made += write_segments(
            connection,
            store,
            bucket_count=bucket_count,
            schema_key=schema_key,
            relation=rows,
            payload=payload,
            untyped=True,
        )
    return made


def _write_heads(
    connection: duckdb.DuckDBPyConnection, log: EventLog, buckets: range, sealed: Manifest
) -> tuple[list[HeadsRun], tuple[str, ...]]:
    runs: dict[int, list[HeadsRun]] = {}
    for run in sealed.heads:
        runs.setdefault(run.bucket, []).append(run)
    found = connection.execute(f"SELECT DISTINCT {bucket_sql(sealed.bucket_count)} FROM _new").fetchall()
    merged = [run for (bucket,) in found for run in _if_many(runs.get(bucket, []))]
    relation = "(SELECT stream_id, stream_version FROM _new"
    if merged:
        known = parquet_relation([log.heads_path(run) for run in merged])
        relation += f" UNION ALL SELECT stream_id, stream_version FROM {known}"
    return write_heads(connection, log.store, bucket_count=sealed.bucket_count, relation=relation + ")"), tuple(
        run.key for run in merged
    )


def _if_many(runs: list[HeadsRun]) -> list[HeadsRun]:
    return runs if len(runs) >= _MAX_HEADS_RUNS else []


def next_manifest(before: Manifest, tail: Sequence[CommitInfo], sealed: Iterable[SealedBuckets]) -> Manifest:
    """Return the manifest after a seal of ``tail``: with the new segments, and those of bulk imports in it."""
    groups = list(sealed)
    replaced = {key for g in groups for key in g.replaced}
    replaced_heads = {key for g in groups for key in g.replaced_heads}
    segments = [s for s in before.segments if s.key not in replaced]
    heads = [h for h in before.heads if h.key not in replaced_heads]
    imports = dict(before.imports)
    for info in tail:
        segments += [based(s, info) for s in info.segments]
        heads += info.heads_runs
        if info.import_id:
            imports[info.import_id] = info.number
    for group in groups:
        segments += group.segments
        heads += group.heads
    return Manifest(
        number=before.number + 1,
        sealed_commit=tail[-1].number,
        sealed_position=tail[-1].last_position,
        recorded_at=tail[-1].recorded_at.isoformat(),
        sealed_digest=tail[-1].digest,
        bucket_count=before.bucket_count,
        removed_before=before.removed_before,
        segments=tuple(sorted(segments, key=manifest.in_order)),
        heads=tuple(heads),
        imports=imports,
        parts=before.parts,
    )


def based(segment: Segment, info: CommitInfo) -> Segment:
    """Return a bulk import's segment with the positions of its commit."""
    return dataclasses.replace(segment, position_base=info.first_position - 1, commit_base=info.number)


def publish(log: EventLog, made: Manifest) -> bool:
    """Make a manifest the newest; return False if another sealer took its number."""
    return manifest.publish(log.store, made)


__all__ = ["SealedBuckets", "based", "next_manifest", "publish", "repartition", "seal_buckets", "untyped_relation"]
