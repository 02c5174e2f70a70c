"""The newest generation, opened for reading, and what its file holds beside the tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from refold.warehouse.read_models.generations.generations import Generation, Generations


def newest_generation(generations: Generations) -> Generation:
    """Load the newest generation.

    Raises:
        GenerationError: there is none.
    """
    from refold.event_schemas import GenerationError

    newest = generations.newest()
    if newest is None:
        raise GenerationError(
            f"Nothing is published at {generations.store.url} yet. Run `refold rebuild` first, or give another "
            "--read-models."
        )
    return newest


@contextmanager
def open_generation(generations: Generations, generation: Generation) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a published file for reading."""
    from refold.warehouse.engine.connections import connect

    connection = connect(generations.path(generation), read_only=True)
    try:
        yield connection
    finally:
        connection.close()


def read_last_updated(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Read when a generation's tables reached its position, RFC 3339 in UTC."""
    rows = connection.execute("SELECT last_updated FROM refold.checkpoint").fetchall()
    return rows[0][0].isoformat() if rows and rows[0][0] else None


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What only the file of a generation records.

    Attributes:
        last_updated: when its tables reached its position, RFC 3339.
        undecided: how many dead letters are open; None if the file is remote and so was not read.
        discarded: how many dead letters are discarded; None likewise.
    """

    last_updated: str
    undecided: int | None = None
    discarded: int | None = None


def read_file_status(generations: Generations, generation: Generation) -> FileStatus:
    """Read what a generation's file records.

    A remote file would have to be fetched: there the time of the publish, which follows the update at once, stands in.
    """
    if not generations.store.is_local:
        return FileStatus(generation.published_at)
    from refold.warehouse.read_models.dead_letters.dead_letters import count_dead_letters

    with open_generation(generations, generation) as connection:
        counts = count_dead_letters(connection).values()
        updated = read_last_updated(connection) or generation.published_at
        return FileStatus(updated, sum(n for n, _ in counts), sum(n for _, n in counts))
