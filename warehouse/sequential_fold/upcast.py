"""Events converted to their newest form, one at a time; a merger gets a run of events of one stream and one commit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from refold.event_schemas import Registry, Upcaster
from refold.event_schemas.envelope import ENVELOPE_NAMES, RecordedEvent
from refold.event_schemas.event import event_type_of, schema_version_of
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.sequential_fold.one_event import OneEvent
from refold.warehouse.sequential_fold.values import MisfitError, name_in_sql, payload_of, sql_type


class InvalidError(Exception):
    """Some recorded events cannot be applied.

    Attributes:
        origins: their positions.
    """

    def __init__(self, origins: frozenset[int]) -> None:
        self.origins = origins
        super().__init__(origins)


@dataclass(frozen=True, slots=True)
class Made:
    """An event, recorded or made by upcasters.

    Attributes:
        event: the event; one that a merger made has the envelope of its run's last event.
        origins: the positions of the recorded events that it was made of.
        path: its place among the events that were made of the same, step by step.
    """

    event: RecordedEvent
    origins: frozenset[int]
    path: tuple[int, ...] = ()

    @property
    def schema_key(self) -> SchemaKey:
        """Event type and schema version."""
        return (self.event.event_type, self.event.schema_version)


def targets(step: Upcaster) -> set[SchemaKey]:
    """Return what an upcaster may yield."""
    if step.into:
        return {(event_type_of(c), schema_version_of(c)) for c in step.into}
    return {(step.sources[0].event_type, step.sources[0].schema_version + 1)}


def steps_to(registry: Registry, event_types: Iterable[str]) -> list[Upcaster]:
    """Return the upcasters that lead to some event types."""
    wanted = {key for t in event_types if (key := registry.newest(t))}
    steps: list[Upcaster] = []
    while more := [u for u in registry.upcasters if u not in steps and targets(u) & wanted]:
        steps += more
        wanted |= {source.key for step in more for source in step.sources}
    return steps


def newest(sql: OneEvent, registry: Registry, steps: Sequence[Upcaster], events: Sequence[RecordedEvent]) -> list[Made]:
    """Convert the events that one commit appended to one stream.

    Raises:
        InvalidError: an upcaster fails, or yields what does not fit.
    """
    waiting = [Made(e, frozenset({e.position})) for e in events]
    while (step := _next_step(steps, {m.schema_key for m in waiting})) is not None:
        sources = {s.key for s in step.sources}
        mine = [m for m in waiting if m.schema_key in sources]
        waiting = [m for m in waiting if m.schema_key not in sources]
        for run in _runs(mine) if step.form is Form.MERGE else [[m] for m in mine]:
            waiting += _applied(sql, registry, step, run)
    return sorted(waiting, key=lambda m: (m.event.position, m.path))


def _next_step(steps: Sequence[Upcaster], waiting: set[SchemaKey]) -> Upcaster | None:
    """Return an upcaster that reads some of the schemas, and that no other one can bring more events."""
    for step in steps:
        if waiting & {s.key for s in step.sources} and not _reaches(step, steps, waiting):
            return step
    return None


def _reaches(step: Upcaster, steps: Sequence[Upcaster], waiting: set[SchemaKey]) -> bool:
    before = {s.key for s in step.sources}
    feeding: list[Upcaster] = []
    while more := [u for u in steps if u not in feeding and u is not step and targets(u) & before]:
        feeding += more
        before |= {s.key for u in more for s in u.sources}
    return bool(waiting & {s.key for u in feeding for s in u.sources})


def _runs(events: Iterable[Made]) -> list[list[Made]]:
    """Divide events into runs, between which the stream has another event."""
    runs: list[list[Made]] = []
    for made in sorted(events, key=lambda m: (m.event.stream_version, m.path)):
        if runs and made.event.stream_version - runs[-1][-1].event.stream_version <= 1:
            runs[-1].append(made)
        else:
            runs.append([made])
    return runs


def _applied(sql: OneEvent, registry: Registry, step: Upcaster, run: list[Made]) -> list[Made]:
    origins = frozenset[int]().union(*(m.origins for m in run))
    last = run[-1]
    try:
        if step.form is Form.SQL:
            events = _by_sql(sql, registry, step, last.event)
        else:
            given = [m.event for m in run] if step.form is Form.MERGE else last.event
            events = [_by_python(registry, step, last.event, result) for result in step.apply(given)]
    except Exception as error:  # the user's function may raise anything
        raise InvalidError(origins) from error
    return [Made(e, origins, (*last.path, i)) for i, e in enumerate(events)]


def _by_sql(sql: OneEvent, registry: Registry, step: Upcaster, event: RecordedEvent) -> list[RecordedEvent]:
    [target] = targets(step)
    schema, source = registry.schema(*target), step.sources[0].schema
    fields = [f"CAST({name_in_sql(f.name)} AS {sql_type(f.type)})" for f in schema]
    kept: list[str] = []

    def outputs(names: frozenset[str]) -> list[str]:
        kept.extend(sorted(names & ENVELOPE_NAMES - {"event_type", "schema_version"}))
        return [*fields, *map(name_in_sql, kept)]

    try:
        rows = sql.rows(step.sql(), event, source, outputs)
    except duckdb.Error as error:
        raise MisfitError(str(error)) from error
    made = []
    for row in rows:
        payload = payload_of(dict(zip(schema.names, row, strict=False)), schema)
        envelope = dict(zip(kept, row[len(fields) :], strict=True))
        made.append(_next(event, target, payload, **envelope))
    return made


def _by_python(registry: Registry, step: Upcaster, event: RecordedEvent, result: Any) -> RecordedEvent:
    cls = type(result)
    key = (event_type_of(cls), schema_version_of(cls)) if hasattr(cls, "__event_type__") else None
    [target] = {key} if key in targets(step) else targets(step)
    return _next(event, target, payload_of(result, registry.schema(*target)))


def _next(event: RecordedEvent, key: SchemaKey, payload: dict[str, Any], **envelope: Any) -> RecordedEvent:
    return dataclasses.replace(event, event_type=key[0], schema_version=key[1], payload=payload, **envelope)
