"""Indexes of a live database, for queries that look up a few rows by a column; published files have none.

With an index DuckDB finds a row among millions in half a millisecond, for a reader or for the ``MERGE`` of a
micro-batch. But an index makes a file several times as large, and readers that scan tables gain nothing from it. So
only the live database has indexes, and a copy is rewritten without them before it is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import duckdb

from refold.event_schemas import UsageError
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.engine.sql import first_line, quote
from refold.warehouse.read_models import database

Indexes = Mapping[str, Sequence[str]]
"""Read model to its columns that have an index."""

NO_INDEXES: Indexes = MappingProxyType({})
# Number of keys in a micro-batch beyond which DuckDB scans instead of using an index; its default is 50.
_MAX_LOOKUP_KEYS = 500
_INDEXES = "SELECT index_name FROM duckdb_indexes() WHERE database_name = current_database() ORDER BY ALL"


def check_indexes(indexes: Indexes, models: Iterable[ReadModel]) -> None:
    """Check that the columns to index exist.

    Args:
        indexes: read model to the columns to index.
        models: the domain's read models.

    Raises:
        UsageError: the domain has no such read model, or the read model no such column.
    """
    tables = {m.name: list(m.table) for m in models}
    for name, columns in indexes.items():
        if name not in tables:
            raise UsageError(
                f"There is no read model {name} to index. The domain has {', '.join(tables)}: name one of these."
            )
        if unknown := [c for c in columns if c not in tables[name]]:
            raise UsageError(
                f"Read model {name} has no column {', '.join(unknown)} to index. It has {', '.join(tables[name])}: "
                "name some of these."
            )


def create_indexes(connection: duckdb.DuckDBPyConnection, indexes: Indexes) -> None:
    """Create indexes in a live database; one of a million strings takes about a third of a second.

    Args:
        connection: the writer's connection.
        indexes: read model of the database to its columns to index.

    Raises:
        UsageError: DuckDB cannot index the type of a column.
    """
    for name, columns in indexes.items():
        for column in columns:
            index = quote(f"_index_{name}_{column}")
            try:
                connection.execute(f"CREATE INDEX {index} ON {quote(name)} ({quote(column)})")
            except duckdb.Error as error:
                raise UsageError(f"Cannot index {name}.{column}: {first_line(error)} Leave it out.") from error
    if indexes:
        connection.execute(f"SET dynamic_or_filter_threshold = {_MAX_LOOKUP_KEYS}")


def without_indexes(path: Path) -> Path:
    """Rewrite a database without its indexes, if it has any; dropping them would leave their blocks in the file.

    Args:
        path: the file; no other connection has it open.

    Returns:
        The file to use: ``path`` if it has no index, else a new file beside it, and ``path`` is deleted.
    """
    with closing(database.open_database(path, threads=1, memory_limit="1GB")) as connection:
        names = [name for (name,) in connection.execute(_INDEXES).fetchall()]
        if not names:
            return path
        for name in names:
            connection.execute(f"DROP INDEX {quote(name)}")
        return database.rewritten(connection, path)
