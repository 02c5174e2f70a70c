"""Spans: whole commits to go forward by, cut so that several workers can read one step side by side.

A commit is never cut, since a merger joins events within one: so any way of going forward gives the same rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.manifest import Manifest, Segment
from refold.warehouse.event_log.payload_parsing import Typed
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.replay.event_ranges import typed_range
from refold.warehouse.replay.history import sources_of


@dataclass(frozen=True, slots=True)
class SpanLimits:
    """How large a step is.

    Attributes:
        small_events: up to here, one worker is faster than the way to several.
        small_commits: likewise.
        most_events: about where a step ends, so that what it contributes fits into memory.
        most_commits: likewise.
    """

    small_events: int = 20_000
    small_commits: int = 500
    most_events: int = 400_000
    most_commits: int = 10_000


@dataclass(frozen=True, slots=True)
class Span:
    """Some of the events of whole commits.

    Attributes:
        head: tells what lies where; it may know more of the log than the span.
        after: the position before the first event.
        to: where tables stand afterwards.
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
    """How far to go next.

    Attributes:
        whole: the span of all its events.
        parts: the same events, cut for workers.
        full: whether there is more to come at once.
    """

    whole: Span
    parts: tuple[Span, ...]
    full: bool

    @property
    def events(self) -> int:
        """How many events it goes forward by."""
        return self.whole.to.position - self.whole.after


def next_step(
    log: EventLog, at: Checkpoint, *, workers: int, sealed: Manifest | None = None, limits: SpanLimits | None = None
) -> Step | None:
    """Look which commits follow a checkpoint, by asking for one after the other.

    Args:
        log: the log.
        at: where tables stand.
        workers: into how many parts a large step is cut.
        sealed: a manifest, if there is so much to read that segments should be read in place of commits.
        limits: how large a step is.

    Returns:
        A step, or None if nothing follows.
    """
    if sealed is not None and sealed.sealed_position > at.position:
        return _sealed_step(sealed, at, workers)
    limits = limits or SpanLimits()
    infos: list[CommitInfo] = []
    events, full = 0, False
    for info in log.commits_after(at.commit_number):
        infos.append(dataclasses.replace(info, heads={}))
        events += info.events
        if full := events >= limits.most_events or len(infos) >= limits.most_commits:
            break
    if not infos:
        return None
    to = _checkpoint(infos[-1])
    whole = Span(Head(Manifest(), tuple(infos)), at.position, to)
    if events <= limits.small_events and len(infos) <= limits.small_commits:
        return Step(whole, (whole,), False)
    parts = tuple(Span(Head(Manifest(), p), p[0].first_position - 1, _checkpoint(p[-1])) for p in _cut(infos, workers))
    return Step(whole, parts, full)


def _checkpoint(info: CommitInfo) -> Checkpoint:
    return Checkpoint(info.last_position, info.number, info.recorded_at.isoformat())


def _cut(infos: Sequence[CommitInfo], workers: int) -> Iterator[tuple[CommitInfo, ...]]:
    """Cut commits into as many parts as there are workers, of about as many events each."""
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
    """Go to where the log is sealed, a group of buckets to a part."""
    to = Checkpoint(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at)
    ahead = tuple(s for s in sealed.segments if _last(s) > at.position)
    whole = Span(Head(dataclasses.replace(sealed, segments=ahead, heads=()), ()), at.position, to)
    buckets = sorted({s.bucket for s in ahead})
    parts = []
    for worker in range(workers):
        mine = set(buckets[worker::workers])
        segments = tuple(s for s in ahead if s.bucket in mine)
        if segments:
            parts.append(
                dataclasses.replace(whole, head=Head(dataclasses.replace(whole.head.sealed, segments=segments), ()))
            )
    return Step(whole, tuple(parts), True)


def _last(segment: Segment) -> int:
    return segment.last_position + segment.position_base
