"""What is published: the newest generation, opened for reading, and when it was brought to where it stands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from warehouse.read_models.generations import Generation, Generations


def newest_generation(generations: Generations) -> Generation:
    """Load the newest generation.

    Raises:
        GenerationError: there is none.
    """
    from event_schemas import GenerationError

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
    from warehouse.duck import connect

    connection = connect(generations.path(generation), read_only=True)
    try:
        yield connection
    finally:
        connection.close()


def read_last_updated(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Read when a generation's tables were brought to its position, RFC 3339 in UTC."""
    rows = connection.execute("SELECT last_updated FROM refold.checkpoint").fetchall()
    return rows[0][0].isoformat() if rows and rows[0][0] else None


def last_updated(generations: Generations, generation: Generation) -> str:
    """Tell when a generation's tables were brought to its position.

    A remote file would have to be fetched for that; there it is when the generation was published, just after.
    """
    if not generations.store.is_local:
        return generation.published_at
    with open_generation(generations, generation) as connection:
        return read_last_updated(connection) or generation.published_at
