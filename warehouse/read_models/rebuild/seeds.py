"""Seeds: a read model that starts from tables of a published generation, in place of all events up to there.

The query runs on the generation's own file, so what it reads stands at one position, whatever is published meanwhile.
Which file that was is noted with the read model: the same declaration, rebuilt later, starts from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from refold.event_schemas import GenerationError, ProjectionError
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint_parts
from refold.warehouse.declarations.projection import ReadModel, check_seed_columns
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import (
    columns,
    first_line,
    literal,
    quote,
    result_schema,
)
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.read_models.database import Checkpoint, get_checkpoint
from refold.warehouse.read_models.generations.generations import Generation, Generations, Seed

_BEYOND_PARQUET = ("HUGEINT", "UHUGEINT")


def choose_seed(
    model: ReadModel, domain: Domain, log: EventLog, newest: Generation | None, generations: Generations
) -> Seed:
    """Decide which generation a read model starts from: the one it started from before, else the newest.

    Args:
        model: with a seed.
        domain: its domain.
        log: that the read model is of.
        newest: the newest generation.
        generations: all published ones.

    Raises:
        GenerationError: nothing is published yet, or it is of another log.
    """
    if newest is None:
        raise GenerationError(
            f"Read model {model.name} starts from a published generation (seed=), and nothing is published at "
            f"{generations.store.url} yet. Rebuild what it reads first, by name, or leave out seed= to make it from "
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
    """Run a read model's seed on the generation that it starts from, and keep the rows in a folder.

    Returns:
        Where in the log the rows stand, and a Parquet file of them.

    Raises:
        GenerationError: the generation's file is gone.
        ProjectionError: the query does not bind there, or yields no proper rows.
    """
    path = folder / f"seed-{model.name}.parquet"
    with connect(generations.file_path(seed.file, seed.generation), read_only=True) as connection:
        at = get_checkpoint(connection)
        try:
            check_seed_columns(model, result_schema(connection, f"FROM ({model.seed}) LIMIT 0"))
            _copy(connection, model, path)
        except duckdb.Error as error:
            raise ProjectionError(
                f"Projection {model.name}, seed, on generation {seed.generation}: {first_line(error)}"
            ) from error
    _check_key(model, path)
    return at, path


def _copy(connection: duckdb.DuckDBPyConnection, model: ReadModel, path: Path) -> None:
    typed = {c: "DECIMAL(38,0)" if t.upper() in _BEYOND_PARQUET else t for c, t in model.table.items()}
    selected = ", ".join(f"CAST({quote(c)} AS {t}) AS {quote(c)}" for c, t in typed.items())
    connection.execute(f"COPY (SELECT {selected} FROM ({model.seed})) TO {literal(str(path))} (FORMAT parquet)")


def _check_key(model: ReadModel, path: Path) -> None:
    """Refuse rows that no event could find again, or find twice."""
    where = f"Projection {model.name}, seed"
    rows = f"read_parquet({literal(str(path))})"
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
                "there is one row a key."
            )


def _some(connection: duckdb.DuckDBPyConnection, query: str) -> Sequence[object] | None:
    row: Sequence[object] | None = connection.execute(query).fetchone()
    return row
