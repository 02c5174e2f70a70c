"""``refold rebuild``: read models anew from the log, in parallel, published at once.

seal the tail -> plan units from the manifest -> Beam: each unit stages what its buckets contribute, groups are merged
-> one loader fills a new database -> catch up from the sealed position to the head -> publish.

Readers are served the old generation until the new one is published. A killed rebuild finds its plan and what it
staged, and goes on from there.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import DisagreementError, EmptyLogError
from refold.pipelines.beam.runners import workers_of
from refold.pipelines.rebuild.publish import Publisher
from refold.pipelines.rebuild.replay import (
    Plan,
    RebuildProgress,
    Replayed,
    find_plan,
    forget_plan,
    identity_of,
    is_staged,
    replay,
    save_plan,
    staging_lost,
)
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.read_models.comparison.cut_over import Verified
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.dead_letters.dead_letters import published_discards
from refold.warehouse.read_models.generations.build import StagedModels, kept_models, scratch_folder
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    Seed,
    open_generations,
)
from refold.warehouse.read_models.planning.cost import replay_cost
from refold.warehouse.read_models.rebuild.seeds import choose_seed, seed_rows
from refold.warehouse.replay.contributions import compile_model
from refold.warehouse.replay.invalid_events import not_discarded, refuse

__all__ = ["RebuildProgress", "Rebuilt", "rebuild"]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        generation: what was published.
        events: how many events were replayed, each counted once a read model that reads it.
        bytes_read: compressed bytes of the columns that were read for it.
        bytes_stored: bytes of all segments.
        seconds: from start to publish.
        resumed: how many staged objects an earlier, killed run had left.
        dead_letters: how many events could not be applied, apart from those that somebody decided to go without.
        names: of the read models that were rebuilt.
        seeded: names of the read models that were started from a generation, and replayed only what came after.
        verified: what it was compared with before it was published, if that was asked for.
    """

    generation: Generation
    events: int
    bytes_read: int
    bytes_stored: int
    seconds: float = 0.0
    resumed: int = 0
    dead_letters: int = 0
    names: tuple[str, ...] = ()
    seeded: tuple[str, ...] = ()
    verified: Verified | None = None


def rebuild(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions,
    *,
    only: Sequence[str] = (),
    dead_letter: bool = False,
    verify: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Rebuilt:
    """Rebuild read models and publish a generation in which all stand at the head of the log.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options.
        only: names of the read models to rebuild; those that the newest generation holds beside them are taken over
            and caught up. All by default.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``, in place of stopping.
        verify: publish only if read models declared as they were agree with the newest generation, brought to the same
            position by increments.
        report: called with the progress, a few times a second.

    Raises:
        EmptyLogError: there is nothing to replay.
        InvalidEventsError: events cannot be applied; nothing was published.
        DamagedLogError: the log misses an object; nothing was published.
        GenerationError: others published all the time.
        DisagreementError: ``verify`` found a difference; nothing was published.
    """
    started = time.perf_counter()
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    generations = open_generations(read_models_url, domain.name)
    newest = generations.newest()
    kept_models(domain, log, names, newest)
    seeds = {m.name: choose_seed(m, domain, log, newest, generations) for m in models if m.seed is not None}
    publisher = Publisher(log, domain, generations, options, dead_letter, report, verify)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(generations.store)) if seeds else Path()
        seeded = [_from_seed(domain.read_model(n), seed, generations, folder) for n, seed in seeds.items()]
        replayed = [m for m in models if m.name not in seeds]
        if replayed:
            done = _replay(publisher, domain_ref, replayed, seeded, seeds)
        else:
            published, verified = publisher.publish(seeded, seeds=seeds)
            done = Rebuilt(published, events=0, bytes_read=0, bytes_stored=0, verified=verified)
    return dataclasses.replace(done, seconds=time.perf_counter() - started, names=names, seeded=tuple(seeds))


def _from_seed(model: ReadModel, seed: Seed, generations: Generations, folder: Path) -> StagedModels:
    at, path = seed_rows(model, seed, generations, folder)
    return StagedModels([model], at, {model.name: [path]}, replayed=False)


def _replay(
    publisher: Publisher,
    domain_ref: str,
    models: Sequence[ReadModel],
    seeded: Sequence[StagedModels],
    seeds: Mapping[str, Seed],
) -> Rebuilt:
    """Replay read models through Beam, and publish them with those that were seeded."""
    log, domain, store, options = publisher.log, publisher.domain, publisher.generations.store, publisher.options
    identity = identity_of(log, domain, models)
    publisher.report(RebuildProgress("seal"))
    names = tuple(m.name for m in models)
    plan = find_plan(store, identity) or _make_plan(store, identity, log, domain_ref, names, options)
    staging, clock = plan.staging(store), _Clock()
    replayed = replay(staging, plan, domain, models, options, publisher.report)
    clock.replayed()
    undecided = _undecided(replayed, publisher.generations, log)
    if undecided and not publisher.dead_letter:
        forget_plan(store, identity, plan)
        raise refuse(undecided, doing="The rebuild")
    costs = [replay_cost(compile_model(m, domain), domain, plan.sealed.segments) for m in models]
    bytes_read = sum(c.bytes_read for c in costs)
    # What an earlier run had staged took none of this run's time, so a resumed one tells nothing of the speed.
    measure = None if replayed.resumed else clock.measure(replayed.events, bytes_read, workers_of(options))
    try:
        staged = [_staged(models, plan, replayed), *seeded]
        published, verified = publisher.publish(staged, seeds=seeds, measure=measure)
    except duckdb.IOException as error:
        raise (error if is_staged(staging) else staging_lost(staging)) from error
    except DisagreementError:
        forget_plan(store, identity, plan)
        raise
    forget_plan(store, identity, plan)
    return Rebuilt(
        generation=published,
        events=replayed.events,
        bytes_read=bytes_read,
        bytes_stored=costs[0].bytes_stored,
        resumed=replayed.resumed,
        dead_letters=len(undecided),
        verified=verified,
    )


class _Clock:
    """Takes the time of a replay, and of what comes after it."""

    def __init__(self) -> None:
        self._started = self._replayed = time.perf_counter()

    def replayed(self) -> None:
        """Note that the replay is done."""
        self._replayed = time.perf_counter()

    def measure(self, events: int, bytes_read: int, workers: int) -> Callable[[], Measured]:
        """Give what tells, when it is called, how long all took."""

        def told() -> Measured:
            now = time.perf_counter()
            return Measured(
                events=events,
                bytes_read=bytes_read,
                seconds=round(now - self._started, 3),
                workers=workers,
                serial_seconds=round(now - self._replayed, 3),
            )

        return told


def _undecided(replayed: Replayed, generations: Generations, log: EventLog) -> list[InvalidEvent]:
    """Give the broken events that nobody decided to go without."""
    if not replayed.broken:
        return []
    discarded = published_discards(generations, generations.newest(), log_id=log.log_id)
    return not_discarded(replayed.broken, discarded)


def _make_plan(
    store: ObjectStore,
    identity: str,
    log: EventLog,
    domain_ref: str,
    names: tuple[str, ...],
    options: PipelineOptions,
) -> Plan:
    """Seal the tail, and plan to replay all that is sealed then."""
    seal(log, domain_ref, options)
    sealed = log.manifest()
    if sealed.sealed_position == 0:
        raise EmptyLogError(
            f"The log {log.url} holds no events, so there is nothing to build read models from. Append some, or import "
            "a history with `refold ingest`."
        )
    return save_plan(store, identity, Plan(str(uuid.uuid4()), log.url, domain_ref, names, workers_of(options), sealed))


def _staged(models: Sequence[ReadModel], plan: Plan, replayed: Replayed) -> StagedModels:
    sealed = plan.sealed
    at = Checkpoint(sealed.sealed_position, sealed.sealed_commit, sealed.recorded_at)
    return StagedModels(models, at, replayed.rows, replayed.broken)
