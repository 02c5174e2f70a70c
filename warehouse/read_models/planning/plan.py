"""Plans: what a rebuild would do and why, from the declared read models and the newest generation.

A plan reads manifests, footers and the generation's description, but no event and no published file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import (
    Parts,
    fingerprint,
    fingerprint_parts,
    view_digests,
)
from refold.warehouse.declarations.projection import ReadModel, keyed_by_stream
from refold.warehouse.event_log.erasures import count_erasures
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.reads.scan import live_segments, overlaps
from refold.warehouse.read_models.generations.build import may_hold_erased
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.planning.archived import archived_segments
from refold.warehouse.read_models.planning.cost import CostEstimator
from refold.warehouse.read_models.planning.rate import Rate, rate_of
from refold.warehouse.read_models.rebuild.seeds import choose_seed

DEFAULT_EVENT_BYTES = 50
"""Assumed compressed bytes read of an event, if no event is sealed."""

DEFAULT_ROW_BYTES = 100
"""Assumed bytes of a row in a published file, if nothing is published."""

_STAGED_EXPANSION = 2
"""Factor from bytes read to bytes staged: staged files are compressed less than segments."""


class Verdict(StrEnum):
    """State of a declared read model or view compared with the newest generation."""

    UNCHANGED = "unchanged"
    NEW = "new"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """What a rebuild would do to one read model.

    Attributes:
        name: the read model.
        verdict: new and changed ones are rebuilt, unchanged ones kept, removed ones dropped.
        reasons: the reasons, as text.
        forced: whether it is rebuilt although it is unchanged, because a rebuild of all was requested.
        events: number of events to replay; all unsealed ones count, since their types are unknown.
        bytes_read: compressed bytes of the columns that it reads.
        seconds: estimated time of the replay, without start-up.
        staging_bytes: estimated bytes of its staged files.
        table_bytes: estimated bytes of its table in the new file.
        seed_position: position of its seed's rows; None without a seed.
        archived: URLs of the archived segments that it reads, with their sizes in bytes.
    """

    name: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    forced: bool = False
    events: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    staging_bytes: int = 0
    table_bytes: int = 0
    seed_position: int | None = None
    archived: Mapping[str, int] = field(default_factory=dict)

    @property
    def to_rebuild(self) -> bool:
        """Whether a rebuild builds it."""
        return self.forced or self.verdict in (Verdict.NEW, Verdict.CHANGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedView:
    """What a publish would do to one view; views need no replay."""

    name: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildPlan:
    """What a rebuild would do.

    Attributes:
        position: position of the end of the log.
        unsealed_events: number of unsealed events.
        generation: number of the newest generation; None if nothing is published.
        generation_position: position of that generation; 0 if nothing is published.
        other_log: whether it was built from another log, so that everything must be rebuilt.
        read_models: those of the domain in its order, then those that are no longer declared.
        views: views that differ from the published ones.
        rate: the rate from which the times are estimated.
        seconds: estimated time of the whole rebuild.
        working_copy_bytes: bytes of the newest generation that are copied to keep some of its tables.
    """

    position: int
    unsealed_events: int
    generation: int | None
    generation_position: int
    other_log: bool
    read_models: tuple[PlannedModel, ...]
    views: tuple[PlannedView, ...]
    rate: Rate
    seconds: float
    working_copy_bytes: int

    @property
    def to_rebuild(self) -> tuple[str, ...]:
        """Names of the read models to build."""
        return tuple(m.name for m in self.read_models if m.to_rebuild)

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the read models to drop."""
        return tuple(m.name for m in self.read_models if m.verdict is Verdict.REMOVED)

    @property
    def work(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.to_rebuild or self.removed or self.views)

    @property
    def events(self) -> int:
        """Number of events to replay, counted once for each read model that reads them."""
        return sum(m.events for m in self.read_models)

    @property
    def bytes_read(self) -> int:
        """Number of compressed bytes to read."""
        return sum(m.bytes_read for m in self.read_models)

    @property
    def disk_bytes(self) -> int:
        """Disk space needed at the same time: staged files, the working copy, and its new tables."""
        return self.working_copy_bytes + sum(m.staging_bytes + m.table_bytes for m in self.read_models)

    @property
    def archived_bytes(self) -> int:
        """Number of bytes to read from the archive; a segment that several read models need is read once."""
        archived: dict[str, int] = {}
        for model in self.read_models:
            archived |= model.archived
        return sum(archived.values())

    @property
    def behind(self) -> int:
        """Number of events that the newest generation lacks."""
        return self.position if self.other_log else max(self.position - self.generation_position, 0)


def plan_rebuild(log: EventLog, domain: Domain, generations: Generations, *, everything: bool = False) -> RebuildPlan:
    """Compare the declared domain with the newest generation, and estimate the cost of a rebuild.

    Args:
        log: the log.
        domain: contracts and read models.
        generations: the published generations.
        everything: plan to rebuild all read models, changed or not.
    """
    newest = generations.newest()
    head = log.head()
    other_log = newest is not None and newest.log_id != log.log_id
    rate = rate_of(newest)
    with CostEstimator(domain) as costs:
        planner = _Planner(log, domain, generations, newest, head, rate, costs, count_erasures(log, domain.registry))
        models = [planner.plan(m, everything=everything) for m in domain.read_models]
    models += _removed(domain, newest)
    total = sum(m.events for m in models)
    kept = any(not m.to_rebuild and m.verdict is Verdict.UNCHANGED for m in models)
    views = () if newest is None or other_log else tuple(_views(domain, newest))
    work = any(m.to_rebuild for m in models)
    return RebuildPlan(
        position=head.position,
        unsealed_events=head.position - head.sealed.sealed_position,
        generation=newest.number if newest else None,
        generation_position=newest.position if newest else 0,
        other_log=other_log,
        read_models=tuple(models),
        views=views,
        rate=rate,
        seconds=rate.seconds(total) if work else 0.0,
        working_copy_bytes=newest.bytes if newest and kept and (work or views or _removed(domain, newest)) else 0,
    )


def changed_parts(before: Mapping[str, str], now: Parts) -> tuple[str, ...]:
    """Describe which parts of a fingerprint have changed.

    Example:
        >>> changed_parts({"declaration": "a", "handler Paid": "b"}, {"declaration": "c", "handler Sent": "d"})
        ('declaration changed', 'handler Sent is new', 'handler Paid is gone')
    """
    changed = [f"{name} {'changed' if name in before else 'is new'}" for name in now if before.get(name) != now[name]]
    return (*changed, *(f"{name} is gone" for name in before if name not in now))


def _removed(domain: Domain, newest: Generation | None) -> list[PlannedModel]:
    declared = {m.name for m in domain.read_models}
    gone = sorted(set(newest.tables if newest else ()) - declared)
    return [PlannedModel(name=n, verdict=Verdict.REMOVED, reasons=("it is no longer declared",)) for n in gone]


def _views(domain: Domain, newest: Generation) -> Iterable[PlannedView]:
    if newest.views is None:  # published before generations had view digests: nothing to compare with
        return
    now = view_digests(domain)
    for name, digest in now.items():
        if name not in newest.views:
            yield PlannedView(name=name, verdict=Verdict.NEW, reasons=("it was never published",))
        elif newest.views[name] != digest:
            yield PlannedView(name=name, verdict=Verdict.CHANGED, reasons=("its SQL changed",))
    for name in sorted(newest.views.keys() - now.keys()):
        yield PlannedView(name=name, verdict=Verdict.REMOVED, reasons=("it is no longer declared",))


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans read models, with what the estimates are based on."""

    log: EventLog
    domain: Domain
    generations: Generations
    newest: Generation | None
    head: Head
    rate: Rate
    costs: CostEstimator
    erasures: int

    def plan(self, model: ReadModel, *, everything: bool) -> PlannedModel:
        """Plan one declared read model."""
        verdict, reasons = self._verdict(model)
        forced = everything and verdict is Verdict.UNCHANGED
        if verdict is Verdict.UNCHANGED and not forced:
            return PlannedModel(name=model.name, verdict=verdict)
        after = self._seed_position(model)
        if model.seed is not None and after is None:
            reasons = (*reasons, "its seed needs a published generation of this log, and there is none")
        events, bytes_read = self._replay(model, after or 0)
        table = self._table_bytes(model, events)
        small = keyed_by_stream(model) or after is not None
        return PlannedModel(
            name=model.name,
            verdict=verdict,
            reasons=("a rebuild of all was requested",) if forced else reasons,
            forced=forced,
            events=events,
            bytes_read=bytes_read,
            seconds=self.rate.seconds(events) - self.rate.startup_seconds,
            staging_bytes=table if small else bytes_read * _STAGED_EXPANSION,
            table_bytes=table,
            seed_position=after,
            archived={
                self.log.url_of(s): s.bytes
                for s in archived_segments(self.domain, model, self.head.sealed.segments, after or 0)
            },
        )

    def _verdict(self, model: ReadModel) -> tuple[Verdict, tuple[str, ...]]:
        before = self.newest.tables.get(model.name) if self.newest else None
        if self.newest is None or before is None:
            return Verdict.NEW, ("it was never built",)
        if self.newest.log_id != self.log.log_id:
            return Verdict.CHANGED, (f"generation {self.newest.number} was built from another log",)
        parts = fingerprint_parts(model, self.domain)
        if before.fingerprint == fingerprint(parts):
            if may_hold_erased(self.domain, model, self.newest, self.erasures):
                return Verdict.CHANGED, ("it may hold data of subjects that were erased since",)
            return Verdict.UNCHANGED, ()
        return Verdict.CHANGED, changed_parts(before.parts, parts) or ("refold computes fingerprints differently",)

    def _seed_position(self, model: ReadModel) -> int | None:
        if model.seed is None or self.newest is None or self.newest.log_id != self.log.log_id:
            return None
        return choose_seed(model, self.domain, self.log, self.newest, self.generations).position

    def _replay(self, model: ReadModel, after: int) -> tuple[int, int]:
        """Estimate events and bytes: sealed events by type, and all unsealed ones."""
        segments = [s for s in live_segments(self.head) if overlaps(s, after, self.head.position)]
        cost = self.costs.cost(model, segments)
        each = cost.bytes_read / cost.events if cost.events else DEFAULT_EVENT_BYTES
        tail = sum(
            info.last_position - max(info.first_position - 1, after)
            for info in self.head.tail
            if info.import_id is None and info.last_position > after
        )
        return cost.events + tail, round(cost.bytes_read + tail * each)

    def _table_bytes(self, model: ReadModel, events: int) -> int:
        """Estimate a table's size: the published size, grown as the log; for a new table at most a row per stream."""
        held = sum(t.rows for t in self.newest.tables.values()) if self.newest else 0
        each = self.newest.bytes / held if self.newest and held else DEFAULT_ROW_BYTES
        before = self.newest.tables.get(model.name) if self.newest else None
        if self.newest and before:
            grown = max(self.head.position / self.newest.position, 1.0) if self.newest.position else 1.0
            return round(before.rows * each * grown)
        streams = sum(h.rows for h in self.head.sealed.heads) + sum(
            len(i.heads) + sum(h.rows for h in i.heads_runs) for i in self.head.tail
        )
        return round(min(events, streams) * each)
