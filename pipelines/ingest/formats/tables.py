"""Tables in Arrow as chunks of rows, checked for what no reader checks."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.rows import Rows
from refold.pipelines.ingest.source_file import SourceFile


def table_rows(source: SourceFile, table: pa.Table, done: int, consumed: int) -> Rows:
    """Return a table as rows.

    Args:
        source: the file.
        table: some of its rows.
        done: how many rows were read with these.
        consumed: bytes of the stored file read so far.
    """
    first = done - table.num_rows
    for name in table.schema.names:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, _checked(source, table[name], name))
    table = table.combine_chunks()
    return Rows(
        columns=table,
        lines=range(first + 1, done + 1),
        text=lambda row: json.dumps(table.slice(row, 1).to_pylist()[0], default=str, ensure_ascii=False),
        after={"row": done, "line": done, "offset": done},
        consumed=consumed,
    )


def refuse_twins(source: SourceFile, names: list[str]) -> None:
    """Check that no two columns have one name.

    Raises:
        UsageError: two have.
    """
    if double := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(f"{source.name} has two columns {double[0]!r}. Rename one of them.")


def _checked(source: SourceFile, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Refuse text that is no UTF-8; read binary columns, which some writers use, as text; keep all digits of times."""
    try:
        if pt.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pt.is_binary(column.type) or pt.is_large_binary(column.type):
            return column.cast(pa.string())
        if pt.is_timestamp(column.type) and column.type.unit == "ns":
            return _in_microseconds(column)
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise UsageError(f"{source.name}: the column {name!r} holds no valid {column.type}: {error}.") from error
    if _has_nanoseconds(column.type):
        raise UsageError(
            f"{source.name}: the column {name!r} is {column.type}, whose times have nanoseconds, which an event has "
            "not. Convert the file."
        )
    return column


def _in_microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return times in microseconds, or as text if that would round one: then the rule for texts decides about it."""
    zone = column.type.tz
    try:
        return column.cast(pa.timestamp("us", zone))
    except pa.ArrowInvalid:
        texts = column.cast(pa.timestamp("ns")).cast(pa.string())
        return pc.binary_join_element_wise(texts, "Z", "") if zone else texts


def _has_nanoseconds(dtype: pa.DataType) -> bool:
    if pt.is_nested(dtype):
        return any(_has_nanoseconds(dtype.field(i).type) for i in range(dtype.num_fields))
    return bool(pt.is_timestamp(dtype) and dtype.unit == "ns")
