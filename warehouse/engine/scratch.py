"""A scratch database for parsing and binding SQL: one per process, because opening one costs 30 to 50 ms."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from refold.warehouse.engine.connections import connect

_schema_numbers = itertools.count()


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    connection = connect(threads=1)
    # What is bound here comes from declarations, which name neither files nor variables of a Python program.
    connection.execute("SET python_enable_replacements = false; SET enable_external_access = false")
    return connection


def scratch() -> duckdb.DuckDBPyConnection:
    """Return a new cursor on the scratch database, which holds no tables.

    A cursor is a connection of its own, so threads that each take one do not wait for each other. Cursors share
    the catalog: use :func:`scratch_schema` to create anything.
    """
    return _database().cursor()


@contextmanager
def scratch_schema() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a cursor whose tables and views go into an empty schema, which is dropped at the end.

    The schema's name is unique in the process. Two threads that create a table of the same name would otherwise fail
    with a catalog conflict.

    Example:
        >>> with scratch_schema() as one, scratch_schema() as other:
        ...     _ = one.execute("CREATE TABLE t (a INTEGER)"), other.execute("CREATE TABLE t (b VARCHAR)")
        ...     one.table("t").columns, other.table("t").columns
        (['a'], ['b'])
    """
    schema = f"scratch_{next(_schema_numbers)}"
    with scratch() as connection:
        connection.execute(f"CREATE SCHEMA {schema}; USE {schema}")
        try:
            yield connection
        finally:
            connection.execute(f"USE main; DROP SCHEMA {schema} CASCADE")
