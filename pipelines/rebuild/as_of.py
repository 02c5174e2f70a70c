"""Read models as of an earlier position, in a private file: as they were when the log ended there.

seal, if need be -> plan units, bounded by the position -> Beam stages the contributions of buckets -> load -> name the
file. Nothing is published, and published generations are not read.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.rebuild.new_file import name_file, refuse_existing
from refold.pipelines.rebuild.replay import RebuildProgress
from refold.pipelines.rebuild.staged_replay import staged_replay
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.engine_paths import can_write_databases
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.reads.seek import find_position
from refold.warehouse.object_store import open_store
from refold.warehouse.read_models import database, withheld
from refold.warehouse.read_models.database import NOTHING_DISCARDED, Checkpoint
from refold.warehouse.read_models.dead_letters.dead_letters import count_open
from refold.warehouse.read_models.generations.build import StagedModels, load
from refold.warehouse.read_models.increments.catch_up import advance
from refold.warehouse.replay.invalid_events import not_discarded

_LOADER_MEMORY = "2GB"
"""Of the one loader; beyond it, DuckDB spills."""


@dataclass(frozen=True, slots=True)
class AsOf:
    """A file of read models as of a position.

    Attributes:
        path: the file.
        at: the position of all its tables in the log.
        rows: read model to how many rows.
        events: how many events were replayed, each counted once a read model that reads it.
        seconds: how long it took.
        resumed: how many staged objects an earlier, killed run had left.
        dead_letters: how many open dead letters the read models have: events that could not be applied, and those since
            which rows are withheld because a total does not fit.
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
    options: PipelineOptions | None = None,
    *,
    position: int,
    to: Path,
    staging_url: str,
    only: Sequence[str] = (),
    seeded: Sequence[StagedModels] = (),
    dead_letter: bool = False,
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
    report: Callable[[RebuildProgress], None] = lambda _: None,
) -> AsOf:
    """Build read models from exactly the events up to a position, into a private file.

    A position may lie within a commit; a merger then sees the events before it.

    Args:
        log: the log; its tail is sealed, if the position lies there.
        domain_ref: the domain, by entry-point name or dotted path.
        options: Beam's options; the local runner by default.
        position: the last event to apply.
        to: where the file goes; it appears there when it is complete.
        staging_url: where workers stage their results, reachable for all of them; a killed run is resumed from there.
        only: names of the read models to build. All by default.
        seeded: first rows of those read models that start from a seed; they replay only what came after it.
        dead_letter: collect events that cannot be applied in ``refold.dead_letters``; by default they are an error.
        discarded: read model and position of discarded dead letters, and when they were discarded; they are no error.
        report: called with the progress, a few times a second.

    Raises:
        UsageError: the log has no such position, or ``to`` exists.
        EmptyLogError: the log holds no events.
        InvalidEventsError: events cannot be applied; nothing was built.

    Example:
        >>> from decimal import Decimal
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, rebuild_as_of
        >>> from refold.event_schemas.trading import CashDeposited
        >>> log = create_log(mkdtemp(), domain_name="trading")
        >>> deposits = [CashDeposited(trader_id="ada", amount=Decimal(amount)) for amount in (100, 50)]
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", deposits)
        >>> folder = Path(mkdtemp())
        >>> rebuild_as_of(log, "trading", position=1, to=folder / "first.duckdb", staging_url=str(folder)).events > 0
        True
    """
    started = time.perf_counter()
    options = options or beam_options()
    refuse_existing(to)
    domain = load_domain(domain_ref)
    names = tuple(only) or tuple(m.name for m in domain.read_models)
    models = [domain.read_model(name) for name in names]
    _refuse_unseeded(models, seeded)
    place = find_position(log, domain.registry, position)
    at = Checkpoint(place.position, place.commit_number, place.recorded_at, place.commit_digest)
    from_log = [m for m in models if m.seed is None]
    build = functools.partial(
        _build,
        log,
        domain,
        at=at,
        to=to,
        seeded=seeded,
        discarded=discarded,
        threads=workers_of(options),
        dead_letter=dead_letter,
    )
    replayed = None
    if from_log:
        store = open_store(staging_url)
        with staged_replay(log, domain, domain_ref, from_log, store, options, report, up_to=position) as staged:
            replayed = staged.replayed
            if not dead_letter:
                staged.refuse(not_discarded(replayed.invalid_events, discarded))
            report(RebuildProgress("load"))
            rows, letters = build([staged.staged_models(at)])
    else:
        rows, letters = build([])
    return AsOf(
        path=to,
        at=at,
        rows=rows,
        events=replayed.events if replayed else 0,
        seconds=time.perf_counter() - started,
        resumed=replayed.resumed if replayed else 0,
        dead_letters=letters,
    )


def _refuse_unseeded(models: Sequence[ReadModel], seeded: Sequence[StagedModels]) -> None:
    given = {m.name for group in seeded for m in group.models}
    if missing := [m.name for m in models if m.seed is not None and m.name not in given]:
        raise UsageError(
            f"Read model {missing[0]} starts from a published generation (seed=), so it cannot be built from the log "
            "alone. Name the other read models."
        )


def _build(
    log: EventLog,
    domain: Domain,
    replayed: Sequence[StagedModels],
    *,
    at: Checkpoint,
    to: Path,
    seeded: Sequence[StagedModels],
    discarded: Mapping[tuple[str, int], datetime],
    threads: int,
    dead_letter: bool,
) -> tuple[dict[str, int], int]:
    """Load a database beside its path if possible, and give it its name when it is complete.

    Returns:
        The rows of each read model, and the number of open dead letters.
    """
    parent = to.parent if can_write_databases(to.parent) else None
    folder = Path(tempfile.mkdtemp(prefix=".refold-", dir=parent))
    try:
        path = folder / "working.duckdb"
        with closing(database.open_database(path, threads=threads, memory_limit=_LOADER_MEMORY)) as connection:
            for group in seeded:
                load(connection, log, domain, group)
                if group.at.position < at.position:
                    after, head = group.at.position, log.head()
                    advance(connection, log, domain, group.models, head, after=after, to=at, dead_letter=True)
            for group in replayed:
                load(connection, log, domain, group, discarded=discarded)
            names = [m.name for group in (*seeded, *replayed) for m in group.models]
            letters = count_open(connection, names)
            if not dead_letter:
                withheld.refuse(connection, names, doing="The rebuild")
            database.create_views(connection, domain)
            finished = database.finish(connection, domain)
        name_file(path, to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {table.name: table.rows for table in finished}, letters
