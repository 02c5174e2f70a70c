"""Columns of a chunk as SQL expressions, found by the names that the file gives them, or by a path into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.pipelines.ingest.mapping import ColumnMapping, path_of, pointer
from refold.warehouse.engine.sql import literal, quote


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chunk.

    Attributes:
        sql: an expression for it.
        type: of the expression.
        top_level: whether it is a column of the table, not a value inside one.
        by_row: whether a row may lack it, as a key of JSON text or of a map.
    """

    sql: str
    type: pa.DataType
    top_level: bool = True
    by_row: bool = False


FindColumn = Callable[[str], Column | None]
"""Returns the column of a name, or None if the chunk has none."""


def column_finder(schema: pa.Schema, aliases: Mapping[str, str]) -> FindColumn:
    """Return a function that finds columns by name, or by a path into a column.

    Args:
        schema: of the table, under its aliases.
        aliases: name in the file to name in the table.
    """

    def find(name: str) -> Column | None:
        if name in aliases:
            return Column(aliases[name], schema.field(aliases[name]).type)
        first, *path = path_of(name)
        if first not in aliases:
            return None
        return inside(Column(aliases[first], schema.field(aliases[first]).type), tuple(path))

    return find


def inside(column: Column, path: tuple[str, ...]) -> Column | None:
    """Return the value at a path in a column of structs, maps, lists or JSON text; None if its type has none."""
    if not path:
        return column
    key, *rest = path
    dtype = column.type
    found: Column | None = None
    if pt.is_string(dtype):
        value = f"TRY(json_extract_string({column.sql}, {literal(pointer(path))}))"
        return Column(value, pa.string(), top_level=False, by_row=True)
    if pt.is_struct(dtype) and (index := dtype.get_field_index(key)) >= 0:
        found = Column(f"{column.sql}.{quote(key)}", dtype.field(index).type, False, column.by_row)
    elif pt.is_map(dtype) and pt.is_string(dtype.key_type):
        found = Column(f"{column.sql}[{literal(key)}]", dtype.item_type, False, by_row=True)
    elif pt.is_list(dtype) and key.isdecimal():
        found = Column(f"{column.sql}[{int(key) + 1}]", dtype.value_type, False, by_row=True)
    return inside(found, tuple(rest)) if found else None


def exists_in_table(find: FindColumn, name: str) -> str:
    """Write the condition that a row has a column; a table that has the column has it in every row."""
    column = find(name) if name else Column("true", pa.bool_())
    if column is None:
        return "false"
    return f"{column.sql} IS NOT NULL" if column.by_row else "true"


def without_null_values(column: Column, mapping: ColumnMapping) -> Column:
    """Take the texts that stand for no value, such as ``NA``, for NULL."""
    if pt.is_string(column.type) and mapping.null_values:
        listed = ", ".join(map(literal, mapping.null_values))
        return Column(f"CASE WHEN {column.sql} NOT IN ({listed}) THEN {column.sql} END", column.type, top_level=False)
    if pt.is_floating(column.type) and "NaN" in mapping.null_values:
        return Column(f"CASE WHEN NOT isnan({column.sql}) THEN {column.sql} END", column.type, top_level=False)
    return column


def field_of(struct: str, path: tuple[str, ...]) -> str:
    """Write the expression of a field inside a struct."""
    return struct + "".join(f".{quote(name)}" for name in path)


def select_list(expressions: Mapping[str, str]) -> str:
    """Write a select list of names and their expressions."""
    return ", ".join(f"{sql} AS {name}" for name, sql in expressions.items())
