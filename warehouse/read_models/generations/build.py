"""Building a generation: staged rows become tables of a private database, which is then published.

The database is one writer's own until it is complete. On a local store it lies beside the published files, so that
publishing copies no byte.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts, view_digest
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import NOTHING_DISCARDED, Checkpoint, TableSummary
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Measured,
    PublishedTable,
    Seed,
    now,
)


def kept_models(domain: Domain, log: EventLog, names: Sequence[str], parent: Generation | None) -> list[ReadModel]:
    """Pick the read models to take over from the newest generation: those published and not rebuilt now."""
    if parent is None:
        return []
    if parent.log_id != log.log_id and set(names) < {m.name for m in domain.read_models}:
        raise GenerationError(
            f"Generation {parent.number} was built from another log than {log.url}, so none of its read models can be "
            "kept. Rebuild all of them, or give another --read-models."
        )
    kept = [m for m in domain.read_models if m.name not in names and m.name in parent.tables]
    for model in kept:
        if fingerprint(fingerprint_parts(model, domain)) != parent.tables[model.name].fingerprint:
            raise UsageError(
                f"Read model {model.name} was declared otherwise when generation {parent.number} was built, so it "
                "cannot be taken over as it is. Rebuild it too."
            )
    return kept


@dataclass(frozen=True, slots=True)
class StagedModels:
    """Read models whose rows are staged.

    Attributes:
        models: which.
        at: where in the log they stand.
        rows: read model to the files of its finished rows.
        invalid_events: read model to the events it excludes.
        replayed: whether all events up to there were seen for it; not so for rows of a seed.
    """

    models: Sequence[ReadModel]
    at: Checkpoint
    rows: Mapping[str, Sequence[Path]]
    invalid_events: Mapping[str, Sequence[InvalidEvent]] = field(default_factory=dict)
    replayed: bool = True


def load(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    staged: StagedModels,
    *,
    discarded: Mapping[tuple[str, int], datetime] = NOTHING_DISCARDED,
) -> None:
    """Fill the tables of staged read models, in one transaction.

    Args:
        connection: the working database.
        log: the log that the rows come from.
        domain: contracts and read models.
        staged: what to load.
        discarded: which broken events somebody decided to go without, and when.
    """
    connection.execute("BEGIN")
    database.drop_views(connection)
    if staged.replayed:
        connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ''")
    for model in staged.models:
        database.create_table(connection, model, staged.rows[model.name])
        database.set_fingerprint(connection, model, domain, staged.at.position)
        connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ?", [model.name])
    database.add_dead_letters(connection, staged.invalid_events, discarded=discarded)
    database.set_checkpoint(connection, staged.at, domain_name=domain.name, log_id=log.log_id)
    connection.execute("COMMIT")


def publish(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    log: EventLog,
    domain: Domain,
    generations: Generations,
    parent: Generation | None,
    *,
    seeds: Mapping[str, Seed] | None = None,
    measure: Callable[[], Measured] | None = None,
    kind: str = "rebuild",
) -> Generation | None:
    """Finish a working database, close it, and publish it; what the domain no longer declares is left behind.

    Args:
        connection: the working database; it is closed here.
        path: its file.
        log: the log that it was built from.
        domain: contracts and read models.
        generations: where to publish.
        parent: the generation to follow.
        seeds: read model to what it was started from just now.
        measure: tells, when all is done, what it took; without it the parent's measurement stands.
        kind: how it came about, see :class:`Generation`.

    Returns:
        The new generation, or None if another publisher was first.
    """
    database.drop_views(connection)
    database.drop_undeclared(connection, domain)
    database.create_views(connection, domain)
    at = database.get_checkpoint(connection)
    tables = {t.name: _published(t, domain, parent, seeds or {}) for t in database.finish(connection, domain)}
    connection.close()
    file, size = generations.upload(path)
    generation = Generation(
        number=(parent.number if parent else 0) + 1,
        file=file,
        bytes=size,
        position=at.position,
        commit_number=at.commit_number,
        recorded_at=at.recorded_at,
        published_at=now(),
        parent=parent.number if parent else 0,
        log_id=log.log_id,
        kind=kind,
        tables=tables,
        views={v.name: view_digest(v) for v in domain.views},
        measured=_most_telling(measure() if measure else None, parent.measured if parent else None),
    )
    return generation if generations.publish(generation) else None


def _most_telling(now: Measured | None, before: Measured | None) -> Measured | None:
    """Prefer the newer measurement, unless it is of so few events that it tells little of the speed."""
    if now is None or (before is not None and now.events * 10 < before.events):
        return before
    return now


def _published(
    table: TableSummary, domain: Domain, parent: Generation | None, seeds: Mapping[str, Seed]
) -> PublishedTable:
    """Describe a table; one that was taken over keeps the seed that it was started from."""
    before = parent.tables.get(table.name) if parent else None
    kept = before.seed if before and before.fingerprint == table.fingerprint else None
    return PublishedTable(
        fingerprint=table.fingerprint,
        parts=fingerprint_parts(domain.read_model(table.name), domain),
        rows=table.rows,
        checksum=table.checksum,
        seed=seeds.get(table.name, kept),
    )


@contextmanager
def scratch_folder(store: ObjectStore) -> Iterator[Path]:
    """Give a folder for the working database; on a local store it lies beside the published files."""
    parent = Path(store.url) / "work" if store.is_local else None
    with translate_errors("write", str(parent or tempfile.gettempdir())):
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="refold-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
