"""Dry run of upcasters: every stored event goes through its chain, and nothing is written.

A bucket at a time, and within it each stored shape by itself (shapes that a merger joins go together): so a chain that
fails takes no other shape with it, and each event that fails is told with its reason.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from refold.event_schemas import Registry, Upcaster
from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import first_line
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.payload_parsing import Typed
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.replay.event_ranges import typed_range, typed_segments
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import halve, materialise, positions_of

_MAX_PER_BUCKET = 100
_POSITIONS = 5
_EVENTS_PER_UNIT = 500_000
_COMMITS_PER_UNIT = 2_000
_MEMORY = "2GB"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why events of a shape fail.

    Attributes:
        text: what does not fit, or what failed.
        events: how many events fail for it.
        first_position: of the first of them.
        positions: of the first few; only of the first where events were counted without being read.
    """

    text: str
    events: int
    first_position: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunResult:
    """How the stored events of one shape fared.

    Attributes:
        event_type: their stored event type.
        schema_version: their stored schema version.
        becomes: the event types that their chain may yield, in their newest version; none if the domain does not know
            the shape.
        events: how many there are.
        broken: how many fail.
        complete: whether all that fail were counted; a bucket in which many do is left after the first hundred.
        reasons: why, the most frequent first.
    """

    event_type: str
    schema_version: int
    becomes: tuple[str, ...]
    events: int
    broken: int
    complete: bool
    reasons: tuple[Reason, ...]


def dry_run(
    log: EventLog,
    domain: Domain,
    *,
    head: Head | None = None,
    report: Callable[[int, int], None] = lambda _done, _planned: None,
) -> list[DryRunResult]:
    """Run every stored shape through its chain of upcasters, over all stored events.

    Args:
        log: the log.
        domain: contracts and upcasters.
        head: the end of the log, if the caller has it at hand.
        report: called with buckets done and planned; the commits that are not sealed count like buckets.

    Returns:
        One result a stored shape, sorted.

    Raises:
        DamagedLogError: an object of the log is missing or truncated.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas import event
        >>> from refold.warehouse.event_log import Appender, create_log
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> doors = Domain(name="doors", events=(DoorOpened,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = create_log(folder, domain_name="doors")
        ...     appended = Appender(log, doors.registry).append("door-1", [DoorOpened(door="front")])
        ...     [result] = dry_run(log, doors)
        >>> result.events, result.broken
        (1, 0)
    """
    head = head or log.head()
    tally = _Tally()
    units = [*_sealed_units(log, domain, head, tally), *_tail_units(log, domain, head)]
    for done, unit in enumerate(units):
        report(done, len(units))
        with _scratch() as connection:
            _run(connection, domain, unit(connection), tally)
    report(len(units), len(units))
    return [tally.result(schema_key, domain.registry) for schema_key in sorted(tally.events)]


@dataclass(slots=True)
class _Tally:
    """What was counted so far."""

    events: dict[SchemaKey, int] = field(default_factory=dict)
    reasons: dict[SchemaKey, dict[str, Reason]] = field(default_factory=dict)
    incomplete: set[SchemaKey] = field(default_factory=set)

    def count(self, schema_key: SchemaKey, events: int) -> None:
        self.events[schema_key] = self.events.get(schema_key, 0) + events

    def fail(self, schema_key: SchemaKey, reason: Reason) -> None:
        reasons = self.reasons.setdefault(schema_key, {})
        before = reasons.get(reason.text, Reason(reason.text, 0, reason.first_position, ()))
        first = tuple(sorted({*before.positions, *reason.positions})[:_POSITIONS])
        reasons[reason.text] = Reason(reason.text, before.events + reason.events, first[0], first)

    def result(self, schema_key: SchemaKey, registry: Registry) -> DryRunResult:
        reasons = sorted(self.reasons.get(schema_key, {}).values(), key=lambda r: (-r.events, r.first_position))
        return DryRunResult(
            event_type=schema_key[0],
            schema_version=schema_key[1],
            becomes=_becomes(schema_key, registry),
            events=self.events[schema_key],
            broken=sum(r.events for r in reasons),
            complete=schema_key not in self.incomplete,
            reasons=tuple(reasons),
        )


def _becomes(schema_key: SchemaKey, registry: Registry) -> tuple[str, ...]:
    return tuple(sorted(t for t in registry.classes if schema_key in registry.sources(t)))


@contextmanager
def _scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    with (
        tempfile.TemporaryDirectory(prefix="refold-") as folder,
        connect(memory_limit=_MEMORY, temp_directory=folder) as connection,
    ):
        yield connection


_Unit = Callable[[duckdb.DuckDBPyConnection], Typed]


def _sealed_units(log: EventLog, domain: Domain, head: Head, tally: _Tally) -> Iterator[_Unit]:
    segments = []
    for s in live_segments(head):
        if s.untyped or domain.registry.knows(s.schema_key):
            segments.append(s)
        else:  # typed by code that knew it, which this does not: counted without being read
            tally.count(s.schema_key, s.rows)
            text = f"Unknown to the domain: {s.event_type} v{s.schema_version}"
            first = s.first_position + s.position_base
            tally.fail(s.schema_key, Reason(text, s.rows, first, (first,)))
    for bucket in sorted({s.bucket for s in segments}):
        mine = [s for s in segments if s.bucket == bucket]
        yield lambda connection, mine=mine: typed_segments(connection, log, domain.registry, mine)  # type: ignore[misc]


def _tail_units(log: EventLog, domain: Domain, head: Head) -> Iterator[_Unit]:
    for part in _parts([info for info in head.tail if info.import_id is None]):
        yield lambda connection, part=part: typed_range(  # type: ignore[misc]
            connection,
            log,
            domain.registry,
            Head(Manifest(), tuple(part)),
            schema_keys=None,
            after=part[0].first_position - 1,
            up_to=part[-1].last_position,
        )


def _parts(tail: Iterable[CommitInfo]) -> Iterator[list[CommitInfo]]:
    part: list[CommitInfo] = []
    for info in tail:
        part.append(info)
        if len(part) == _COMMITS_PER_UNIT or sum(i.events for i in part) >= _EVENTS_PER_UNIT:
            yield part
            part = []
    if part:
        yield part


def _run(connection: duckdb.DuckDBPyConnection, domain: Domain, typed: Typed, tally: _Tally) -> None:
    for misfit in typed.invalid_events:
        schema_key = (misfit.event_type, misfit.schema_version)
        tally.count(schema_key, 1)
        tally.fail(schema_key, Reason(misfit.reason, 1, misfit.position, (misfit.position,)))
    groups: dict[SchemaKey | Upcaster, dict[SchemaKey, str]] = {}
    for schema_key, relation in typed.relations.items():
        groups.setdefault(_merger_of(schema_key, domain.registry) or schema_key, {})[schema_key] = relation
    for stored in groups.values():
        _run_group(connection, domain, stored, tally)


def _merger_of(schema_key: SchemaKey, registry: Registry) -> Upcaster | None:
    """Find the merger that a shape's chain comes to: what it joins must be run together."""
    while (step := registry.upcaster(schema_key)) is not None:
        if step.form is Form.MERGE:
            return step
        if step.into:
            return None
        schema_key = (schema_key[0], schema_key[1] + 1)
    return None


def _run_group(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], tally: _Tally
) -> None:
    failing: dict[int, str] = {}
    complete = True
    try:
        failing = _broken_in_python(connection, domain, stored, ())
    except duckdb.Error as error:
        failing, complete = _halved(connection, domain, stored, error)
    _count(connection, stored, failing, tally)
    if not complete:
        tally.incomplete |= set(stored)


def _halved(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], error: duckdb.Error
) -> tuple[dict[int, str], bool]:
    """Find the events that fail in SQL, and those that then fail in Python; and tell whether that is all of them."""
    tables = materialise(connection, stored)
    positions = positions_of(connection, tables)

    def failure(part: Sequence[int]) -> str | None:
        between = f"position BETWEEN {part[0]} AND {part[-1]}"
        try:
            _broken_in_python(
                connection, domain, {s: f"(SELECT * FROM {t} WHERE {between})" for s, t in tables.items()}, ()
            )
        except duckdb.Error as failed:
            return first_line(failed)
        return None

    found = dict(itertools.islice(halve(positions, failure), _MAX_PER_BUCKET))
    if not found:  # it takes several events to fail, such as a run that a merger joins
        return {positions[0]: f"{first_line(error)} (no event fails by itself)"}, False
    try:
        return found | _broken_in_python(connection, domain, tables, found), True
    except duckdb.Error:
        return found, False


def _broken_in_python(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], skip: Iterable[int]
) -> dict[int, str]:
    """Run events through their chains; those that fail in a Python upcaster are told, one that fails in SQL raises."""
    replay = Replay(connection, domain, stored, skip=skip)
    for event_type in domain.registry.classes:
        if (relation := replay.events(event_type)) is not None:
            connection.execute(f"SELECT bit_xor(hash(e)) FROM {relation} e").fetchall()
    return {b.position: b.reason for b in replay.broken}


def _count(
    connection: duckdb.DuckDBPyConnection, stored: Mapping[SchemaKey, str], failing: Mapping[int, str], tally: _Tally
) -> None:
    table = {"position": pa.array(failing.keys(), pa.int64()), "reason": pa.array(failing.values(), pa.string())}
    connection.register("_failing", pa.table(table))
    for schema_key, relation in stored.items():
        [(events,)] = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
        tally.count(schema_key, events)
        if failing:
            for text, count, first in connection.execute(
                f"SELECT reason, count(*), min(position, {_POSITIONS}) FROM {relation} JOIN _failing USING (position) "
                "GROUP BY 1"
            ).fetchall():
                tally.fail(schema_key, Reason(text, count, first[0], tuple(first)))
