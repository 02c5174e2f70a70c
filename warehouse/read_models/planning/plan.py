"""What a rebuild would do, and why: each read model as it is declared against the newest generation.

All is told from manifests, footers and the generation's own description; no event and no published file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import (
    Parts,
    fingerprint,
    fingerprint_parts,
    view_digest,
)
from refold.warehouse.declarations.projection import ReadModel, keyed_by_stream
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.reads.scan import live_segments, overlaps
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.planning.cost import replay_cost
from refold.warehouse.read_models.planning.rate import Rate, rate_of
from refold.warehouse.read_models.rebuild.seeds import choose_seed
from refold.warehouse.replay.contributions import compile_model

DEFAULT_EVENT_BYTES = 50
"""What is read of an event, while nothing is sealed that would tell."""

DEFAULT_ROW_BYTES = 100
"""What a row takes in a published file, while nothing is published that would tell."""

_STAGED_EXPANSION = 2
"""What is staged is compressed less than segments are."""


class Verdict(StrEnum):
    """What becomes of a read model or view."""

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
        reasons: why, in words.
        forced: whether it is rebuilt though it is unchanged, since all were asked for.
        events: to replay for it; those that are not sealed yet are all counted, since their types are not known.
        bytes_read: compressed bytes of the columns that it reads of them.
        seconds: of the replay, without start-up.
        staging_bytes: what is staged for it on the way.
        table_bytes: what it will take in the new file.
        seed_position: where the rows of its seed stand; None without one.
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

    @property
    def to_rebuild(self) -> bool:
        """Whether it is made anew."""
        return self.forced or self.verdict in (Verdict.NEW, Verdict.CHANGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedView:
    """What a publish would do to one view: nothing is replayed for it."""

    name: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildPlan:
    """What a rebuild would do.

    Attributes:
        position: the end of the log.
        unsealed_events: how many events of the log are not sealed yet.
        generation: number of the newest generation; None if nothing is published.
        generation_position: where it stands; 0 if nothing is published.
        other_log: whether it was built from another log, so that all must be rebuilt.
        read_models: those of the domain in its order, then those that are no longer declared.
        views: those that are not as they are published.
        rate: what the seconds come from.
        seconds: of the whole rebuild.
        working_copy_bytes: what is copied of the newest generation, to be gone on from.
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
        """Names of the read models to make anew."""
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
        """How many events are replayed, each counted once a read model that reads it."""
        return sum(m.events for m in self.read_models)

    @property
    def bytes_read(self) -> int:
        """How many compressed bytes are read."""
        return sum(m.bytes_read for m in self.read_models)

    @property
    def disk_bytes(self) -> int:
        """How much room is needed at once: what is staged, the working copy, and the new tables in it."""
        return self.working_copy_bytes + sum(m.staging_bytes + m.table_bytes for m in self.read_models)

    @property
    def behind(self) -> int:
        """How many events the newest generation lacks."""
        return self.position if self.other_log else max(self.position - self.generation_position, 0)


def plan_rebuild(log: EventLog, domain: Domain, generations: Generations, *, everything: bool = False) -> RebuildPlan:
    """Compare the domain as it is declared with the newest generation, and foresee what a rebuild takes.

    Args:
        log: the log.
        domain: contracts and read models.
        generations: the published ones.
        everything: plan to make all read models anew, whether they have changed or not.
    """
    newest = generations.newest()
    head = log.head()
    other_log = newest is not None and newest.log_id != log.log_id
    outlook = _Outlook(log, domain, generations, newest, head, rate_of(newest))
    models = [outlook.of(m, everything=everything) for m in domain.read_models]
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
        rate=outlook.rate,
        seconds=outlook.rate.seconds(total) if work else 0.0,
        working_copy_bytes=newest.bytes if newest and kept and (work or views or _removed(domain, newest)) else 0,
    )


def changed_parts(before: Mapping[str, str], now: Parts) -> tuple[str, ...]:
    """Tell in words which parts of a fingerprint are not as they were.

    Example:
        >>> changed_parts({"declaration": "a", "handler Paid": "b"}, {"declaration": "c", "handler Sent": "d"})
        ('declaration changed', 'handler Sent is new', 'handler Paid is gone')
    """
    told = [f"{name} {'changed' if name in before else 'is new'}" for name in now if before.get(name) != now[name]]
    return (*told, *(f"{name} is gone" for name in before if name not in now))


def _removed(domain: Domain, newest: Generation | None) -> list[PlannedModel]:
    declared = {m.name for m in domain.read_models}
    gone = sorted(set(newest.tables if newest else ()) - declared)
    return [PlannedModel(name=n, verdict=Verdict.REMOVED, reasons=("it is no longer declared",)) for n in gone]


def _views(domain: Domain, newest: Generation) -> Iterable[PlannedView]:
    if newest.views is None:  # published before views were noted: nothing can be said of them
        return
    now = {v.name: view_digest(v) for v in domain.views}
    for name, digest in now.items():
        if name not in newest.views:
            yield PlannedView(name=name, verdict=Verdict.NEW, reasons=("it was never published",))
        elif newest.views[name] != digest:
            yield PlannedView(name=name, verdict=Verdict.CHANGED, reasons=("its SQL changed",))
    for name in sorted(newest.views.keys() - now.keys()):
        yield PlannedView(name=name, verdict=Verdict.REMOVED, reasons=("it is no longer declared",))


@dataclass(frozen=True, slots=True)
class _Outlook:
    """What there is to foresee a rebuild from."""

    log: EventLog
    domain: Domain
    generations: Generations
    newest: Generation | None
    head: Head
    rate: Rate

    def of(self, model: ReadModel, *, everything: bool) -> PlannedModel:
        """Plan one read model that is declared."""
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
            reasons=("all are to be rebuilt",) if forced else reasons,
            forced=forced,
            events=events,
            bytes_read=bytes_read,
            seconds=self.rate.seconds(events) - self.rate.startup_seconds,
            staging_bytes=table if small else bytes_read * _STAGED_EXPANSION,
            table_bytes=table,
            seed_position=after,
        )

    def _verdict(self, model: ReadModel) -> tuple[Verdict, tuple[str, ...]]:
        before = self.newest.tables.get(model.name) if self.newest else None
        if self.newest is None or before is None:
            return Verdict.NEW, ("it was never built",)
        if self.newest.log_id != self.log.log_id:
            return Verdict.CHANGED, (f"generation {self.newest.number} was built from another log",)
        parts = fingerprint_parts(model, self.domain)
        if before.fingerprint == fingerprint(parts):
            return Verdict.UNCHANGED, ()
        return Verdict.CHANGED, changed_parts(before.parts, parts) or ("the way of fingerprinting changed",)

    def _seed_position(self, model: ReadModel) -> int | None:
        if model.seed is None or self.newest is None or self.newest.log_id != self.log.log_id:
            return None
        return choose_seed(model, self.domain, self.log, self.newest, self.generations).position

    def _replay(self, model: ReadModel, after: int) -> tuple[int, int]:
        """Count events and bytes: sealed ones by type, the others all."""
        segments = [s for s in live_segments(self.head) if overlaps(s, after, self.head.position)]
        cost = replay_cost(compile_model(model, self.domain), self.domain, segments)
        each = cost.bytes_read / cost.events if cost.events else DEFAULT_EVENT_BYTES
        tail = sum(
            info.last_position - max(info.first_position - 1, after)
            for info in self.head.tail
            if info.import_id is None and info.last_position > after
        )
        return cost.events + tail, round(cost.bytes_read + tail * each)

    def _table_bytes(self, model: ReadModel, events: int) -> int:
        """Take the size that the table had, grown as the log did; of a new one, at most a row a stream."""
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
