"""Building a generation: staged rows become tables of a private database, which is then published.

The database is private to one writer until it is complete. On a local store it is in the same folder as the published
files, so that publishing links it and copies nothing.
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
    """Return the read models whose rows a rebuild of some others keeps from the newest generation."""
    if parent is None:
        return []
    if parent.log_id != log.log_id and set(names) < {m.name for m in domain.read_models}:
        raise GenerationError(
            f"Generation {parent.number} was not built from the log {log.url}, so none of its read models can be kept. "
            "Rebuild all of them, or give another --read-models."
        )
    kept = [m for m in domain.read_models if m.name not in names and m.name in parent.tables]
    for model in kept:
        if fingerprint(fingerprint_parts(model, domain)) != parent.tables[model.name].fingerprint:
            raise UsageError(
                f"The declaration of read model {model.name} has changed since generation {parent.number}, so its rows "
                "cannot be kept. Rebuild it too."
            )
    return kept


@dataclass(frozen=True, slots=True)
class StagedModels:
    """Read models whose rows are staged.

    Attributes:
        models: the read models.
        at: their checkpoint.
        rows: read model to the files of its finished rows.
        invalid_events: read model to the events it excludes.
        replayed: whether all events up to the checkpoint were replayed; false for the rows of a seed.
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
    """Load staged read models into their tables, in one transaction.

    Args:
        connection: the working database.
        log: the log of the events.
        domain: contracts and read models.
        staged: the staged read models.
        discarded: read model and position of discarded dead letters, and when they were discarded.
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
    """Finish a working database, close it, and publish it, without what the domain no longer declares.

    Args:
        connection: the working database; this closes it.
        path: its file.
        log: the log of the events.
        domain: contracts and read models.
        generations: the generations to publish to.
        parent: the generation before the new one.
        seeds: read model to the seed from which this rebuild started it.
        measure: returns the measurement of a rebuild once it is done; the parent's is kept by default.
        kind: origin of the generation, see :class:`Generation`.

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
        measured=_more_reliable(measure() if measure else None, parent.measured if parent else None),
    )
    return generation if generations.publish(generation) else None


def _more_reliable(now: Measured | None, before: Measured | None) -> Measured | None:
    """Return the newer measurement, unless it has less than a tenth of the events of the older one."""
    if now is None or (before is not None and now.events * 10 < before.events):
        return before
    return now


def _published(
    table: TableSummary, domain: Domain, parent: Generation | None, seeds: Mapping[str, Seed]
) -> PublishedTable:
    """Describe a table; one whose rows were kept also keeps its seed."""
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
    """Create a folder for the working database, and remove it; on a local store it is beside the published files."""
    parent = Path(store.url) / "work" if store.is_local else None
    with translate_errors("write", str(parent or tempfile.gettempdir())):
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="refold-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
