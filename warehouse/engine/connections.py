"""DuckDB connections, all with the same settings."""

from __future__ import annotations

from pathlib import Path

import duckdb

from refold.warehouse.engine.engine_paths import database_path, engine_path
from refold.warehouse.engine.sql import literal, quote

_MEMORY = ":memory:"

ANSWER_SETTINGS = {
    "TimeZone": "'UTC'",
    "Calendar": "'gregorian'",
    "default_collation": "''",
    "default_null_order": "'nulls_last'",
    "default_order": "'ascending'",
    "error_on_division_by_zero": "true",
    "ieee_floating_point_ops": "true",
    "integer_division": "false",
    "regex_match_operator_semantics": "'partial'",
}
"""The settings that change what a query answers, with the values that every connection of refold has."""

# GLOBAL, because a cursor does not have the settings of the connection that it was made from.
_SET = "; ".join(
    [
        *(f"SET GLOBAL {name} = {value}" for name, value in ANSWER_SETTINGS.items()),
        "SET GLOBAL arrow_lossless_conversion = true",
        "SET GLOBAL enable_external_file_cache = false",  # it keeps a kilobyte for every file that was ever read
        "SET enable_progress_bar = false",
    ]
)


def connect(
    database: str | Path = _MEMORY,
    *,
    threads: int | None = None,
    memory_limit: str | None = None,
    temp_directory: str | Path | None = None,
    read_only: bool = False,
) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection whose answers depend on no default of the machine, with lossless Arrow output.

    Its cursors have the same settings.

    Args:
        database: a file, or ``:memory:``.
        threads: the number of threads of a query; DuckDB's choice by default.
        memory_limit: such as ``"2GB"``; beyond it, DuckDB spills to ``temp_directory``.
        temp_directory: the folder to spill to.
        read_only: open the file for reading, as other processes may at the same time.

    Example:
        >>> connect().cursor().execute("SELECT current_setting('TimeZone')").fetchone()
        ('UTC',)
    """
    config: dict[str, str | bool | int | float | list[str]] = {}
    if threads is not None:
        config["threads"] = threads
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    if temp_directory is not None:
        config["temp_directory"] = engine_path(temp_directory)
    file = _MEMORY if database == _MEMORY else database_path(database)
    connection = duckdb.connect(file, read_only=read_only, config=config)
    connection.execute(_SET)
    return connection


def attach(
    connection: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool = False, storage_version: str = ""
) -> None:
    """Attach a database file.

    Args:
        connection: the connection.
        path: the file; it is created if it does not exist, except for reading.
        name: name of the database on the connection.
        read_only: open the file for reading.
        storage_version: the oldest version of DuckDB that a new file can be opened with, such as ``"v1.4.0"``.
    """
    options = ["READ_ONLY"] if read_only else []
    options += [f"STORAGE_VERSION {literal(storage_version)}"] if storage_version else []
    listed = f" ({', '.join(options)})" if options else ""
    connection.execute(f"ATTACH {literal(engine_path(path))} AS {quote(name)}{listed}")


_TEMPORARIES = """
SELECT true, table_name FROM duckdb_tables() WHERE temporary AND starts_with(table_name, '_')
UNION ALL
SELECT false, view_name FROM duckdb_views() WHERE temporary AND starts_with(view_name, '_')
"""


def forget_temporaries(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop the temporary tables and registered Arrow tables of refold from a connection that is used again.

    Their names start with an underscore.
    """
    for is_table, name in connection.execute(_TEMPORARIES).fetchall():
        if is_table:
            connection.execute(f'DROP TABLE temp."{name}"')
        else:
            connection.unregister(name)
