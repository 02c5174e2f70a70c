"""From staged rows to the next generation: load, catch up to the head of the log, publish.

A publisher that loses the race for a generation's number does this again on top of the winner's generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import GenerationError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.erasures import count_erasures
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database, withheld
from refold.warehouse.read_models.comparison.cut_over_check import Verified, check_cut_over
from refold.warehouse.read_models.dead_letters.dead_letters import count_open, published_discards
from refold.warehouse.read_models.generations.build import (
    StagedModels,
    kept_models,
    load,
    may_hold_erased,
    scratch_folder,
)
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    Seed,
    open_generations,
)
from refold.warehouse.read_models.generations.publish import publish
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up
from refold.warehouse.read_models.lag import check_history, checkpoint_of, find_end

_PUBLISH_ATTEMPTS = 10
"""Each lost race costs a load and a catch-up; more attempts only keep a busy store busy."""
_LOADER_MEMORY = "2GB"
"""Of the one loader; beyond it, DuckDB spills."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        generation: the generation.
        verified: what its read models were compared with, if that was wanted.
        dead_letters: how many open dead letters the new read models have.
    """

    generation: Generation
    verified: Verified | None
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Publisher:
    """Make the next generation.

    Attributes:
        log: the log.
        domain: contracts and read models.
        generations: where it publishes.
        options: Beam's options, for the number of workers; the local runner by default.
        dead_letter: collect events that cannot be applied; by default they are an error.
        report: called with the progress.
        verify: publish only what agrees with the newest generation, brought to the same position by increments.
    """

    log: EventLog
    domain: Domain
    generations: Generations
    options: PipelineOptions
    dead_letter: bool
    report: Callable[[RebuildProgress], None]
    verify: bool = False

    def publish(
        self,
        staged: Sequence[StagedModels],
        *,
        seeds: Mapping[str, Seed] | None = None,
        measure: Callable[[], Measured] | None = None,
    ) -> Published:
        """Load, catch up and publish; again, if another publisher was first.

        Args:
            staged: new read models; the others are taken over from the newest generation.
            seeds: read model to the generation that it started from.
            measure: called at the end, for the time that all this took.

        Raises:
            InvalidEventsError: an event cannot be applied; nothing was published.
            GenerationError: other publishers won every race.
            DisagreementError: ``verify`` found a difference; nothing was published.
        """
        for _ in range(_PUBLISH_ATTEMPTS):
            if (published := self._attempt(staged, seeds, measure)) is not None:
                return published
        url = self.generations.store.url
        raise GenerationError(
            f"Other processes published to {url} meanwhile, {_PUBLISH_ATTEMPTS} times. Run the command again."
        )

    def _attempt(
        self,
        staged: Sequence[StagedModels],
        seeds: Mapping[str, Seed] | None,
        measure: Callable[[], Measured] | None,
    ) -> Published | None:
        log, domain, generations = self.log, self.domain, self.generations
        parent = generations.newest()
        kept = kept_models(domain, log, [m.name for group in staged for m in group.models], parent)
        # A remote file is downloaded only if it may hold discarded dead letters that matter here.
        needed = kept or generations.store.is_local or any(group.invalid_events for group in staged)
        discarded = published_discards(generations, parent, log_id=log.log_id) if needed else {}
        erasures = count_erasures(log, domain.registry)
        purges = parent is not None and any(may_hold_erased(domain, m, parent, erasures) for m in domain.read_models)
        with scratch_folder(generations.store) as folder:
            copied = parent is not None and (kept or not staged)
            path = generations.working_copy(parent, folder) if copied and parent else folder / "working.duckdb"
            threads = workers_of(self.options)
            with closing(database.open_database(path, threads=threads, memory_limit=_LOADER_MEMORY)) as connection:
                sources = [ModelsAtCheckpoint(kept, database.get_checkpoint(connection))]
                sources += [ModelsAtCheckpoint(group.models, group.at) for group in staged]
                self.report(RebuildProgress("load"))
                for group in staged:
                    load(connection, log, domain, group, discarded=discarded)
                self.report(RebuildProgress("catch up"))
                catch_up(connection, log, domain, sources, dead_letter=self.dead_letter, discarded=discarded)
                if not self.dead_letter:
                    names = [m.name for group in sources for m in group.models]
                    withheld.refuse(connection, names, doing="The rebuild")
                models = [m for group in staged for m in group.models]
                letters = count_open(connection, [m.name for m in models])
                verified = None
                if self.verify:
                    self.report(RebuildProgress("verify"))
                    verified = check_cut_over(connection, log, domain, models, generations, parent, folder)
                self.report(RebuildProgress("publish"))
                kind = "rebuild" if staged else "refresh"
                with ExitStack() as opened:
                    if copied and purges:
                        path = database.rewritten(connection, path)
                        connection = opened.enter_context(closing(database.open_database(path, threads=threads)))
                    made = publish(
                        connection, path, log, domain, generations, parent, seeds=seeds, measure=measure, kind=kind
                    )
                return Published(made, verified, letters) if made else None


def republish(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions | None = None,
    *,
    dead_letter: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Generation:
    """Bring the newest generation to the head of the log and to the domain's current views, and publish it.

    No read model is rebuilt; those that are no longer declared are dropped.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options, for the number of workers; the local runner by default.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``; by default they are an error.
        report: called with the progress.

    Raises:
        UsageError: the declaration of a read model changed since it was built.
        GenerationError: nothing is published, or it is of another log, or other publishers won every race.
        InvalidEventsError: an event cannot be applied; nothing was published.
    """
    domain = load_domain(domain_ref)
    generations = open_generations(read_models_url, domain.name)
    newest = generations.newest()
    if newest is None:
        raise GenerationError(f"Nothing is published at {generations.store.url} yet. Run `refold rebuild` first.")
    if newest.log_id != log.log_id:
        raise GenerationError(
            f"Generation {newest.number} was built from another log than {log.url}. Rebuild all read models, or give "
            "another --read-models."
        )
    check_history(log, find_end(log), checkpoint_of(newest))
    return Publisher(log, domain, generations, options or beam_options(), dead_letter, report).publish([]).generation
