"""``refold rebuild``: read models anew from the log, in parallel, published at once.

seal the tail -> plan units from the manifest -> Beam: each unit stages what its buckets contribute, groups are merged
-> one loader fills a new database -> catch up from the sealed position to the head -> publish.

Readers are served the old generation until the new one is published. A killed rebuild finds its plan and what it
staged, and goes on from there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from event_schemas import EmptyLogError, GenerationError
from pipelines.replaying import (
    Plan,
    Progress,
    Replayed,
    find_plan,
    forget_plan,
    is_staged,
    replay,
    save_plan,
    staging_lost,
)
from pipelines.runners import workers_of
from pipelines.seal import seal
from warehouse.broken import not_discarded, refuse
from warehouse.contributions import compile_model
from warehouse.domain import Domain, load_domain
from warehouse.event_log.log import EventLog
from warehouse.fingerprint import fingerprint, fingerprint_parts
from warehouse.object_store import ObjectStore
from warehouse.parsing import BrokenEvent
from warehouse.projection import ReadModel
from warehouse.read_models import database
from warehouse.read_models.building import StagedModels, kept_models, load, publish, scratch_folder
from warehouse.read_models.catch_up import Standing, catch_up
from warehouse.read_models.cost import replay_cost
from warehouse.read_models.database import Checkpoint
from warehouse.read_models.dead_letters import published_discards
from warehouse.read_models.generations import Generation, Generations, open_generations

_PUBLISH_ATTEMPTS = 10
_LOADER_MEMORY = "2GB"

__all__ = ["Progress", "Rebuilt", "rebuild"]


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
    """

    generation: Generation
    events: int
    bytes_read: int
    bytes_stored: int
    seconds: float
    resumed: int
    dead_letters: int


def rebuild(
    log: EventLog,
    domain_ref: str,
    read_models_url: str,
    options: PipelineOptions,
    *,
    only: Sequence[str] = (),
    dead_letter: bool = False,
    report: Callable[[Progress], None] = lambda _: None,
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
        report: called with the progress, a few times a second.

    Raises:
        EmptyLogError: there is nothing to replay.
        BrokenEventsError: events cannot be applied; nothing was published.
        DamagedLogError: the log misses an object; nothing was published.
        GenerationError: others published all the time.
    """
    started = time.perf_counter()
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    generations = open_generations(read_models_url, domain.name)
    kept_models(domain, log, names, generations.newest())
    store, identity = generations.store, _identity(log, domain, models)
    report(Progress("seal"))
    plan = find_plan(store, identity) or _make_plan(store, identity, log, domain_ref, names, options)
    staging = plan.staging(store)
    replayed = replay(staging, plan, domain, models, options, report)
    undecided = _undecided(replayed, generations, log)
    if undecided and not dead_letter:
        forget_plan(store, identity, plan)
        raise refuse(undecided, doing="The rebuild")
    try:
        published = _build(log, domain, _staged(models, plan, replayed), generations, options, dead_letter, report)
    except duckdb.IOException as error:
        raise (error if is_staged(staging) else staging_lost(staging)) from error
    forget_plan(store, identity, plan)
    costs = [replay_cost(compile_model(m, domain), domain, plan.sealed.segments) for m in models]
    return Rebuilt(
        generation=published,
        events=replayed.events,
        bytes_read=sum(c.bytes_read for c in costs),
        bytes_stored=costs[0].bytes_stored,
        seconds=time.perf_counter() - started,
        resumed=replayed.resumed,
        dead_letters=len(undecided),
    )


def _undecided(replayed: Replayed, generations: Generations, log: EventLog) -> list[BrokenEvent]:
    """Give the broken events that nobody decided to go without."""
    if not replayed.broken:
        return []
    discarded = published_discards(generations, generations.newest(), log_id=log.log_id)
    return not_discarded(replayed.broken, discarded)


def _identity(log: EventLog, domain: Domain, models: Sequence[ReadModel]) -> str:
    """Name a rebuild by what it does, so that a later run of the same finds what a killed one staged."""
    made_by = {m.name: fingerprint(fingerprint_parts(m, domain)) for m in models}
    return fingerprint({"log": log.log_id, "duckdb": duckdb.__version__, **made_by})


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


def _build(
    log: EventLog,
    domain: Domain,
    staged: StagedModels,
    generations: Generations,
    options: PipelineOptions,
    dead_letter: bool,
    report: Callable[[Progress], None],
) -> Generation:
    """Load, catch up and publish; and once more on top of whoever published first meanwhile."""
    names = [m.name for m in staged.models]
    for _ in range(_PUBLISH_ATTEMPTS):
        parent = generations.newest()
        kept = kept_models(domain, log, names, parent)
        # A remote file is not fetched for this, unless there is something that may have been decided over.
        needed = staged.broken or kept or generations.store.is_local
        discarded = published_discards(generations, parent, log_id=log.log_id) if needed else {}
        with scratch_folder(generations.store) as folder:
            path = generations.working_copy(parent, folder) if kept and parent else folder / "working.duckdb"
            threads = workers_of(options)
            with closing(database.open_database(path, threads=threads, memory_limit=_LOADER_MEMORY)) as connection:
                standing = [Standing(kept, database.get_checkpoint(connection)), Standing(staged.models, staged.at)]
                report(Progress("load"))
                load(connection, log, domain, staged, discarded=discarded)
                report(Progress("catch up"))
                catch_up(connection, log, domain, standing, dead_letter=dead_letter, discarded=discarded)
                report(Progress("publish"))
                generation = publish(connection, path, log, domain, generations, parent)
        if generation is not None:
            return generation
    raise GenerationError(f"Others published to {generations.store.url} all the time; gave up. Run the rebuild again.")
