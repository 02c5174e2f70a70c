"""Parquet files as chunks of rows: only the columns that are needed, a batch of a row group at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.types as pt
from pyarrow.parquet import ParquetFile

from refold.event_schemas import UsageError
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile, open_stored
from refold.warehouse.engine.parquet_files import open_parquet


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read rows.

    Raises:
        UsageError: it is no Parquet file, or is damaged.
    """
    source, limits = request.file, request.limits
    with _opened(source) as file:
        metadata = file.metadata
        done = skip = request.place["row"]
        groups: list[int] = []
        for i in range(metadata.num_row_groups):
            size = metadata.row_group(i).num_rows
            if groups or skip < size:
                groups.append(i)
            else:
                skip -= size
        width = max(sum(metadata.row_group(i).total_byte_size for i in groups) // max(metadata.num_rows - done, 1), 1)
        names = [n for n in file.schema_arrow.names if n in request.needed] or file.schema_arrow.names[:1]
        step = max(min(limits.chunk_rows, limits.chunk_bytes // width), 1)
        for batch in file.iter_batches(batch_size=step, row_groups=groups, columns=names, use_threads=False):
            table = pa.Table.from_batches([batch.slice(skip)])
            skip = max(skip - batch.num_rows, 0)
            if table.num_rows:
                done += table.num_rows
                yield _rows(source, table, done, source.size * done // metadata.num_rows)


def column_names(file: SourceFile, _mapping: ColumnMapping) -> list[str]:
    """Return the columns of a file.

    Raises:
        UsageError: it is no Parquet file.
    """
    with _opened(file) as opened:
        return list(opened.schema_arrow.names)


@contextmanager
def _opened(source: SourceFile) -> Iterator[ParquetFile]:
    try:
        if source.path is not None:
            yield open_parquet(source.path)
        else:
            with open_stored(source) as remote:
                yield open_parquet(remote)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{source.name} is no readable Parquet file: {error}. Write it again.") from error


def _rows(source: SourceFile, table: pa.Table, done: int, consumed: int) -> Rows:
    first = done - table.num_rows
    for name in table.schema.names:
        table = _checked_text(source, table, name)
    table = table.combine_chunks()
    return Rows(
        columns=table,
        lines=range(first + 1, done + 1),
        text=lambda row: json.dumps(table.slice(row, 1).to_pylist()[0], default=str, ensure_ascii=False),
        after={"row": done, "line": done, "offset": done},
        consumed=consumed,
    )


def _checked_text(source: SourceFile, table: pa.Table, name: str) -> pa.Table:
    """Refuse text that is no UTF-8, which no reader checks; read binary columns, which some writers use, as text."""
    column = table[name]
    try:
        if pt.is_binary(column.type) or pt.is_large_binary(column.type):
            return table.set_column(table.schema.get_field_index(name), name, column.cast(pa.string()))
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{source.name}: the column {name!r} holds no valid {column.type}: {error}.") from error
    return table
