"""The check before a rebuilt database is published: it must equal the published rows, advanced by increments.

Only read models with an unchanged declaration can be advanced, so only these are checked. For the others, the result
reports how the new declaration changes their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from refold.event_schemas import DisagreementError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint, fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.connections import attach
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import database
from refold.warehouse.read_models.comparison.compare import compare_databases, compared_dead_letters, compared_tables
from refold.warehouse.read_models.comparison.differences import TableDifference, in_words
from refold.warehouse.read_models.generations.generations import Generation, Generations
from refold.warehouse.read_models.increments.catch_up import advance

_PARENT = "parent_copy"


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a check that found no disagreement.

    Attributes:
        parent: number of the parent generation; 0 if there is none.
        agreed: read models whose rows are equal.
        changed: differences of redeclared read models from the parent, at its position; ``here`` is the rebuild.
    """

    parent: int = 0
    agreed: tuple[str, ...] = ()
    changed: tuple[TableDifference, ...] = ()


def check_cut_over(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    models: Sequence[ReadModel],
    generations: Generations,
    parent: Generation | None,
    folder: Path,
) -> Verified:
    """Compare rebuilt read models with those of the parent generation, advanced to the same position by increments.

    Args:
        connection: the working database, caught up; it is not changed.
        log: the log.
        domain: contracts and read models.
        models: the rebuilt read models.
        generations: the generations.
        parent: the parent generation.
        folder: folder for a copy of the parent's file.

    Raises:
        DisagreementError: their rows differ.
    """
    if parent is None or parent.log_id != log.log_id:
        return Verified()
    published = [m for m in models if m.name in parent.tables]
    same = [m for m in published if fingerprint(fingerprint_parts(m, domain)) == parent.tables[m.name].fingerprint]
    copy = _advanced_copy(connection, log, domain, same, generations, parent, folder)
    attach(connection, copy, _PARENT, read_only=True)
    try:
        tables = [t for m in same for t in compared_tables(m)]
        if same:
            tables.append(compared_dead_letters([m.name for m in same]))
        differences = compare_databases(connection, "models", _PARENT, tables)
        if differences:
            raise _disagreement(parent, differences)
        others = [t for m in published if m not in same for t in compared_tables(m)]
        changed = compare_databases(connection, "models", _PARENT, others)
    finally:
        connection.execute(f"DETACH {_PARENT}")
        copy.unlink()
    return Verified(parent.number, tuple(m.name for m in same), tuple(changed))


def _advanced_copy(
    connection: duckdb.DuckDBPyConnection,
    log: EventLog,
    domain: Domain,
    models: Sequence[ReadModel],
    generations: Generations,
    parent: Generation,
    folder: Path,
) -> Path:
    place = folder / "parent"
    place.mkdir(exist_ok=True)
    path = generations.working_copy(parent, place)
    to = database.get_checkpoint(connection)
    if models and parent.position < to.position:
        with closing(database.open_database(path, memory_limit="1GB")) as working:
            head = log.head()
            advance(working, log, domain, models, head, after=parent.position, to=to, dead_letter=True)
    return path


def _disagreement(parent: Generation, differences: Sequence[TableDifference]) -> DisagreementError:
    described = ". ".join(in_words(d, here="the rebuild", there="what was published") for d in differences)
    return DisagreementError(
        f"The rebuild and generation {parent.number}, advanced to the same position by increments, differ. "
        f"{described}. Nothing was published. If the rebuild is right, rebuild without --verify; if an event or a "
        "declaration is wrong, correct it first.",
        differences,
    )
