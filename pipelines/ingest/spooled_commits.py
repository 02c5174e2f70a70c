"""A spooled import as ordinary commits, for streams that the log has already."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import Registry
from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.event_schemas.payload import canonical_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.bulk_import.batch_commits import BATCH_SCHEMA, BatchAppender
from refold.warehouse.event_log.bulk_import.commit_ranges import commit_ranges
from refold.warehouse.event_log.bulk_import.spool import Spooled
from refold.warehouse.event_log.bulk_import.spool_journal import damaged_import
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store.records import RecordError, decode_json

_BATCHES = uuid.UUID("0c1b7a52-5f0b-4a53-9a0e-6d6b6ff0a6a8")
_SEAL_AFTER = 1_000
"""Commits of the import after which the log is sealed, since every reader lists the unsealed ones."""

_WINDOW_EVENTS = 200_000
"""Events whose streams are looked up at a time, and after which the journal is written."""

JOURNAL = "commits.json"


@dataclass(frozen=True, slots=True)
class Committed:
    """How far the commits of an import are; kept in a file beside the spool.

    Attributes:
        commit: the log's last commit before any of its own.
        commit_events: events of a commit.
        commits: its commits so far.
        events: events in its commits.
    """

    commit: int
    commit_events: int
    commits: int = 0
    events: int = 0


def commit_spooled(
    log: EventLog,
    registry: Registry,
    import_id: str,
    spooled: Spooled,
    *,
    commit_events: int,
    seal: Callable[[], object],
    report: Callable[[int], None],
) -> Committed:
    """Commit a spooled import in batches, in the order of its events.

    Batches that a killed run committed are found by their UUIDs.

    Args:
        log: the log.
        registry: the contracts.
        import_id: identity of the import.
        spooled: its events.
        commit_events: events of a commit, if that cuts no run that a merger joins.
        seal: seals the log; called now and then, so that its tail stays short.
        report: called with the number of events that are committed.
    """
    path = spooled.folder / JOURNAL
    done = _begun(log, path, commit_events)
    ranges = [r for r in commit_ranges(spooled, registry, done.commit_events) if r[1] > done.events]
    with connect() as connection:
        appender = BatchAppender(log, connection, since=done.commit)
        for window in _windows(ranges):
            rows = _rows(spooled, registry, window[0][0], window[-1][1])
            appender.load(set(rows["stream_id"].unique().to_pylist()))
            for first, last in window:
                batch = rows.slice(first - window[0][0], last - first + 1)
                appender.append(str(uuid.uuid5(_BATCHES, f"{import_id} {first} {last}")), batch)
                report(last)
            sealed_so_far = done.commits // _SEAL_AFTER
            done = replace(done, commits=done.commits + len(window), events=window[-1][1])
            _save(path, done)
            if done.commits // _SEAL_AFTER > sealed_so_far:
                seal()
    return done


def _begun(log: EventLog, path: Path, commit_events: int) -> Committed:
    if path.exists():
        try:
            return decode_json(path.read_bytes(), Committed)
        except RecordError as error:
            raise damaged_import(path, error) from error
    begun = Committed(log.head().commit, commit_events)
    _save(path, begun)
    return begun


def _save(path: Path, done: Committed) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(asdict(done)))
    os.replace(temporary, path)


def _windows(ranges: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    window: list[tuple[int, int]] = []
    for one in ranges:
        window.append(one)
        if one[1] - window[0][0] >= _WINDOW_EVENTS:
            yield window
            window = []
    if window:
        yield window


def _rows(spooled: Spooled, registry: Registry, first: int, last: int) -> pa.Table:
    """Return the events of some positions as commit rows, in order, with their payloads as canonical JSON."""
    parts = [
        _as_rows(table, schema_key, registry)
        for tables in spooled.read_positions(first, last)
        for schema_key, table in tables.items()
        if len(table)
    ]
    rows = pa.concat_tables(rows for rows, _ in parts)
    order = np.argsort(np.concatenate([position for _, position in parts]))
    return rows.take(pa.array(order)).combine_chunks()


def _as_rows(table: pa.Table, schema_key: SchemaKey, registry: Registry) -> tuple[pa.Table, np.ndarray]:
    schema = registry.stored_schema(*schema_key)
    computed = {
        "event_type": pa.repeat(schema_key[0], len(table)),
        "schema_version": pa.repeat(pa.scalar(schema_key[1], pa.int32()), len(table)),
        "payload": pa.array([canonical_json(p, schema) for p in _payloads(table, schema)], pa.string()),
    }
    columns = [computed.get(name, table[name] if name in table.schema.names else None) for name in BATCH_SCHEMA.names]
    rows = pa.Table.from_arrays(columns, names=BATCH_SCHEMA.names).cast(BATCH_SCHEMA)
    return rows, table["position"].to_numpy()


def _payloads(table: pa.Table, schema: pa.Schema) -> list[dict[str, object]]:
    if not len(schema):
        return [{} for _ in range(len(table))]
    selected = table.select(schema.names)
    for index, field in enumerate(selected.schema):
        if (zoned := _zoned(field.type)) != field.type:
            selected = selected.set_column(index, field.name, selected[field.name].cast(zoned))
    return selected.to_pylist()  # type: ignore[no-any-return]


def _zoned(dtype: pa.DataType) -> pa.DataType:
    """Return a type whose times have a zone, at any depth: a field without one holds times in UTC, too."""
    if pt.is_timestamp(dtype):
        return UTC_MICROSECONDS
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_zoned(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_zoned(f.type)) for f in dtype])
    return dtype
