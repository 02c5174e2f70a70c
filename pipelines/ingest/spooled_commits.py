"""A spooled import as ordinary commits, for streams that the log has already."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from refold.event_schemas import Registry
from refold.event_schemas.payload import canonical_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.bulk_import.batch_commits import BATCH_SCHEMA, BatchAppender
from refold.warehouse.event_log.bulk_import.existing_streams import known_events
from refold.warehouse.event_log.bulk_import.spool import Spooled
from refold.warehouse.event_log.log import EventLog

_BATCHES = uuid.UUID("0c1b7a52-5f0b-4a53-9a0e-6d6b6ff0a6a8")
_SEAL_AFTER = 1_000
"""Commits of the import after which the log is sealed, since every reader lists the unsealed ones."""

_JOURNAL = "commits.json"


@dataclass(frozen=True, slots=True)
class Committed:
    """How far the commits of an import are; kept in a file beside the spool.

    Attributes:
        commit: the log's last commit before any of its own.
        position: that commit's last position.
        commit_events: events of a commit.
        chunks: chunks of the spool that are completely committed.
        commits: its commits so far.
        events: events in its commits.
        duplicates: events that were left out, since their stream had an event with the same ``event_id`` before.
    """

    commit: int
    position: int
    commit_events: int
    chunks: int = 0
    commits: int = 0
    events: int = 0
    duplicates: int = 0


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

    An event whose ``event_id`` its stream had before the import is left out. Batches that a killed run committed are
    found by their UUIDs.

    Args:
        log: the log.
        registry: the contracts.
        import_id: identity of the import.
        spooled: its events.
        commit_events: events of a commit.
        seal: seals the log; called now and then, so that its tail stays short.
        report: called with the number of events that are committed or left out.
    """
    path = spooled.folder / _JOURNAL
    done = _begun(log, path, commit_events)
    with connect() as connection:
        appender = BatchAppender(log, connection, since=done.commit)
        for chunk in spooled.journal.chunks[done.chunks :]:
            if not chunk.events:
                done = replace(done, chunks=done.chunks + 1)
                continue
            ordered = _OrderedEvents(spooled.read_chunk(chunk.number))
            known = _known(connection, log, ordered, done)
            appender.load(set(ordered.streams))
            commits = events = 0
            for number, picked in enumerate(ordered.batches(known, done.commit_events)):
                identity = uuid.uuid5(_BATCHES, f"{import_id} {chunk.number} {number}")
                appender.append(str(identity), ordered.rows(picked, registry))
                commits, events = commits + 1, events + len(picked)
                report(done.events + done.duplicates + events)
            sealed_so_far = done.commits // _SEAL_AFTER
            done = replace(
                done,
                chunks=done.chunks + 1,
                commits=done.commits + commits,
                events=done.events + events,
                duplicates=done.duplicates + int(known.sum()),
            )
            _save(path, done)
            if done.commits // _SEAL_AFTER > sealed_so_far:
                seal()
    return done


def _begun(log: EventLog, path: Path, commit_events: int) -> Committed:
    if path.exists():
        return Committed(**orjson.loads(path.read_bytes()))
    head = log.head()
    begun = Committed(head.commit, head.position, commit_events)
    _save(path, begun)
    return begun


def _save(path: Path, done: Committed) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(asdict(done)))
    os.replace(temporary, path)


class _OrderedEvents:
    """The events of one chunk, of all schemas, in the order of their positions."""

    def __init__(self, tables: dict[SchemaKey, pa.Table]) -> None:
        self._tables = list(tables.items())
        sizes = [len(t) for t in tables.values()]
        position = np.concatenate([t["position"].to_numpy() for t in tables.values()])
        order = np.argsort(position)
        self._table_index = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._row = np.concatenate([np.arange(n) for n in sizes])[order]
        names = ["stream_id", "event_id"]
        self.identities = pa.concat_tables([t.select(names) for t in tables.values()]).take(pa.array(order))

    @property
    def streams(self) -> list[str]:
        """The streams of the events."""
        return list(self.identities["stream_id"].unique().to_pylist())

    def batches(self, known: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Return batches of the events that are not known yet."""
        new = np.flatnonzero(~known)
        return (new[i : i + size] for i in range(0, len(new), size))

    def rows(self, picked: np.ndarray, registry: Registry) -> pa.Table:
        """Return some events as commit rows, with their payloads as canonical JSON."""
        parts, places = [], []
        for index, (schema_key, table) in enumerate(self._tables):
            mine = np.flatnonzero(self._table_index[picked] == index)
            if len(mine):
                parts.append(_as_rows(table.take(pa.array(self._row[picked[mine]])), schema_key, registry))
                places.append(mine)
        order = np.argsort(np.concatenate(places))
        return pa.concat_tables(parts).take(pa.array(order))


def _as_rows(table: pa.Table, schema_key: SchemaKey, registry: Registry) -> pa.Table:
    schema = registry.schema(*schema_key)
    computed = {
        "event_type": pa.repeat(schema_key[0], len(table)),
        "schema_version": pa.repeat(pa.scalar(schema_key[1], pa.int32()), len(table)),
        "payload": pa.array([canonical_json(p, schema) for p in _payloads(table, schema)], pa.string()),
    }
    columns = [computed.get(name, table[name] if name in table.schema.names else None) for name in BATCH_SCHEMA.names]
    return pa.Table.from_arrays(columns, names=BATCH_SCHEMA.names).cast(BATCH_SCHEMA)


def _payloads(table: pa.Table, schema: pa.Schema) -> list[dict[str, object]]:
    return table.select(schema.names).to_pylist() if len(schema) else [{} for _ in range(len(table))]


def _known(connection: duckdb.DuckDBPyConnection, log: EventLog, events: _OrderedEvents, done: Committed) -> np.ndarray:
    """Return which events their streams had before the import."""
    head = log.head()
    known = np.zeros(len(events.identities), bool)
    relations = known_events(connection, log, head, range(log.bucket_count), commit=done.commit, position=done.position)
    numbered = events.identities.append_column("row", pa.array(np.arange(len(known))))
    connection.register("_identities", numbered)
    for relation in relations:
        query = f"SELECT row FROM _identities SEMI JOIN ({relation}) USING (stream_id, event_id)"
        known[[row for (row,) in connection.execute(query).fetchall()]] = True
    return known
