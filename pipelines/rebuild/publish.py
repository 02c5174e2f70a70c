"""From staged rows to the next generation: load, catch up to the head of the log, publish.

Whoever loses the race for a generation's number does it again on top of the winner's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import GenerationError
from refold.pipelines.beam.runners import workers_of
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database
from refold.warehouse.read_models.comparison.cut_over import Verified, check_cut_over
from refold.warehouse.read_models.dead_letters.dead_letters import published_discards
from refold.warehouse.read_models.generations.build import (
    StagedModels,
    kept_models,
    load,
    publish,
    scratch_folder,
)
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    Seed,
    open_generations,
)
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up

_PUBLISH_ATTEMPTS = 10
_LOADER_MEMORY = "2GB"


@dataclass(frozen=True, slots=True)
class Publisher:
    """All that it takes to make the next generation.

    Attributes:
        log: the log.
        domain: contracts and read models.
        generations: where to publish.
        options: Beam's options, for the number of workers.
        dead_letter: keep events that cannot be applied, in place of stopping.
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
    ) -> tuple[Generation, Verified | None]:
        """Load, catch up and publish; and once more on top of whoever published first meanwhile.

        Args:
            staged: read models to make anew; the others are taken over from the newest generation.
            seeds: of those, what was started from which generation.
            measure: tells, when all is done, what it took.

        Raises:
            InvalidEventsError: an event cannot be applied; nothing was published.
            GenerationError: others published all the time.
            DisagreementError: ``verify`` found a difference; nothing was published.
        """
        for _ in range(_PUBLISH_ATTEMPTS):
            generation, verified = self._attempt(staged, seeds, measure)
            if generation is not None:
                return generation, verified
        url = self.generations.store.url
        raise GenerationError(f"Others published to {url} all the time; gave up. Run the command again.")

    def _attempt(
        self,
        staged: Sequence[StagedModels],
        seeds: Mapping[str, Seed] | None,
        measure: Callable[[], Measured] | None,
    ) -> tuple[Generation | None, Verified | None]:
        log, domain, generations = self.log, self.domain, self.generations
        parent = generations.newest()
        kept = kept_models(domain, log, [m.name for group in staged for m in group.models], parent)
        # A remote file is not fetched for this, unless there is something that may have been decided over.
        needed = kept or generations.store.is_local or any(group.invalid_events for group in staged)
        discarded = published_discards(generations, parent, log_id=log.log_id) if needed else {}
        with scratch_folder(generations.store) as folder:
            copied = parent is not None and (kept or not staged)
            path = generations.working_copy(parent, folder) if copied and parent else folder / "working.duckdb"
            threads = workers_of(self.options)
            with closing(database.open_database(path, threads=threads, memory_limit=_LOADER_MEMORY)) as connection:
                standing = [ModelsAtCheckpoint(kept, database.get_checkpoint(connection))]
                standing += [ModelsAtCheckpoint(group.models, group.at) for group in staged]
                self.report(RebuildProgress("load"))
                for group in staged:
                    load(connection, log, domain, group, discarded=discarded)
                self.report(RebuildProgress("catch up"))
                catch_up(connection, log, domain, standing, dead_letter=self.dead_letter, discarded=discarded)
                verified = None
                if self.verify:
                    self.report(RebuildProgress("verify"))
                    models = [m for group in staged for m in group.models]
                    verified = check_cut_over(connection, log, domain, models, generations, parent, folder)
                self.report(RebuildProgress("publish"))
                kind = "rebuild" if staged else "refresh"
                made = publish(
                    connection, path, log, domain, generations, parent, seeds=seeds, measure=measure, kind=kind
                )
                return made, verified


def republish(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions,
    *,
    dead_letter: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> Generation:
    """Bring the newest generation to the head of the log and to the domain's present views, and publish it.

    Read models that are no longer declared are dropped. None is rebuilt.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        read_models_url: where generations are published.
        options: Beam's options, for the number of workers.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``, in place of stopping.
        report: called with the progress.

    Raises:
        UsageError: a read model is declared otherwise than it was built.
        GenerationError: nothing is published, or it is of another log, or others published all the time.
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
    return Publisher(log, domain, generations, options, dead_letter, report).publish([])[0]
