"""Indexes of a live database, for queries that look for a few rows by a column; published files are free of them.

An index lets DuckDB find a row among millions in half a millisecond, be it for a reader or for a turn's ``MERGE``. It
makes a file several times as large, which nobody who scans whole tables should have to fetch: so indexes are a live
database's own, and a copy of it is written anew without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import duckdb

from refold.event_schemas import UsageError
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.sql import first_line, literal, quote
from refold.warehouse.read_models import database

Indexes = Mapping[str, Sequence[str]]
"""Read model to the columns that have an index each."""

NO_INDEXES: Indexes = MappingProxyType({})
# Beyond so many keys in a turn DuckDB no longer looks them up in an index, but scans; its default is 50.
_KEYS_LOOKED_UP = 500
_HELD = "SELECT index_name FROM duckdb_indexes() WHERE database_name = current_database() ORDER BY ALL"


def check_indexes(indexes: Indexes, models: Iterable[ReadModel]) -> None:
    """Make sure that what is to be indexed is there.

    Args:
        indexes: what is to be indexed.
        models: the domain's read models.

    Raises:
        UsageError: a domain has no such read model, or that has no such column.
    """
    tables = {m.name: list(m.table) for m in models}
    for name, columns in indexes.items():
        if name not in tables:
            raise UsageError(
                f"An index was asked for on read model {name}, which the domain does not have. It has "
                f"{', '.join(tables)}: name one of these."
            )
        if unknown := [c for c in columns if c not in tables[name]]:
            raise UsageError(
                f"An index was asked for on {', '.join(unknown)} of read model {name}, which has the columns "
                f"{', '.join(tables[name])}: name some of these."
            )


def create_indexes(connection: duckdb.DuckDBPyConnection, indexes: Indexes) -> None:
    """Make indexes in a live database; one of a million strings takes about a third of a second.

    Args:
        connection: the writer's.
        indexes: of tables that it holds.

    Raises:
        UsageError: a column is of a type that DuckDB makes no index of.
    """
    for name, columns in indexes.items():
        for column in columns:
            name_of_it = quote(f"_index_{name}_{column}")
            try:
                connection.execute(f"CREATE INDEX {name_of_it} ON {quote(name)} ({quote(column)})")
            except duckdb.Error as error:
                raise UsageError(
                    f"No index can be made of {name}.{column}: {first_line(error)} Leave it out."
                ) from error
    if indexes:
        connection.execute(f"SET dynamic_or_filter_threshold = {_KEYS_LOOKED_UP}")


def without_indexes(path: Path) -> Path:
    """Write a database anew without its indexes, if it has any.

    To drop them would leave their blocks in the file as holes.

    Args:
        path: nobody else has it open.

    Returns:
        The file to go on with; ``path`` itself if there is no index in it, else one beside it, and ``path`` is gone.
    """
    rewritten = path.with_suffix(".rewritten.duckdb")
    with closing(database.open_database(path, threads=1, memory_limit="1GB")) as connection:
        held = [name for (name,) in connection.execute(_HELD).fetchall()]
        if not held:
            return path
        for name in held:
            connection.execute(f"DROP INDEX {quote(name)}")
        database.drop_views(connection)  # those who publish make them anew
        connection.execute(
            f"ATTACH {literal(str(rewritten))} AS rewritten (STORAGE_VERSION '{database.STORAGE_VERSION}')"
        )
        connection.execute("COPY FROM DATABASE models TO rewritten")
        connection.execute("DETACH rewritten")
    path.unlink()
    return rewritten
