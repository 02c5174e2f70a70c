"""Replay: stored events of any schema version are converted to the newest.

SQL upcasters are composed as nested queries, so only the columns that are used are read. A Python upcaster or a merger
is a barrier: its input is fetched, and its results are added to the relations of their schemas.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from refold.event_schemas import (
    ContractError,
    Upcaster,
    event_type_of,
    is_event,
    schema_version_of,
)
from refold.event_schemas.envelope import ENVELOPE, RecordedEvent
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.upcaster_sql import CARRIED, event_relation_schema, target_of
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.engine.sql import columns
from refold.warehouse.personal.readable_sql import readable

_SPLIT_LIMIT = 1024  # contributions.py orders split events by 20 bits; a larger split is most likely a mistake
_names = itertools.count()


class Replay:
    """Events of the newest schema versions from stored events, on one connection.

    Args:
        connection: the connection on which Python upcasters register their results.
        domain: contracts and upcasters.
        stored: event type and schema version to SQL relation, as from segments or ``typed_events``.
        skip: the positions of events to leave out, which are known to be invalid.
        decrypts: whether personal fields in ``stored`` are encrypted, as the log holds them.

    Attributes:
        failures: position to the reason, for each event on which a Python upcaster failed.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        domain: Domain,
        stored: Mapping[SchemaKey, str],
        *,
        skip: Iterable[int] = (),
        decrypts: bool = True,
    ) -> None:
        self._connection = connection
        self._domain = domain
        self._stored = dict(stored)
        if decrypts:
            self._stored = {key: readable(domain.registry, key, r) for key, r in self._stored.items()}
        self._relations: dict[SchemaKey, str | None] = {}
        self._ran: dict[int, dict[SchemaKey, str]] = {}
        self._runs: dict[int, tuple[int, ...]] = {}
        self.failures: dict[int, str] = {}
        if skipped := sorted(set(skip)):
            listed = ", ".join(map(str, skipped))
            self._stored = {s: f"(SELECT * FROM {r} WHERE position NOT IN ({listed}))" for s, r in self._stored.items()}

    def events(self, event_type: str) -> str | None:
        """Return a relation of all events of a type in its newest schema version; None if there are none."""
        newest = self._domain.registry.newest(event_type)
        return self.relation(newest) if newest else None

    def relation(self, key: SchemaKey) -> str | None:
        """Return a relation of the events that have a schema, or are converted to it."""
        if key not in self._relations:
            self._relations[key] = self._union(key)
        return self._relations[key]

    def together(self, positions: Iterable[int]) -> list[tuple[int, ...]]:
        """Group the positions of stored events by the runs that a merger joined; most groups have one position."""
        return sorted({self._runs.get(p, (p,)) for p in positions})

    def _union(self, key: SchemaKey) -> str | None:
        names = columns([*CARRIED, *self._domain.registry.schema(*key).names])
        parts = [self._stored[key]] if key in self._stored else []
        for step in self._domain.registry.upcasters:
            if step.form is Form.SQL:
                if target_of(step, self._domain.registry) == key and (given := self.relation(step.sources[0].key)):
                    parts.append(f"(WITH event AS (FROM {given}) {self._domain.upcaster_sql[step.sources[0].key]})")
            elif key in _targets(step, self._domain) and key in (made := self._run(step)):
                parts.append(made[key])
        if len(parts) <= 1:
            return parts[0] if parts else None
        return "(" + " UNION ALL ".join(f"SELECT {names} FROM {p}" for p in parts) + ")"

    def _run(self, step: Upcaster) -> dict[SchemaKey, str]:
        if id(step) not in self._ran:
            made: dict[SchemaKey, list[dict[str, Any]]] = {}
            siblings: Counter[int] = Counter()
            for given in self._inputs(step):
                self._apply(step, given, made, siblings)
            self._ran[id(step)] = {key: self._register(key, rows) for key, rows in made.items()}
        return self._ran[id(step)]

    def _inputs(self, step: Upcaster) -> Iterable[list[_Upcastable]]:
        found: list[_Upcastable] = []
        for source in step.sources:
            if given := self.relation(source.key):
                found += _fetch(self._connection, given, source.schema)
        if step.form is Form.PYTHON:
            return ([row] for row in sorted(found, key=lambda r: (r.event.position, r.ordinal)))
        return _runs(sorted(found, key=lambda r: (r.event.stream_id, r.event.stream_version, r.ordinal)))

    def _apply(
        self,
        step: Upcaster,
        given: list[_Upcastable],
        made: dict[SchemaKey, list[dict[str, Any]]],
        siblings: Counter[int],
    ) -> None:
        events = [g.event for g in given]
        positions = tuple(sorted({e.position for e in events}))
        if len(positions) > 1:
            self._runs |= dict.fromkeys(positions, positions)
        try:
            results = step.apply(events[0] if step.form is Form.PYTHON else events)
            if len(results) > _SPLIT_LIMIT:
                raise ContractError(f"{step.name} returned {len(results)} events for one; the limit is {_SPLIT_LIMIT}.")
            rows = [_result_row(step, self._domain, events[-1], r) for r in results]
        except Exception as error:  # the user's function may raise anything
            text = str(error) or type(error).__name__
            reason = text if text.startswith(step.name) else f"{step.name}: {text}"
            self.failures |= {e.position: reason for e in events if e.position not in self.failures}
            return
        for key, row in rows:
            made.setdefault(key, []).append({**row, "_ordinal": siblings[positions[-1]]})
            siblings[positions[-1]] += 1

    def _register(self, key: SchemaKey, rows: list[dict[str, Any]]) -> str:
        schema = event_relation_schema(self._domain.registry.schema(*key))
        name = f"_upcast_{next(_names)}"
        arrays = [array_of([row[f.name] for row in rows], f.type) for f in schema]
        self._connection.register(name, pa.Table.from_arrays(arrays, schema=schema))
        return name


class _Upcastable:
    """A stored event that a Python upcaster is to read."""

    __slots__ = ("event", "ordinal")

    def __init__(self, event: RecordedEvent, ordinal: int) -> None:
        self.event = event
        self.ordinal = ordinal


def _targets(step: Upcaster, domain: Domain) -> set[SchemaKey | None]:
    if step.into:
        return {domain.registry.newest(t) for t in step.targets}
    return {(step.sources[0].event_type, step.sources[0].schema_version + 1)}


def _fetch(connection: duckdb.DuckDBPyConnection, relation: str, schema: pa.Schema) -> Iterable[_Upcastable]:
    table = connection.sql(f"SELECT {columns([*CARRIED, *schema.names])} FROM {relation}").to_arrow_table()
    envelope = ENVELOPE.names
    for row in table.to_pylist():
        payload = {name: row[name] for name in schema.names}
        yield _Upcastable(RecordedEvent(**{n: row[n] for n in envelope}, payload=payload), row["_ordinal"])


def _runs(rows: list[_Upcastable]) -> Iterable[list[_Upcastable]]:
    run: list[_Upcastable] = []
    for row in rows:
        if run and not _continues(run[-1].event, row.event):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _continues(before: RecordedEvent, after: RecordedEvent) -> bool:
    return (
        before.stream_id == after.stream_id
        and before.commit_number == after.commit_number
        and after.stream_version - before.stream_version <= 1
    )


def _result_row(step: Upcaster, domain: Domain, source: RecordedEvent, result: Any) -> tuple[SchemaKey, dict[str, Any]]:
    if is_event(type(result)):
        key = (event_type_of(type(result)), schema_version_of(type(result)))
    else:
        key = (step.sources[0].event_type, step.sources[0].schema_version + 1)
    if key not in _targets(step, domain):
        declared = ", ".join(step.targets)
        raise ContractError(f"it returned an event of {key[0]} v{key[1]}; into= declares {declared}")
    schema = domain.registry.schema(*key)
    payload = from_json(to_json(result, schema), schema)
    envelope = {name: getattr(source, name) for name in ENVELOPE.names}
    envelope |= {"event_type": key[0], "schema_version": key[1]}
    return key, {**envelope, **payload}


def sources_of(domain: Domain, event_types: Sequence[str]) -> frozenset[SchemaKey]:
    """Return every stored schema that events of these types may come from, with those that mergers read beside them."""
    return frozenset(key for t in event_types for key in domain.registry.sources(t))
