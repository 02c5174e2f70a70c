"""The events of a range of positions, from typed segments, untyped segments and commits that are not sealed yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import duckdb

from refold.event_schemas import Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.payload_parsing import Typed, typed_events
from refold.warehouse.event_log.seal import COMMIT_COLUMNS, based
from refold.warehouse.event_log.segments import segment_relations, untyped_relation
from refold.warehouse.event_log.small_batches import FEW, typed_few_events
from refold.warehouse.personal.readable_sql import register_if_needed

_names = itertools.count()


def typed_segments(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    registry: Registry,
    segments: Sequence[Segment],
    *,
    up_to: int | None = None,
) -> Typed:
    """Return the events of segments.

    Untyped segments are parsed again, because the contracts may know their events now. Events whose schema the
    contracts no longer know become invalid events, so none is lost silently.

    Args:
        connection: the connection for temporary tables.
        log: the log.
        registry: the contracts.
        segments: live segments.
        up_to: the last position to return, invalid events included; all by default.

    Returns:
        The events as they are stored: personal fields are encrypted, and the connection is prepared for a replay.

    Raises:
        DamagedLogError: a segment is missing or truncated.
    """
    if up_to is not None:
        segments = [s for s in segments if _touches(s, 0, up_to)]
    known = [s for s in segments if registry.knows(s.schema_key)]
    relations = segment_relations(log, known, registry)
    register_if_needed(connection, registry, registry.schema_keys, log.personal_data)
    untyped = untyped_relation(log, segments, registry)
    if up_to is not None:
        cut = {s.schema_key for s in known if s.last_position + s.position_base > up_to}
        relations = {s: _bounded(r, up_to) if s in cut else r for s, r in relations.items()}
        untyped = untyped and _bounded(untyped, up_to)
    if untyped is None:
        return Typed(relations, ())
    parsed = typed_events(connection, untyped, registry)
    return Typed(_joined(relations, parsed.relations), parsed.invalid_events)


def typed_range(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    registry: Registry,
    head: Head,
    *,
    schema_keys: Iterable[SchemaKey] | None,
    after: int,
    up_to: int,
) -> Typed:
    """Return the events with ``after < position <= up_to``; both positions must be ends of commits.

    Args:
        connection: the connection for temporary tables.
        log: the log.
        registry: the contracts.
        head: the end of the log, with the segments and commits that hold the events.
        schema_keys: the event types and schema versions to read; None for all.
        after: the position before the first event.
        up_to: the position of the last event.
    """
    segments = [s for s in _all_segments(head) if _touches(s, after, up_to)]
    if schema_keys is not None:
        wanted = set(schema_keys)
        segments = [s for s in segments if s.schema_key in wanted or s.untyped or not registry.knows(s.schema_key)]
    sealed = typed_segments(connection, log, registry, segments)
    within = f"position > {after} AND position <= {up_to}"
    relations = {s: f"(SELECT * FROM {r} WHERE {within})" for s, r in sealed.relations.items()}
    invalid = [b for b in sealed.invalid_events if after < b.position <= up_to]
    tail = [i for i in head.tail if i.import_id is None and i.last_position > after and i.first_position <= up_to]
    if tail:
        rows = f"SELECT * FROM {_rows(log, tail)} WHERE {within}"
        parsed = _parsed(connection, rows, registry, sum(info.events for info in tail))
        relations = _joined(relations, parsed.relations)
        invalid += parsed.invalid_events
    return Typed(relations, tuple(invalid))


def _parsed(connection: duckdb.DuckDBPyConnection, rows: str, registry: Registry, events: int) -> Typed:
    """Parse events of commits. The copy opens each file once, and not once for each schema and query plan."""
    name = f"_committed_{next(_names)}"
    connection.execute(f"CREATE TEMP TABLE {name} AS {rows}")
    if events <= FEW:
        return typed_few_events(connection, connection.sql(f"FROM {name}").to_arrow_table(), registry)
    return typed_events(connection, name, registry)


def _all_segments(head: Head) -> list[Segment]:
    imported = [based(s, info) for info in head.tail for s in info.segments]
    return [*head.sealed.segments, *imported]


def _bounded(relation: str, up_to: int) -> str:
    return f"(SELECT * FROM {relation} WHERE position <= {up_to})"


def _touches(segment: Segment, after: int, up_to: int) -> bool:
    first, last = segment.first_position + segment.position_base, segment.last_position + segment.position_base
    return last > after and first <= up_to


def _rows(log: EventLog, tail: Sequence[CommitInfo]) -> str:
    committed = parquet_relation(log.commit_paths(tail))
    return f"(SELECT {columns(COMMIT_COLUMNS)} FROM {committed})"


def _joined(left: dict[SchemaKey, str], right: dict[SchemaKey, str]) -> dict[SchemaKey, str]:
    joined = dict(left)
    for key, relation in right.items():
        joined[key] = f"(FROM {left[key]} UNION ALL BY NAME FROM {relation})" if key in left else relation
    return joined
