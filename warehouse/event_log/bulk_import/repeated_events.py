"""Events of an import that their streams have already: in the log before it, or in an earlier row of it.

An event is identified by its stream and its ``event_id``. The same event again is a repeat, which is left out; another
event of the same identity is a conflict. Events are the same if event type, schema version, time, correlation,
causation and payload are; the payload is compared as canonical JSON.

One bucket is examined at a time, so memory is bounded. Only the events of an identity that occurs twice are compared.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refold.event_schemas import PayloadError, Registry
from refold.event_schemas.payload import from_json, read_stored
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns, literal
from refold.warehouse.event_log.bulk_import.spool import Spooled
from refold.warehouse.event_log.canonical_sql import canonical_text
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.seal import based
from refold.warehouse.event_log.segments import segment_relations, untyped_relation

_CONTENT = ("occurred_at", "correlation_id", "causation_id")
_COMPARED = ("position", "stream_id", "event_id", *_CONTENT)

# Hashes find the buckets in which an identity occurs twice; the identities themselves decide.
_HAS_TWINS = "SELECT count(*) > count(DISTINCT hash(stream_id, event_id)) FROM _ids"
_TWINS = "SELECT stream_id, event_id FROM _ids GROUP BY ALL HAVING count(*) > 1"
_KNOWN = "SELECT DISTINCT stream_id, event_id FROM _ids SEMI JOIN ({known}) USING (stream_id, event_id)"

# The log's events come first, then the import's in their order. All that follow the first are left out, if the log, or
# the first, has the same content.
_COMPARISON = """
WITH ordered AS (
    SELECT *, row_number() OVER (PARTITION BY stream_id, event_id ORDER BY in_log DESC, position) AS n FROM _contents
),
anchors AS (SELECT stream_id, event_id, content, in_log, position FROM ordered WHERE in_log = 1 OR n = 1)
SELECT
    r.position,
    r.stream_id,
    r.event_id,
    first(a.in_log ORDER BY a.position) AS in_log,
    first(a.position ORDER BY a.position) AS other,
    bool_or(coalesce(a.content = r.content, false))::TINYINT AS same
FROM ordered r JOIN anchors a USING (stream_id, event_id)
WHERE r.in_log = 0 AND r.n > 1
GROUP BY ALL
ORDER BY r.position
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConflict:
    """Two events of one identity that are not the same.

    Attributes:
        stream_id: of both.
        event_id: of both.
        position: of the later one in the import.
        other: position of the earlier one, in the log or in the import.
        in_log: whether the earlier one is in the log: 1 or 0.
    """

    stream_id: str
    event_id: str
    position: int
    other: int
    in_log: int


@dataclass(frozen=True, slots=True)
class Repeats:
    """What an import has again.

    Attributes:
        positions: of the repeated events in the import, sorted.
        conflicts: how many events have the identity of another event.
        first: the first of them.
    """

    positions: np.ndarray[Any, np.dtype[np.int64]]
    conflicts: int
    first: EventConflict | None


@dataclass(frozen=True)
class KnownEvents:
    """The events of a log up to its end at some time.

    Attributes:
        log: the log.
        head: its end.
    """

    log: EventLog
    head: Head

    def segments(self, bucket: int) -> list[Segment]:
        """Return the segments of a bucket."""
        imported = (based(s, info) for info in self.head.tail for s in info.segments)
        return [s for s in (*self.head.sealed.segments, *imported) if s.bucket == bucket]

    @cached_property
    def commits(self) -> str:
        """The relation of the rows of unsealed commits; empty if there are none."""
        infos = [info for info in self.head.tail if info.import_id is None]
        return parquet_relation(self.log.commit_paths(infos)) if infos else ""

    @cached_property
    def committed(self) -> pa.Table:
        """The identities of the unsealed commits, read once for all buckets."""
        with connect() as connection:
            return connection.sql(f"SELECT stream_id, event_id FROM {self.commits}").to_arrow_table()

    def identities(self, connection: duckdb.DuckDBPyConnection, bucket: int) -> list[str]:
        """Return the relations that have the identities of a bucket."""
        segments = self.segments(bucket)
        relations = [parquet_relation([self.log.segment_path(s) for s in segments])] if segments else []
        if self.commits:
            connection.register("_committed", self.committed)
            relations.append("_committed")
        return [f"SELECT stream_id, event_id FROM {relation}" for relation in relations]


def find_repeats(
    spooled: Spooled, registry: Registry, known: KnownEvents | None, *, compares_times: bool, workers: int = 1
) -> Repeats:
    """Find the events of a spooled import that are repeats, and those that are in conflict.

    Args:
        spooled: the import.
        registry: the contracts.
        known: the log's events; None if all streams are new to it.
        compares_times: whether ``occurred_at`` is part of an event; not if it is the time of the import.
        workers: how many buckets are examined concurrently.
    """
    if known is None and not spooled.has_twins():
        return Repeats(np.empty(0, np.int64), 0, None)
    finder = _Finder(spooled, registry, known, compares_times)
    with finder.connections, ThreadPoolExecutor(workers) as pool:
        if known is not None and known.commits:
            known.committed  # noqa: B018  (once, before the threads ask for it)
        tables = [found for found in pool.map(finder.find, spooled.buckets()) if found is not None]
    if not tables:
        return Repeats(np.empty(0, np.int64), 0, None)
    found = pa.concat_tables(tables).sort_by("position")
    conflicts = found.filter(pc.equal(found["same"], 0)).drop_columns(["same"])
    first = EventConflict(**conflicts.slice(0, 1).to_pylist()[0]) if len(conflicts) else None
    return Repeats(found["position"].to_numpy(), len(conflicts), first)


@dataclass(frozen=True, slots=True)
class _Finder:
    spooled: Spooled
    registry: Registry
    known: KnownEvents | None
    compares_times: bool
    connections: ExitStack = field(default_factory=ExitStack)
    own: threading.local = field(default_factory=threading.local)

    def find(self, bucket: int) -> pa.Table | None:
        """Return the rows of ``_COMPARISON`` for a bucket; None if no identity occurs twice."""
        if not hasattr(self.own, "connection"):
            self.own.connection = self.connections.enter_context(connect(threads=1))
        connection: duckdb.DuckDBPyConnection = self.own.connection
        connection.register("_ids", self.spooled.identities(bucket))
        twins = self._twins(connection, bucket)
        if not len(twins):
            return None
        connection.register("_twins", twins)
        parts = [*self._spooled_contents(connection, bucket)]
        if self.known is not None:
            parts += self._known_contents(connection, self.known, bucket)
        connection.register("_contents", pa.concat_tables(parts))
        return connection.sql(_COMPARISON).to_arrow_table()

    def _twins(self, connection: duckdb.DuckDBPyConnection, bucket: int) -> pa.Table:
        queries = []
        if connection.execute(_HAS_TWINS).fetchall()[0][0]:
            queries.append(_TWINS)
        if self.known is not None:
            queries += [_KNOWN.format(known=relation) for relation in self.known.identities(connection, bucket)]
        if not queries:
            return pa.table({"stream_id": pa.array([], pa.string())})
        return connection.sql(" UNION ".join(queries)).to_arrow_table()

    def _spooled_contents(self, connection: duckdb.DuckDBPyConnection, bucket: int) -> Iterator[pa.Table]:
        for schema_key, batches in self.spooled.read_bucket(bucket).items():
            rows = pa.concat_tables(
                pa.Table.from_batches([b.rows]).set_column(
                    0, "position", pa.array(b.rows["position"].to_numpy() + b.base, pa.int64())
                )
                for b in batches
            )
            connection.register("_rows", rows)
            yield self._contents(connection, schema_key, "_rows", in_log=False)

    def _known_contents(
        self, connection: duckdb.DuckDBPyConnection, known: KnownEvents, bucket: int
    ) -> Iterator[pa.Table]:
        declared = [s for s in known.segments(bucket) if self.registry.knows(s.schema_key)]
        for schema_key, relation in segment_relations(known.log, declared, self.registry).items():
            yield self._contents(connection, schema_key, relation, in_log=True)
        untyped = untyped_relation(known.log, known.segments(bucket), self.registry)
        for relation in filter(None, [untyped, known.commits]):
            yield from self._stored_contents(connection, relation)

    def _stored_contents(self, connection: duckdb.DuckDBPyConnection, relation: str) -> Iterator[pa.Table]:
        """Return the contents of events that are stored as text."""
        names = columns([*_COMPARED, "event_type", "schema_version", "payload"])
        rows = connection.sql(f"SELECT {names} FROM {relation} SEMI JOIN _twins USING (stream_id, event_id)")
        by_schema: dict[SchemaKey, list[dict[str, Any]]] = {}
        for row in rows.to_arrow_table().to_pylist():
            by_schema.setdefault((row["event_type"], row["schema_version"]), []).append(row)
        for schema_key, stored in by_schema.items():
            table, invalid = _typed(stored, self.registry, schema_key)
            if len(table):
                connection.register("_stored", table)
                yield self._contents(connection, schema_key, "_stored", in_log=True)
            if len(invalid):
                yield invalid

    def _contents(
        self, connection: duckdb.DuckDBPyConnection, schema_key: SchemaKey, relation: str, *, in_log: bool
    ) -> pa.Table:
        schema = self.registry.stored_schema(*schema_key)
        payload = canonical_text(schema, "_e") if len(schema) else "'{}'"
        time = "epoch_us(_e.occurred_at)" if self.compares_times else "0"
        parts = [literal(f"{schema_key[1]} {schema_key[0]}"), time, "_e.correlation_id", "_e.causation_id", payload]
        content = f"md5(CAST(to_json([{', '.join(f'CAST({part} AS VARCHAR)' for part in parts)}]) AS VARCHAR))"
        return connection.sql(
            f"SELECT position::BIGINT AS position, stream_id, event_id, {content} AS content, "
            f"{in_log:d}::TINYINT AS in_log FROM {relation} AS _e SEMI JOIN _twins USING (stream_id, event_id)"
        ).to_arrow_table()


def _typed(stored: Sequence[Mapping[str, Any]], registry: Registry, schema_key: SchemaKey) -> tuple[pa.Table, pa.Table]:
    """Return stored events with their payloads as columns, and those that have no valid payload, as contents."""
    valid, payloads, invalid = [], [], []
    schema = registry.stored_schema(*schema_key) if registry.knows(schema_key) else None
    for row in stored:
        try:
            if schema is None:
                raise PayloadError
            payloads.append(from_json(read_stored(row["payload"], schema), schema))
            valid.append(row)
        except PayloadError:
            invalid.append(row)
    envelope = {name: pa.array([row[name] for row in valid]) for name in _COMPARED}
    fields = {f.name: array_of([p[f.name] for p in payloads], f.type) for f in schema or ()}
    return pa.table(envelope | fields), pa.table(
        {
            **{name: pa.array([row[name] for row in invalid]) for name in ("position", "stream_id", "event_id")},
            "content": pa.nulls(len(invalid), pa.string()),
            "in_log": pa.array([1] * len(invalid), pa.int8()),
        }
    )
