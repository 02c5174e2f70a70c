"""Spans: runs of commits by which tables advance, divided so that several workers can read one step concurrently.

A commit is never divided, since a merging upcaster joins events of one commit: so any sequence of steps gives the same
rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Manifest, Segment
from refold.warehouse.event_log.payload_parsing import Typed
from refold.warehouse.read_models.database import Checkpoint, checkpoint_at
from refold.warehouse.replay.event_ranges import typed_range
from refold.warehouse.replay.history import sources_of


@dataclass(frozen=True, slots=True)
class SpanLimits:
    """Limits of a step's size.

    Attributes:
        small_events: number of events up to which one worker is faster than several.
        small_commits: the same as a number of commits.
        max_events: number of events at which a step ends, so that its contributions fit into memory.
        max_commits: the same as a number of commits.
    """

    small_events: int = 20_000
    small_commits: int = 500
    max_events: int = 400_000
    max_commits: int = 10_000


@dataclass(frozen=True, slots=True)
class Span:
    """Some of the events of a run of commits.

    Attributes:
        head: manifest and commits that hold the events; it may hold further ones.
        after: position before the first event.
        to: checkpoint of the tables after these events.
    """

    head: Head
    after: int
    to: Checkpoint

    def events(
        self, connection: duckdb.DuckDBPyConnection, log: EventLog, domain: Domain, models: Sequence[ReadModel]
    ) -> Typed:
        """Read the events that some read models need."""
        schema_keys = sources_of(domain, [t for m in models for t in m.event_types])
        return typed_range(
            connection,
            log,
            domain.registry,
            self.head,
            schema_keys=schema_keys,
            after=self.after,
            up_to=self.to.position,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """The next step forward.

    Attributes:
        span: the span of all its events.
        parts: the same events, divided between workers.
        full: whether the step ended at a limit, so that more commits may follow.
    """

    span: Span
    parts: tuple[Span, ...]
    full: bool

    @property
    def events(self) -> int:
        """Number of its events."""
        return self.span.to.position - self.span.after


def next_step(
    log: EventLog, at: Checkpoint, *, workers: int, sealed: Manifest | None = None, limits: SpanLimits | None = None
) -> Step | None:
    """Find the commits after a checkpoint, by reading one after another.

    Args:
        log: the log.
        at: checkpoint of the tables.
        workers: number of parts of a large step.
        sealed: a manifest, if there are so many events that segments should be read instead of commits.
        limits: limits of the step's size.

    Returns:
        A step, or None if nothing follows.
    """
    if sealed is not None and sealed.sealed_position > at.position:
        return _sealed_step(sealed, at, workers)
    limits = limits or SpanLimits()
    infos: list[CommitInfo] = []
    events, full = 0, False
    for info in log.commits_after(at.end):
        infos.append(dataclasses.replace(info, heads={}))
        events += info.events
        if full := events >= limits.max_events or len(infos) >= limits.max_commits:
            break
    if not infos:
        return None
    to = checkpoint_at(infos[-1])
    span = Span(Head(Manifest(), tuple(infos)), at.position, to)
    if events <= limits.small_events and len(infos) <= limits.small_commits:
        return Step(span, (span,), False)
    parts = tuple(
        Span(Head(Manifest(), p), p[0].first_position - 1, checkpoint_at(p[-1])) for p in _cut(infos, workers)
    )
    return Step(span, parts, full)


def _cut(infos: Sequence[CommitInfo], workers: int) -> Iterator[tuple[CommitInfo, ...]]:
    """Divide commits into at most one part for each worker, with about equal numbers of events."""
    enough = -(-sum(info.events for info in infos) // workers)
    part: list[CommitInfo] = []
    held = 0
    for info in infos:
        part.append(info)
        held += info.events
        if held >= enough:
            yield tuple(part)
            part, held = [], 0
    if part:
        yield tuple(part)


def _sealed_step(sealed: Manifest, at: Checkpoint, workers: int) -> Step:
    """Return the step to the end of the sealed log, with a group of buckets in each part."""
    to = checkpoint_at(sealed)
    ahead = tuple(s for s in sealed.segments if _last(s) > at.position)
    span = Span(Head(dataclasses.replace(sealed, segments=ahead, heads=()), ()), at.position, to)
    buckets = sorted({s.bucket for s in ahead})
    parts = []
    for worker in range(workers):
        assigned = set(buckets[worker::workers])
        segments = tuple(s for s in ahead if s.bucket in assigned)
        if segments:
            parts.append(
                dataclasses.replace(span, head=Head(dataclasses.replace(span.head.sealed, segments=segments), ()))
            )
    return Step(span, tuple(parts), True)


def _last(segment: Segment) -> int:
    return segment.last_position + segment.position_base
