"""Dry run of upcasters: every stored event goes through its chain of upcasters, and nothing is written.

The dry run takes one bucket at a time and, within it, each stored schema separately (schemas that a merger joins go
together). A chain that fails affects no other schema, and each event that fails is reported with its reason.
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
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.payload_parsing import Typed
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.personal.readable_sql import raise_failure
from refold.warehouse.replay.event_ranges import typed_range, typed_segments
from refold.warehouse.replay.history import Replay
from refold.warehouse.replay.invalid_events import halve, materialise, positions_of

_MAX_PER_BUCKET = 100  # each costs about 20 queries to find; a bucket with more is reported as incomplete
_POSITIONS = 5
_EVENTS_PER_UNIT = 500_000  # commits that are not sealed are copied to a temporary table, a unit at a time
_COMMITS_PER_UNIT = 2_000
_MEMORY = "2GB"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why events of one schema fail.

    Attributes:
        text: the error.
        events: the number of events that fail with it.
        first_position: the position of the first of them.
        positions: the positions of the first few; only the first one if the events were counted without being read.
    """

    text: str
    events: int
    first_position: int
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunResult:
    """The result for the stored events of one schema.

    Attributes:
        event_type: the stored event type.
        schema_version: the stored schema version.
        becomes: the event types that the chain may yield, in their newest version; empty if the domain does not know
            the schema.
        events: the number of events.
        invalid: the number of events that fail.
        complete: whether all that fail were counted; the search stops after the first hundred in a bucket.
        reasons: why they fail, the most frequent first.
    """

    event_type: str
    schema_version: int
    becomes: tuple[str, ...]
    events: int
    invalid: int
    complete: bool
    reasons: tuple[Reason, ...]


def dry_run(
    log: EventLog,
    domain: Domain,
    *,
    head: Head | None = None,
    report: Callable[[int, int], None] = lambda _done, _planned: None,
) -> list[DryRunResult]:
    """Run all stored events through their chains of upcasters.

    Args:
        log: the log.
        domain: contracts and upcasters.
        head: the end of the log; read if it is not given.
        report: called with the number of buckets done and planned; groups of commits that are not sealed count as
            buckets.

    Returns:
        One result for each stored schema, sorted.

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
        >>> result.events, result.invalid
        (1, 0)
    """
    head = head or log.head()
    tally = _Tally()
    units = [*_sealed_units(log, domain, head, tally), *_tail_units(log, domain, head)]
    for done, unit in enumerate(units):
        report(done, len(units))
        with _connection() as connection:
            _run(connection, domain, unit(connection), tally)
    report(len(units), len(units))
    return [tally.result(key, domain.registry) for key in sorted(tally.events)]


@dataclass(slots=True)
class _Tally:
    """The counts so far."""

    events: dict[SchemaKey, int] = field(default_factory=dict)
    reasons: dict[SchemaKey, dict[str, Reason]] = field(default_factory=dict)
    incomplete: set[SchemaKey] = field(default_factory=set)

    def count(self, key: SchemaKey, events: int) -> None:
        self.events[key] = self.events.get(key, 0) + events

    def fail(self, key: SchemaKey, reason: Reason) -> None:
        reasons = self.reasons.setdefault(key, {})
        before = reasons.get(reason.text, Reason(reason.text, 0, reason.first_position, ()))
        first = tuple(sorted({*before.positions, *reason.positions})[:_POSITIONS])
        reasons[reason.text] = Reason(reason.text, before.events + reason.events, first[0], first)

    def result(self, key: SchemaKey, registry: Registry) -> DryRunResult:
        reasons = sorted(self.reasons.get(key, {}).values(), key=lambda r: (-r.events, r.first_position))
        return DryRunResult(
            event_type=key[0],
            schema_version=key[1],
            becomes=_becomes(key, registry),
            events=self.events[key],
            invalid=sum(r.events for r in reasons),
            complete=key not in self.incomplete,
            reasons=tuple(reasons),
        )


def _becomes(key: SchemaKey, registry: Registry) -> tuple[str, ...]:
    return tuple(sorted(t for t in registry.classes if key in registry.sources(t)))


@contextmanager
def _connection() -> Iterator[duckdb.DuckDBPyConnection]:
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
        else:  # typed by other code that knew the schema; counted without being read
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
    for event in typed.invalid_events:
        key = (event.event_type, event.schema_version)
        tally.count(key, 1)
        tally.fail(key, Reason(event.reason, 1, event.position, (event.position,)))
    groups: dict[SchemaKey | Upcaster, dict[SchemaKey, str]] = {}
    for key, relation in typed.relations.items():
        groups.setdefault(_merger_of(key, domain.registry) or key, {})[key] = relation
    for stored in groups.values():
        _run_group(connection, domain, stored, tally)


def _merger_of(key: SchemaKey, registry: Registry) -> Upcaster | None:
    """Return the merger in a schema's chain, if any: all schemas that it joins must run together."""
    while (step := registry.upcaster(key)) is not None:
        if step.form is Form.MERGE:
            return step
        if step.into:
            return None
        key = (key[0], key[1] + 1)
    return None


def _run_group(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], tally: _Tally
) -> None:
    failing: dict[int, str] = {}
    complete = True
    try:
        failing = _fail_in_python(connection, domain, stored, ())
    except duckdb.Error as error:
        raise_failure(error)
        failing, complete = _bisect(connection, domain, stored, error)
    _count(connection, stored, failing, tally)
    if not complete:
        tally.incomplete |= set(stored)


def _bisect(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], error: duckdb.Error
) -> tuple[dict[int, str], bool]:
    """Return the reasons of the events that fail in SQL, or then in Python, and whether these are all."""
    tables = materialise(connection, stored)
    positions = positions_of(connection, tables)

    def failure(part: Sequence[int]) -> str | None:
        between = f"position BETWEEN {part[0]} AND {part[-1]}"
        try:
            _fail_in_python(
                connection, domain, {s: f"(SELECT * FROM {t} WHERE {between})" for s, t in tables.items()}, ()
            )
        except duckdb.Error as failed:
            raise_failure(failed)
            return first_line(failed)
        return None

    found = dict(itertools.islice(halve(positions, failure), _MAX_PER_BUCKET))
    if not found:  # only several events together fail, such as a run that a merger joins
        return {positions[0]: f"{first_line(error)} No event fails alone."}, False
    try:
        return found | _fail_in_python(connection, domain, tables, found), True
    except duckdb.Error:
        return found, False


def _fail_in_python(
    connection: duckdb.DuckDBPyConnection, domain: Domain, stored: Mapping[SchemaKey, str], skip: Iterable[int]
) -> dict[int, str]:
    """Run events through their chains, and return the reasons of those that fail in Python; a failure in SQL raises."""
    replay = Replay(connection, domain, stored, skip=skip)
    for event_type in domain.registry.classes:
        if (relation := replay.events(event_type)) is not None:
            connection.execute(f"SELECT bit_xor(hash(e)) FROM {relation} e").fetchall()
    return replay.failures


def _count(
    connection: duckdb.DuckDBPyConnection, stored: Mapping[SchemaKey, str], failing: Mapping[int, str], tally: _Tally
) -> None:
    table = {"position": pa.array(failing.keys(), pa.int64()), "reason": pa.array(failing.values(), pa.string())}
    connection.register("_failing", pa.table(table))
    for key, relation in stored.items():
        [(events,)] = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
        tally.count(key, events)
        if failing:
            for text, count, first in connection.execute(
                f"SELECT reason, count(*), min(position, {_POSITIONS}) FROM {relation} JOIN _failing USING (position) "
                "GROUP BY 1"
            ).fetchall():
                tally.fail(key, Reason(text, count, first[0], tuple(first)))
