"""Arrow tables as Parquet, as DuckDB writes segments, but without a database: cheap for many small files.

Each column's encoding follows from its type and a sample of its values: dictionaries for repeated values; deltas for
integers, times and short decimals; delta lengths for text that does not repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from pyarrow.parquet import FileMetaData

from refold.warehouse.engine.parquet_files import write_table

_SAMPLE = 4096
_MAX_INT64_DIGITS = 18
"""Precision up to which a decimal is stored as a 64-bit integer, which deltas need."""


def write_parquet(table: pa.Table, path: Path, *, row_group_rows: int) -> FileMetaData:
    """Write a table as a segment, and return the file's footer.

    Args:
        table: the rows, in the order of the segment.
        path: path of the file.
        row_group_rows: number of rows in a row group.
    """
    table = table.cast(pa.schema([f.with_type(_plain(f.type)) for f in table.schema]))
    encodings = {f.name: e for f in table.schema if (e := _encoding(table[f.name]))}
    written: list[FileMetaData] = []
    write_table(
        table,
        path,
        row_group_size=row_group_rows,
        compression="zstd",
        compression_level=1,
        data_page_version="2.0",
        column_encoding=encodings,
        use_dictionary=[leaf for f in table.schema if f.name not in encodings for leaf in _leaves(f, f.name)],
        store_decimal_as_integer=True,
        store_schema=False,
        metadata_collector=written,
    )
    return written[0]


def _plain(dtype: pa.DataType) -> pa.DataType:
    """Replace DuckDB's lossless Arrow boolean, which Parquet would store as an integer."""
    if isinstance(dtype, pa.Bool8Type):
        return pa.bool_()
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_plain(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_plain(f.type)) for f in (dtype.field(i) for i in range(dtype.num_fields))])
    return dtype


def _encoding(column: pa.ChunkedArray) -> str:
    """Return the encoding of a column; empty for a dictionary, which Parquet abandons if it grows too large."""
    dtype = column.type
    if pt.is_integer(dtype) or pt.is_timestamp(dtype) or pt.is_date(dtype):
        return "DELTA_BINARY_PACKED"
    if pt.is_nested(dtype) or pt.is_boolean(dtype) or _repeats(column):
        return ""
    if pt.is_decimal(dtype):
        return "DELTA_BINARY_PACKED" if dtype.precision <= _MAX_INT64_DIGITS else "PLAIN"
    if pt.is_floating(dtype):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_LENGTH_BYTE_ARRAY" if pt.is_string(dtype) else "PLAIN"


def _repeats(column: pa.ChunkedArray) -> bool:
    sample = column.slice(0, _SAMPLE)
    sample = sample.cast(sample.type.storage_type) if isinstance(sample.type, pa.BaseExtensionType) else sample
    return bool(pc.count_distinct(sample).as_py() * 2 <= len(sample))


def _leaves(field: pa.Field, path: str) -> Iterator[str]:
    """Yield the paths of a field's Parquet columns that may have dictionaries."""
    if pt.is_list(field.type):
        yield from _leaves(field.type.value_field, f"{path}.list.element")
    elif pt.is_struct(field.type):
        for inner in (field.type.field(i) for i in range(field.type.num_fields)):
            yield from _leaves(inner, f"{path}.{inner.name}")
    elif not pt.is_boolean(field.type):
        yield path
