"""Sealing: commits become segments. What one worker does; ``pipelines/seal.py`` runs it in parallel.

Two steps: ``gather`` reads a range of commits into one file sorted by bucket; ``seal_bucket`` reads one bucket out of
all gathered files and writes it as typed segments. A manifest then makes them live all at once; until then nobody sees
them.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from refold.event_schemas import ENVELOPE, Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import columns, literal
from refold.warehouse.event_log import manifest
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.heads import files_literal, heads_path
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.event_log.payload_parsing import typed_events
from refold.warehouse.event_log.segments import (
    segment_relations,
    untyped_relation,
    write_heads,
    write_segment,
)
from refold.warehouse.object_store import ObjectStore

_MERGE_FACTOR = 4
_HEADS_RUNS = 8
COMMIT_COLUMNS = (*ENVELOPE.names, "payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBucket:
    """What sealing one bucket made, and which older objects it replaces.

    Attributes:
        bucket: which one.
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


def repartition(log: EventLog, numbers: list[int], staging: ObjectStore, key: str) -> list[int]:
    """Read commits into one staged file, sorted by bucket.

    Returns:
        The buckets that have events in it.
    """
    with tempfile.TemporaryDirectory(prefix="refold-") as folder:
        connection = connect(threads=1, temp_directory=folder)
        path = Path(folder) / "gathered.parquet"
        files = files_literal(log.commit_paths(numbers))
        bucket = f"(md5_number_lower(stream_id) % {log.bucket_count})::INTEGER AS bucket"
        source = f"SELECT {columns(COMMIT_COLUMNS)}, {bucket} FROM read_parquet({files}, hive_partitioning = false)"
        connection.execute(
            f"COPY ({source} ORDER BY bucket) TO {literal(str(path))} "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 8192)"
        )
        found = connection.execute(f"SELECT DISTINCT bucket FROM read_parquet({literal(str(path))})").fetchall()
        staging.put_file(key, path)
        return sorted(row[0] for row in found)


def seal_bucket(
    log: EventLog, registry: Registry, bucket: int, gathered: Sequence[Path], sealed: Manifest
) -> SealedBucket:
    """Write one bucket of gathered events as typed segments; what fits no contract stays JSON, in raw segments.

    Small segments of the same shape are merged in, so that their number stays bounded.
    """
    connection = connect(threads=1)
    files = files_literal(list(gathered))
    connection.execute(
        f"CREATE TEMP TABLE _new AS SELECT {columns(COMMIT_COLUMNS)} FROM read_parquet({files}) WHERE bucket = {bucket}"
    )
    typed = typed_events(connection, "_new", registry)
    made: list[Segment] = []
    replaced: list[str] = []
    for schema_key, relation in typed.relations.items():
        old = _small_ones(connection, relation, [s for s in sealed.segments_of({schema_key}, bucket) if not s.untyped])
        schema = registry.schema(*schema_key)
        if old:
            merged = segment_relations(log, old, registry)[schema_key]
            names = columns([*ENVELOPE.names, *schema.names])
            relation = f"(SELECT {names} FROM {relation} UNION ALL SELECT {names} FROM {merged})"
        segment = write_segment(
            connection, log.store, schema_key=schema_key, bucket=bucket, relation=relation, payload=schema.names
        )
        made += [segment] if segment else []
        replaced += [s.key for s in old] if segment else []
    made += _write_raw(connection, log, bucket, [b.position for b in typed.invalid_events])
    heads, replaced_heads = _write_heads(connection, log, bucket, sealed)
    return SealedBucket(
        bucket=bucket,
        segments=tuple(made),
        replaced=tuple(replaced),
        heads=heads,
        replaced_heads=replaced_heads,
    )


def _small_ones(connection: duckdb.DuckDBPyConnection, relation: str, existing: Iterable[Segment]) -> list[Segment]:
    """Pick existing segments that are not much larger than what comes: so each event is rewritten few times."""
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    rows = int(row[0]) if row else 0
    picked: list[Segment] = []
    for segment in sorted(existing, key=lambda s: s.rows):
        if segment.rows > _MERGE_FACTOR * rows:
            break
        picked.append(segment)
        rows += segment.rows
    return picked


def _write_raw(
    connection: duckdb.DuckDBPyConnection, log: EventLog, bucket: int, positions: list[int]
) -> list[Segment]:
    if not positions:
        return []
    told = ", ".join(map(str, positions))
    schema_keys: list[SchemaKey] = connection.execute(
        f"SELECT DISTINCT event_type, schema_version FROM _new WHERE position IN ({told}) ORDER BY ALL"
    ).fetchall()
    made = []
    for schema_key in schema_keys:
        rows = (
            f"(SELECT * FROM _new WHERE position IN ({told}) AND event_type = {literal(schema_key[0])} "
            f"AND schema_version = {schema_key[1]})"
        )
        made.append(
            write_segment(
                connection,
                log.store,
                schema_key=schema_key,
                bucket=bucket,
                relation=rows,
                payload=["payload"],
                untyped=True,
            )
        )
    return [m for m in made if m]


def _write_heads(
    connection: duckdb.DuckDBPyConnection, log: EventLog, bucket: int, sealed: Manifest
) -> tuple[tuple[HeadsRun, ...], tuple[str, ...]]:
    old = [h for h in sealed.heads if h.bucket == bucket]
    merged = old if len(old) >= _HEADS_RUNS else []
    relation = "(SELECT stream_id, stream_version FROM _new"
    if merged:
        files = files_literal([heads_path(log, h) for h in merged])
        relation += f" UNION ALL SELECT stream_id, stream_version FROM read_parquet({files})"
    run = write_heads(connection, log.store, bucket=bucket, relation=relation + ")")
    return ((run,) if run else ()), tuple(h.key for h in merged)


def next_manifest(before: Manifest, tail: Sequence[CommitInfo], sealed: Iterable[SealedBucket]) -> Manifest:
    """Write the manifest after a seal of ``tail``: the new segments, and those of bulk imports in it."""
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
        segments=tuple(sorted(segments, key=lambda s: (s.event_type, s.schema_version, s.bucket, s.first_position))),
        heads=tuple(heads),
        imports=imports,
    )


def based(segment: Segment, info: CommitInfo) -> Segment:
    """Place a bulk import's segment at the positions that its commit won."""
    return dataclasses.replace(segment, position_base=info.first_position - 1, commit_base=info.number)


def publish(log: EventLog, made: Manifest) -> bool:
    """Make a manifest the newest; False if another sealer published its number first."""
    return manifest.publish(log.store, made)


__all__ = ["SealedBucket", "based", "next_manifest", "publish", "repartition", "seal_bucket", "untyped_relation"]
