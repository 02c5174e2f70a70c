"""Recorded events as instances of the newest class of their event type, which deciders read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas import (
    ENVELOPE,
    InvalidEventsError,
    PayloadError,
    RecordedEvent,
    schema_of,
    schema_version_of,
)
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.values import instance_of
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.upcaster_sql import CARRIED, event_relation_schema
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import columns, first_line
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import halve


def newest_events(domain: Domain, recorded: Sequence[RecordedEvent]) -> list[Any]:
    """Convert events of a stream to instances of their newest classes.

    Args:
        domain: contracts and upcasters.
        recorded: events of one stream in order, in whole commits.

    Returns:
        The instances, in order. Upcasters may split, join or drop events.

    Raises:
        InvalidEventsError: an event does not fit its contract, or an upcaster fails on it.
        UnknownEventTypeError: the domain does not know an event type.
        UnknownSchemaVersionError: the domain does not know a schema version.
    """
    checked = [_checked(domain, event) for event in recorded]
    classes = domain.registry.classes
    if all((cls := classes.get(e.event_type)) and schema_version_of(cls) == e.schema_version for e in recorded):
        return [instance_of(classes[e.event_type], payload) for e, payload in zip(recorded, checked, strict=True)]
    return _upcast(domain, recorded, checked)


def _checked(domain: Domain, event: RecordedEvent) -> dict[str, Any]:
    schema = domain.registry.schema(event.event_type, event.schema_version)
    try:
        return from_json(to_json(event.payload, schema), schema)
    except PayloadError as error:
        raise _invalid(event.stream_id, event.position, str(error)) from error


def _invalid(stream_id: str, position: int, reason: str) -> InvalidEventsError:
    return InvalidEventsError(
        f"Stream {stream_id!r} cannot be loaded: the event at position {position} is invalid ({reason}). Nothing was "
        f"appended. Show the event with `refold events stream {stream_id}`, and fix the upcaster or the contract."
    )


def _upcast(domain: Domain, recorded: Sequence[RecordedEvent], checked: Sequence[dict[str, Any]]) -> list[Any]:
    rows: dict[SchemaKey, list[dict[str, Any]]] = {}
    for event, payload in zip(recorded, checked, strict=True):
        envelope = {name: getattr(event, name) for name in ENVELOPE.names}
        key = (event.event_type, event.schema_version)
        rows.setdefault(key, []).append({**envelope, "_ordinal": 0, **payload})
    with connect(threads=1) as connection:
        stored = {}
        for number, (key, mine) in enumerate(rows.items()):
            schema = event_relation_schema(domain.registry.schema(*key))
            arrays = [array_of([row[f.name] for row in mine], f.type) for f in schema]
            connection.register(name := f"_stored_{number}", pa.Table.from_arrays(arrays, schema=schema))
            stored[key] = name
        replay = Replay(connection, domain, stored, decrypts=False)
        try:
            found = _newest(connection, domain, replay)
        except duckdb.Error as error:
            raise _first_failure(connection, domain, stored, recorded, first_line(error)) from error
    for position, reason in replay.failures.items():
        raise _invalid(recorded[0].stream_id, position, reason)
    return found


def _newest(connection: duckdb.DuckDBPyConnection, domain: Domain, replay: Replay) -> list[Any]:
    found: list[tuple[int, int, Any]] = []
    for event_type, cls in domain.registry.classes.items():
        if (relation := replay.events(event_type)) is None:
            continue
        names = schema_of(cls).names
        table = connection.sql(f"SELECT {columns([*CARRIED, *names])} FROM {relation}").to_arrow_table()
        for row in table.to_pylist():
            payload = {name: row[name] for name in names}
            found.append((row["position"], row["_ordinal"], instance_of(cls, payload)))
    return [made for _, _, made in sorted(found, key=lambda f: f[:2])]


def _first_failure(
    connection: duckdb.DuckDBPyConnection,
    domain: Domain,
    stored: dict[SchemaKey, str],
    recorded: Sequence[RecordedEvent],
    reason: str,
) -> InvalidEventsError:
    """Find the first event on which an SQL upcaster fails. The events of a commit stay together, for mergers."""
    commits = [tuple(e.position for e in run) for _, run in itertools.groupby(recorded, lambda e: e.commit_number)]

    def failure(part: Sequence[tuple[int, ...]]) -> str | None:
        kept = set(itertools.chain(*part))
        skip = [e.position for e in recorded if e.position not in kept]
        replay = Replay(connection, domain, stored, skip=skip, decrypts=False)
        try:
            _newest(connection, domain, replay)
        except duckdb.Error as error:
            return first_line(error)
        return None

    position, reason = next(((p[0], r) for p, r in halve(commits, failure)), (recorded[0].position, reason))
    return _invalid(recorded[0].stream_id, position, reason)
