"""``refold rebuild``: builds read models from the whole log again, in parallel, and publishes them at once.

seal the tail -> plan units from the manifest -> Beam: each unit stages the contributions of its buckets, and groups are
merged -> one loader fills a new database -> catch up from the sealed position to the head -> publish.

Readers see the old generation until the new one is published. After a crash, a rebuild finds its plan and what it
staged, and resumes there.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import DisagreementError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.rebuild.publisher import Publisher
from refold.pipelines.rebuild.replay import RebuildProgress, Replayed
from refold.pipelines.rebuild.staged_replay import staged_replay
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.read_models.comparison.cut_over_check import Verified
from refold.warehouse.read_models.dead_letters.dead_letters import published_discards
from refold.warehouse.read_models.generations.build import StagedModels, kept_models, scratch_folder
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    Seed,
    open_generations,
)
from refold.warehouse.read_models.planning.archived import refuse_archived
from refold.warehouse.read_models.planning.cost import CostEstimator
from refold.warehouse.read_models.rebuild.seeds import choose_seed, seed_rows
from refold.warehouse.replay.invalid_events import not_discarded

__all__ = ["RebuildProgress", "Rebuilt", "rebuild"]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        generation: what it published.
        events: how many events it replayed, each counted once a read model that reads it.
        bytes_read: compressed bytes of the columns that it read for that.
        bytes_stored: bytes of all segments.
        seconds: from start to publish.
        resumed: how many staged objects an earlier, killed run had left.
        dead_letters: how many open dead letters the rebuilt read models have: events that could not be applied, and
            those since which rows are withheld because a total does not fit.
        names: of the read models that were rebuilt.
        seeded: of those, the read models that started from a generation and replayed only what came after it.
        verified: what they were compared with before they were published, if ``verify`` was set.
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
    options: PipelineOptions | None = None,
    *,
    only: Sequence[str] = (),
    dead_letter: bool = False,
    verify: bool = False,
    hot_only: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Rebuilt:
    """Rebuild read models, and publish a generation in which all of them are at the head of the log.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options; the local runner by default.
        only: names of the read models to rebuild; the newest generation's others are brought to the head of the log by
            increments. All by default.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``; by default they are an error.
        verify: publish only if read models whose declaration did not change agree with the newest generation, brought
            to the same position by increments.
        hot_only: refuse to read the archive.
        report: called with the progress, a few times a second.

    Raises:
        UsageError: ``hot_only`` is set, and a read model needs events from the archive.
        EmptyLogError: there is nothing to replay.
        InvalidEventsError: events cannot be applied; nothing was published.
        DamagedLogError: the log misses an object; nothing was published.
        GenerationError: other publishers won every race.
        DisagreementError: ``verify`` found a difference; nothing was published.

    Example:
        >>> from decimal import Decimal
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, rebuild
        >>> from refold.event_schemas.trading import CashDeposited
        >>> log = create_log(mkdtemp(), domain_name="trading")
        >>> deposit = CashDeposited(trader_id="ada", amount=Decimal("100.00"))
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", [deposit])
        >>> rebuild(log, "trading", mkdtemp()).generation.position
        1
    """
    started = time.perf_counter()
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    generations = open_generations(read_models_url, domain.name)
    newest = generations.newest()
    kept_models(domain, log, names, newest)
    seeds = {m.name: choose_seed(m, domain, log, newest, generations) for m in models if m.seed is not None}
    if hot_only:
        refuse_archived(domain, models, log.manifest().segments, {name: seed.position for name, seed in seeds.items()})
    publisher = Publisher(log, domain, generations, options or beam_options(), dead_letter, report, verify)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(generations.store)) if seeds else Path()
        seeded = [_from_seed(domain.read_model(n), seed, generations, folder) for n, seed in seeds.items()]
        replayed = [m for m in models if m.name not in seeds]
        if replayed:
            done = _replay(publisher, domain_ref, replayed, seeded, seeds)
        else:
            made = publisher.publish(seeded, seeds=seeds)
            done = Rebuilt(
                made.generation,
                events=0,
                bytes_read=0,
                bytes_stored=0,
                dead_letters=made.dead_letters,
                verified=made.verified,
            )
    return dataclasses.replace(done, seconds=time.perf_counter() - started, names=names, seeded=tuple(seeds))


def _from_seed(model: ReadModel, seed: Seed, generations: Generations, folder: Path) -> StagedModels:
    at, path = seed_rows(model, seed, generations, folder)
    return StagedModels([model], at, {model.name: [path]}, replayed=False, erasures=_erasures_before(seed, generations))


def _erasures_before(seed: Seed, generations: Generations) -> int:
    """Return how many erasures the rows of a seed are sure to be after; 0 if its generation is gone."""
    found = [g for g in generations.all() if g.number == seed.generation]
    return min((table.erasures for g in found for table in g.tables.values()), default=0)


def _replay(
    publisher: Publisher,
    domain_ref: str,
    models: Sequence[ReadModel],
    seeded: Sequence[StagedModels],
    seeds: Mapping[str, Seed],
) -> Rebuilt:
    """Replay read models through Beam, and publish them together with the seeded ones."""
    log, domain, generations, options = publisher.log, publisher.domain, publisher.generations, publisher.options
    with staged_replay(log, domain, domain_ref, models, generations.store, options, publisher.report) as staged:
        replayed, segments = staged.replayed, staged.plan.sealed.segments
        if not publisher.dead_letter:
            staged.refuse(_undecided(replayed, generations, log))
        with CostEstimator(domain) as estimator:
            costs = [estimator.cost(m, segments) for m in models]
        bytes_read = sum(c.bytes_read for c in costs)
        try:
            made = publisher.publish(
                [staged.staged_models(), *seeded],
                seeds=seeds,
                measure=_measure(replayed, bytes_read, workers_of(options)),
            )
        except DisagreementError:
            staged.discard()
            raise
    return Rebuilt(
        generation=made.generation,
        events=replayed.events,
        bytes_read=bytes_read,
        bytes_stored=costs[0].bytes_stored,
        resumed=replayed.resumed,
        dead_letters=made.dead_letters,
        verified=made.verified,
    )


def _measure(replayed: Replayed, bytes_read: int, workers: int) -> Callable[[], Measured] | None:
    """Return a function that measures the rebuild when it is called, at its end.

    A resumed run has no measure: what it found staged took none of its time.
    """
    if replayed.resumed:
        return None
    end_of_replay = time.perf_counter()

    def measure() -> Measured:
        serial = time.perf_counter() - end_of_replay
        return Measured(
            events=replayed.events,
            bytes_read=bytes_read,
            seconds=round(replayed.seconds + serial, 3),
            workers=workers,
            serial_seconds=round(serial, 3),
        )

    return measure


def _undecided(replayed: Replayed, generations: Generations, log: EventLog) -> list[InvalidEvent]:
    """Return the invalid events that were not discarded."""
    if not replayed.invalid_events:
        return []
    discarded = published_discards(generations, generations.newest(), log_id=log.log_id)
    return not_discarded(replayed.invalid_events, discarded)
