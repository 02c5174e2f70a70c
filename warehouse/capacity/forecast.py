"""A forecast from the user's own log: the figures of ``formulas.py``, measured instead of assumed.

The numbers of events and bytes come from the manifest and from footers, the speed from the newest generation's rebuild.
Only the size of the events as JSON is sampled, from up to a thousand events of each event type and schema version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from refold.event_schemas import DamagedLogError, EmptyLogError, UsageError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import first_line, literal
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.reads.scan import live_segments
from refold.warehouse.read_models.generations.generations import Generations
from refold.warehouse.read_models.planning.plan import plan_rebuild
from refold.warehouse.read_models.planning.rate import Rate

_SAMPLED_EVENTS = 1_000
_SAMPLED_COMMITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The sizes of a log and of its read models.

    Attributes:
        events: the number of events in the log.
        stored_bytes: the size of its segments, and of its commits that are not sealed yet.
        raw_bytes: the size of the same events as JSON lines, estimated from a sample.
        replayed_events: the events that a rebuild of all read models replays; an event counts once for each read model
            that reads it.
        generation: the number of the newest generation of this log; None if there is none.
        read_model_bytes: the size of that generation's file.
        rows: the number of rows in all its tables.
        rate: the speed of rebuilds.
    """

    events: int
    stored_bytes: int
    raw_bytes: int
    replayed_events: int
    generation: int | None
    read_model_bytes: int
    rows: int
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the same system needs after its history has grown.

    Attributes:
        times: the factor by which the history has grown.
        events: the number of events.
        raw_bytes: their size as JSON lines.
        stored_bytes: their size in segments.
        read_model_bytes: the size of the read models, if rows grow as events do.
        rebuild_seconds: number of workers to the seconds that a rebuild of all read models takes.
        assumptions: the assumptions, in words.
    """

    times: float
    events: int
    raw_bytes: int
    stored_bytes: int
    read_model_bytes: int
    rebuild_seconds: dict[int, float]
    assumptions: tuple[str, ...]


def observe(log: EventLog, domain: Domain, generations: Generations) -> Observed:
    """Measure a log and its newest generation.

    Raises:
        EmptyLogError: the log has no events.
        DamagedLogError: an object of the log is missing or truncated.
    """
    head = log.head()
    if not head.position:
        raise EmptyLogError(
            f"The log {log.url} has no events to forecast from. Append some, or give sizes, as in "
            "`refold capacity --entities 10000000`."
        )
    plan = plan_rebuild(log, domain, generations, everything=True)
    newest = None if plan.other_log else generations.newest()
    stored, raw = _sizes(log, head)
    return Observed(
        events=head.position,
        stored_bytes=stored,
        raw_bytes=raw,
        replayed_events=plan.events,
        generation=newest.number if newest else None,
        read_model_bytes=newest.bytes if newest else 0,
        rows=sum(t.rows for t in newest.tables.values()) if newest else 0,
        rate=plan.rate,
    )


def forecast(observed: Observed, *, workers: int, times: float = 1.0) -> Forecast:
    """Forecast what the same system needs after its history has grown.

    Args:
        observed: the sizes now.
        workers: the largest number of workers; the forecast has 1, 2, 4, … up to it.
        times: the factor by which the history grows.

    Raises:
        UsageError: ``times`` is not above 0, or ``workers`` is below 1.
    """
    if not 0 < times < float("inf"):
        raise UsageError(f"times is {times}; expected a number above 0, such as 10 for ten times the history.")
    if workers < 1:
        raise UsageError(f"workers is {workers}; expected 1 or more.")
    replayed = round(observed.replayed_events * times)
    return Forecast(
        times=times,
        events=round(observed.events * times),
        raw_bytes=round(observed.raw_bytes * times),
        stored_bytes=round(observed.stored_bytes * times),
        read_model_bytes=round(observed.read_model_bytes * times),
        rebuild_seconds={n: round(observed.rate.seconds(replayed, n), 3) for n in _doubling(workers)},
        assumptions=_assumptions(observed.rate),
    )


def _doubling(last: int) -> list[int]:
    steps = [1]
    while steps[-1] * 2 <= last:
        steps.append(steps[-1] * 2)
    return steps if steps[-1] == last else [*steps, last]


def _assumptions(rate: Rate) -> tuple[str, ...]:
    speed = f"{rate.startup_seconds:.1f} s of start-up, then {round(rate.events_per_second):,} events a second"
    speed += f" with {rate.workers} workers"
    share = f"{rate.serial_share:.0%} of a rebuild (loading, catching up, publishing) gets no faster with more workers"
    return (
        f"{speed}, {'measured by the last rebuild' if rate.measured else 'a default: no long rebuild was measured'}",
        f"{share}, {'measured' if rate.serial_measured else 'a default'}; the rest divides evenly (Amdahl's law)",
        "seconds, bytes and rows grow as events do",
    )


def _sizes(log: EventLog, head: Head) -> tuple[int, int]:
    """Return the stored bytes of all events, and an estimate of their size as JSON."""
    by_key: dict[SchemaKey, list[Segment]] = {}
    for segment in live_segments(head):
        by_key.setdefault(segment.schema_key, []).append(segment)
    stored, raw = 0, 0.0
    with connect(threads=1) as connection:
        for (event_type, schema_version), segments in by_key.items():
            stored += sum(s.bytes for s in segments)
            path = log.segment_path(min(segments, key=lambda s: s.bytes))
            also = f"{literal(event_type)} AS event_type, {schema_version} AS schema_version"
            raw += sum(s.rows for s in segments) * _mean_json(connection, f"SELECT *, {also}", [path])
        tail = [info for info in head.tail if info.import_id is None]
        if tail:
            paths = log.commit_paths(tail[-_SAMPLED_COMMITS:])
            sampled = [log.store.size(commit_key(info.number)) for info in tail[-_SAMPLED_COMMITS:]]
            stored += round(sum(sampled) * len(tail) / len(sampled))
            raw += sum(info.events for info in tail) * _mean_json(
                connection, "SELECT * REPLACE (payload::JSON AS payload)", paths
            )
    return stored, round(raw)


def _mean_json(connection: duckdb.DuckDBPyConnection, select: str, paths: list[Path]) -> float:
    rows = f"{select} FROM {parquet_relation(paths)} LIMIT {_SAMPLED_EVENTS}"
    try:
        found = connection.execute(f"SELECT avg(strlen(to_json(t)::VARCHAR)) FROM ({rows}) t").fetchone()
    except duckdb.Error as error:
        raise DamagedLogError(
            f"A sample of events cannot be read: {first_line(error)} Run `refold events verify`."
        ) from error
    return float(found[0] or 0) if found else 0.0
