"""Building a generation: staged rows become tables of a private database; ``publish.py`` publishes it.

The database is private to one writer until it is complete. On a local store it is in the same folder as the published
files, so that publishing links it and copies nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb

from refold.event_schemas import GenerationError, UsageError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.engine_paths import can_write_databases
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.read_models import database, withheld
from refold.warehouse.read_models.database import NOTHING_DISCARDED, Checkpoint
from refold.warehouse.read_models.generations.generations import (
    Generation,
)
from refold.warehouse.read_models.increments.spans import Span
from refold.warehouse.read_models.lag import check_history, checkpoint_of, find_end
from refold.warehouse.read_models.withheld_positions import report_withheld
from refold.warehouse.replay.contributions import compile_model


def may_hold_erased(domain: Domain, model: ReadModel, generation: Generation, erasures: int) -> bool:
    """Check whether the rows of a read model in a generation may hold data that was erased since.

    Args:
        domain: contracts and upcasters.
        model: the read model.
        generation: the generation.
        erasures: number of the log's erasures now, or up to some subject's.
    """
    table = generation.tables.get(model.name)
    return table is not None and table.erasures < erasures and domain.registry.reads_personal(model.event_types)


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
    if kept:
        check_history(log, find_end(log), checkpoint_of(parent))
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
        erasures: number of the log's erasures when its events were read.
    """

    models: Sequence[ReadModel]
    at: Checkpoint
    rows: Mapping[str, Sequence[Path]]
    invalid_events: Mapping[str, Sequence[InvalidEvent]] = field(default_factory=dict)
    replayed: bool = True
    erasures: int = 0


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
        database.set_fingerprint(connection, model, domain, staged.at.position, erasures=staged.erasures)
        connection.execute("DELETE FROM refold.dead_letters WHERE read_model = ?", [model.name])
    database.add_dead_letters(connection, staged.invalid_events, discarded=discarded)
    _report_withheld(connection, log, domain, staged, discarded)
    database.set_checkpoint(connection, staged.at, domain_name=domain.name, log_id=log.log_id)
    connection.execute("COMMIT")


def _report_withheld(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    staged: StagedModels,
    discarded: Mapping[tuple[str, int], datetime],
) -> None:
    """Report the rows that a rebuild withholds, by another look at the events of their read models."""
    names = withheld.models_with_withheld(connection)
    for model in staged.models:
        if model.name in names:
            typed = Span(log.head(), 0, staged.at).events(connection, log, domain, [model])
            without = {e.position for name in ("", model.name) for e in staged.invalid_events.get(name, ())}
            compiled = compile_model(model, domain)
            found = report_withheld(connection, domain, compiled, typed, before=None, without=without)
            database.add_dead_letters(connection, {model.name: found}, discarded=discarded)


def working_parent(store: ObjectStore) -> Path:
    """Return the folder for working databases: beside the published files, to be linked and not copied, if possible."""
    if not (store.is_local and can_write_databases(store.url)):
        return Path(tempfile.gettempdir())
    parent = Path(store.url) / "work"
    with translate_errors("write", str(parent)):
        parent.mkdir(parents=True, exist_ok=True)
    return parent


@contextmanager
def scratch_folder(store: ObjectStore) -> Iterator[Path]:
    """Create a folder for a working database, and remove it at the end."""
    parent = working_parent(store)
    with translate_errors("write", str(parent)):
        folder = Path(tempfile.mkdtemp(prefix="refold-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
