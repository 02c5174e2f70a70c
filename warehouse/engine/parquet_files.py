"""Parquet files: the only module that opens them, for DuckDB or as Arrow.

Nothing is taken from a file's path: no Hive partitions, no patterns, no file name as a column. Columns come from the
file alone, and all files of one relation have the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from refold.warehouse.engine.engine_paths import engine_path
from refold.warehouse.engine.sql import literal


def parquet_relation(paths: Iterable[Path], *, file_column: str = "") -> str:
    """Return the SQL relation of the rows of some files.

    Name the columns that you select: DuckDB adds ``filename`` and ``file_row_number`` where a file has no such column.

    Args:
        paths: one file or more, with the same columns.
        file_column: a column to add, which has the path of the row's file; none by default.
    """
    named = literal(file_column) if file_column else "false"
    files = ", ".join(literal(engine_path(path)) for path in paths)
    return f"read_parquet([{files}], hive_partitioning = false, union_by_name = false, filename = {named})"


def copy_to_parquet(connection: duckdb.DuckDBPyConnection, select: str, path: Path, options: str) -> None:
    """Write the rows of a query to a file.

    Args:
        connection: where the query runs.
        select: the query.
        path: the file.
        options: options of DuckDB's ``COPY``, such as ``"COMPRESSION lz4"``.
    """
    connection.execute(f"COPY ({select}) TO {literal(engine_path(path))} (FORMAT parquet, {options})")


def copy_partitioned(
    connection: duckdb.DuckDBPyConnection, select: str, folder: Path, options: str, *, by: str
) -> dict[int, Path]:
    """Write the rows of a query to a file for each value of an integer column, which is not in the files.

    Args:
        connection: where the query runs, in one thread, so that each file has its rows in the query's order.
        select: the query, ordered by the column.
        folder: an empty folder.
        options: options of DuckDB's ``COPY``, such as ``"COMPRESSION lz4"``.
        by: the column; each of its values keeps a file open until the query ends.

    Returns:
        Each value and its file.
    """
    copy_to_parquet(connection, select, folder, f"{options}, PARTITION_BY ({by}), FILENAME_PATTERN 'part'")
    return {partition_of(path): path for path in sorted(folder.glob("*/*.parquet"))}


def partition_of(path: str | Path) -> int:
    """Return the value of the rows of a file that :func:`copy_partitioned` wrote."""
    return int(Path(path).parent.name.rpartition("=")[2])


def open_parquet(source: Path | IO[bytes]) -> pq.ParquetFile:
    """Open a file as Arrow; checksums of its pages, if it has any, are checked.

    Args:
        source: the file's path, or an open file of a remote store, of which adjacent columns are read together.

    Raises:
        pa.ArrowException: it is no Parquet file.
        OSError: it cannot be read.
    """
    remote = not isinstance(source, Path)
    return pq.ParquetFile(_opened(source), page_checksum_verification=True, pre_buffer=remote)


def parquet_footer(source: Path | IO[bytes]) -> pq.FileMetaData:
    """Read a file's footer; raises as :func:`open_parquet` does."""
    return pq.read_metadata(_opened(source))


def column_range(footer: pq.FileMetaData, name: str) -> tuple[Any, Any] | None:
    """Return the lowest and highest value of a flat column, by the statistics of its row groups; None without them."""
    index = footer.schema.names.index(name)
    found = [footer.row_group(g).column(index).statistics for g in range(footer.num_row_groups)]
    if not found or not all(s is not None and s.has_min_max for s in found):
        return None
    return min(s.min for s in found), max(s.max for s in found)


def columns_without_null(footer: pq.FileMetaData) -> set[str]:
    """Return the columns that have no NULL at any depth, by the statistics of their row groups."""
    nulls: dict[str, bool] = {}
    for g in range(footer.num_row_groups):
        group = footer.row_group(g)
        for c in range(group.num_columns):
            column = group.column(c)
            name, found = column.path_in_schema.split(".")[0], column.statistics
            none = found is not None and found.has_null_count and found.null_count == 0
            nulls[name] = nulls.get(name, False) or not none
    return {name for name, some in nulls.items() if not some}


def parquet_schema(path: Path) -> pa.Schema:
    """Read a file's Arrow schema; raises as :func:`open_parquet` does."""
    return pq.read_schema(engine_path(path))


def write_table(
    table: pa.Table,
    to: Path | IO[bytes],
    *,
    metadata: Mapping[str, bytes | str] | None = None,
    row_group_size: int | None = None,
    **options: Any,
) -> None:
    """Write an Arrow table.

    Args:
        table: the table.
        to: the file.
        metadata: pairs of the footer, in this order.
        row_group_size: rows of a row group; pyarrow's choice by default.
        options: those of ``pyarrow.parquet.ParquetWriter``.
    """
    with pq.ParquetWriter(_opened(to), table.schema, **options) as writer:
        writer.write_table(table, row_group_size)
        writer.add_key_value_metadata(dict(metadata or {}))


def _opened(source: Path | IO[bytes]) -> str | IO[bytes]:
    return engine_path(source) if isinstance(source, Path) else source
