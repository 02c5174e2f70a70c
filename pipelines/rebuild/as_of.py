"""Read models as of an earlier position, in a private file: what they were when the log ended there.

seal, if need be -> plan units, bounded by the position -> Beam stages what the buckets contribute -> load -> name the
file. Nothing is published, and what is published is not looked at.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import workers_of
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
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.reads.seek import find_position
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.build import StagedModels, load
from refold.warehouse.read_models.increments.catch_up import advance
from refold.warehouse.replay.invalid_events import refuse

_LOADER_MEMORY = "2GB"


@dataclass(frozen=True, slots=True)
class AsOf:
    """A file of read models as of a position.

    Attributes:
        path: the file.
        at: where in the log all its tables stand.
        rows: read model to how many rows.
        events: how many events were planned to be replayed, each counted once a read model that reads it.
        seconds: how long it took.
        resumed: how many staged objects an earlier, killed run had left.
        dead_letters: how many events could not be applied.
    """

    path: Path
    at: Checkpoint
    rows: dict[str, int]
    events: int
    seconds: float
    resumed: int
    dead_letters: int


def rebuild_as_of(
    log: EventLog,
    domain_ref: str,
    options: PipelineOptions,
    *,
    position: int,
    to: Path,
    staging_url: str,
    only: Sequence[str] = (),
    seeded: Sequence[StagedModels] = (),
    dead_letter: bool = False,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> AsOf:
    """Build read models from exactly the events up to a position, into a file of their own.

    A position may lie within a commit; a merger then sees what is before it.

    Args:
        log: the log; what is not sealed yet is sealed, if the position lies there.
        domain_ref: the domain, by entry-point name or dotted path.
        options: Beam's options.
        position: the last event to apply.
        to: where the file goes; it appears there when it is complete.
        staging_url: where workers leave their results, reachable for all of them; a killed run is gone on with there.
        only: names of the read models to build. All by default.
        seeded: first rows of those among them that start from a seed; these replay only what came after.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``, in place of stopping.
        report: called with the progress, a few times a second.

    Raises:
        UsageError: the log has no such position, or something is at ``to`` already.
        EmptyLogError: the log holds no events.
        InvalidEventsError: events cannot be applied; nothing was built.
    """
    started = time.perf_counter()
    refuse_existing(to)
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    _refuse_unseeded(models, seeded)
    place = find_position(log, domain.registry, position)
    at = Checkpoint(place.position, place.commit_number, place.recorded_at)
    whole = [m for m in models if m.seed is None]
    build = functools.partial(_build, log, domain, at=at, to=to, seeded=seeded, threads=workers_of(options))
    if not whole:
        rows, replayed = build([]), Replayed({}, {}, 0, 0)
    else:
        store, identity = open_store(staging_url), identity_of(log, domain, whole, up_to=position)
        report(RebuildProgress("seal"))
        told = tuple(m.name for m in whole)
        plan = find_plan(store, identity) or _make_plan(store, identity, log, domain_ref, told, options, position)
        staging = plan.staging(store)
        replayed = replay(staging, plan, domain, whole, options, report)
        if replayed.broken and not dead_letter:
            forget_plan(store, identity, plan)
            raise refuse([b for found in replayed.broken.values() for b in found], doing="The rebuild")
        report(RebuildProgress("load"))
        try:
            rows = build([StagedModels(whole, at, replayed.rows, replayed.broken)])
        except duckdb.IOException as error:
            raise (error if is_staged(staging) else staging_lost(staging)) from error
        forget_plan(store, identity, plan)
    return AsOf(
        path=to,
        at=at,
        rows=rows,
        events=replayed.events,
        seconds=time.perf_counter() - started,
        resumed=replayed.resumed,
        dead_letters=sum(map(len, replayed.broken.values())),
    )


def _refuse_unseeded(models: Sequence[ReadModel], seeded: Sequence[StagedModels]) -> None:
    given = {m.name for group in seeded for m in group.models}
    if missing := [m.name for m in models if m.seed is not None and m.name not in given]:
        raise UsageError(
            f"Read model {missing[0]} starts from a published generation (seed=), so it cannot be built from the log "
            "alone. Name the other read models."
        )


def refuse_existing(path: Path) -> None:
    """Make sure that there is nothing at a path, and a folder to put it in.

    Raises:
        UsageError: there is something, or no such folder.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already, and is not overwritten. Give another path, or remove it first.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")


def _make_plan(
    store: ObjectStore,
    identity: str,
    log: EventLog,
    domain_ref: str,
    names: tuple[str, ...],
    options: PipelineOptions,
    position: int,
) -> Plan:
    """Plan to replay up to the position; seal first, if the log is not sealed up to there."""
    sealed = log.manifest()
    if sealed.sealed_position < position:
        seal(log, domain_ref, options)
        sealed = log.manifest()
    plan = Plan(str(uuid.uuid4()), log.url, domain_ref, names, workers_of(options), sealed, position)
    return save_plan(store, identity, plan)


def _build(
    log: EventLog,
    domain: Domain,
    replayed: Sequence[StagedModels],
    *,
    at: Checkpoint,
    to: Path,
    seeded: Sequence[StagedModels],
    threads: int,
) -> dict[str, int]:
    """Load a database beside its place, and give it its name when it is complete."""
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        path = folder / "working.duckdb"
        with closing(database.open_database(path, threads=threads, memory_limit=_LOADER_MEMORY)) as connection:
            for group in seeded:
                load(connection, log, domain, group)
                if group.at.position < at.position:
                    after, head = group.at.position, log.head()
                    advance(connection, log, domain, group.models, head, after=after, to=at, dead_letter=True)
            for group in replayed:
                load(connection, log, domain, group)
            database.create_views(connection, domain)
            finished = database.finish(connection, domain)
        name_file(path, to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {table.name: table.rows for table in finished}


def name_file(path: Path, to: Path) -> None:
    """Give a finished file its name, unless somebody else took that name meanwhile.

    Raises:
        UsageError: the name is taken.
    """
    try:
        os.link(path, to)
    except FileExistsError:
        refuse_existing(to)
    except OSError:  # a disk without hard links
        refuse_existing(to)
        os.rename(path, to)
