"""Seeds: a read model starts from tables of a published generation, in place of all events up to its position.

The query runs on the generation's immutable file, so that all its tables have one position. The read model records that
file: a later rebuild of the same declaration starts from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from refold.event_schemas import GenerationError, ProjectionError
from refold.warehouse.declarations.determinism import check_plan
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel, check_seed_columns
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.duckdb_types import staged, types_of, with_one_zero
from refold.warehouse.engine.parquet_files import copy_to_parquet, parquet_relation
from refold.warehouse.engine.sql import (
    SqlError,
    columns,
    first_line,
    quote,
)
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.database import Checkpoint, get_checkpoint
from refold.warehouse.read_models.generations.generations import Generation, Generations, Seed
from refold.warehouse.replay.contributions import row_types


def choose_seed(
    model: ReadModel, domain: Domain, log: EventLog, newest: Generation | None, generations: Generations
) -> Seed:
    """Choose the generation from which a read model starts: the one of its last build, else the newest.

    Args:
        model: a read model with a seed.
        domain: its domain.
        log: the log of the rebuild.
        newest: the newest generation.
        generations: all published generations.

    Raises:
        GenerationError: nothing is published yet, or from another log.
    """
    if newest is None:
        raise GenerationError(
            f"Read model {model.name} starts from a published generation (seed=), and nothing is published at "
            f"{generations.store.url} yet. Rebuild what it reads first, by name, or leave out seed= to build it from "
            "the whole log."
        )
    if newest.log_id != log.log_id:
        raise GenerationError(
            f"Read model {model.name} starts from a published generation (seed=), but generation {newest.number} was "
            f"built from another log than {log.url}. Rebuild what it reads from this log first, by name, under another "
            "--read-models; or leave out seed=."
        )
    before = newest.tables.get(model.name)
    same = before is not None and before.parts.get("seed") == fingerprint_parts(model, domain)["seed"]
    if before and before.seed and same and generations.store.exists(before.seed.file):
        return before.seed
    return Seed(generation=newest.number, position=newest.position, file=newest.file)


def seed_rows(model: ReadModel, seed: Seed, generations: Generations, folder: Path) -> tuple[Checkpoint, Path]:
    """Run a read model's seed on its generation, and write the rows into a folder.

    Returns:
        The checkpoint of the rows, and their Parquet file.

    Raises:
        GenerationError: the generation's file is missing.
        ProjectionError: the query does not bind on the generation, or its rows are invalid.
    """
    path = folder / f"seed-{model.name}.parquet"
    with connect(generations.file_path(seed.file, seed.generation), read_only=True) as connection:
        _refuse_withheld(connection, model, seed)
        at = get_checkpoint(connection)
        try:
            check_seed_columns(model, types_of(connection, f"FROM ({model.seed}) LIMIT 0"))
            check_plan(bound_plan(connection, str(model.seed)), tables=None)
            _copy(connection, model, path)
        except (SqlError, duckdb.Error) as error:
            raise ProjectionError(
                f"Projection {model.name}, seed, on generation {seed.generation}: {first_line(error)}"
            ) from error
    _check_key(model, path)
    return at, path


def _copy(connection: duckdb.DuckDBPyConnection, model: ReadModel, path: Path) -> None:
    values = {c: f"CAST({quote(c)} AS {t})" for c, t in model.table.items()}
    values |= {c: with_one_zero(values[c], t) for c, t in model.key.items()}
    selected = [f"{values.get(c, f'NULL::{t}')} AS {quote(c)}" for c, t in row_types(model).items()]
    rows = f"(SELECT {', '.join(selected)} FROM ({model.seed}))"
    copy_to_parquet(connection, staged(rows, row_types(model)), path, "COMPRESSION snappy")


def _refuse_withheld(connection: duckdb.DuckDBPyConnection, model: ReadModel, seed: Seed) -> None:
    """Refuse a generation that withholds rows: a seed would miss what they hold."""
    if held := withheld.models_with_withheld(connection):
        raise GenerationError(
            f"Read model {model.name} starts from generation {seed.generation} (seed=), which withholds rows of "
            f"{', '.join(sorted(held))} because a total does not fit its column, so the seed would miss them. Declare "
            "a wider type there and rebuild it first; see `refold dead-letters list`."
        )


def _check_key(model: ReadModel, path: Path) -> None:
    """Reject rows with a NULL or duplicate key, which no event could address."""
    where = f"Projection {model.name}, seed"
    rows = parquet_relation([path])
    with connect() as connection:
        for column in model.key:
            if _some(connection, f"FROM {rows} WHERE {quote(column)} IS NULL LIMIT 1"):
                raise ProjectionError(
                    f"{where}: key column {column!r} is NULL in a row. Leave such rows out with WHERE."
                )
        keys = columns(model.key)
        if double := _some(connection, f"SELECT {keys} FROM {rows} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"):
            raise ProjectionError(
                f"{where}: two rows have the key {dict(zip(model.key, double, strict=True))}. GROUP BY {keys}, so that "
                "each key has one row."
            )


def _some(connection: duckdb.DuckDBPyConnection, query: str) -> Sequence[object] | None:
    row: Sequence[object] | None = connection.execute(query).fetchone()
    return row
