"""Columns of a chunk as SQL expressions, found by the names that the file gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.pipelines.ingest.mapping import path_of
from refold.warehouse.engine.sql import quote


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chunk.

    Attributes:
        sql: an expression for it.
        type: of the expression.
        top_level: whether it is a column of the table, not a field inside one.
    """

    sql: str
    type: pa.DataType
    top_level: bool = True


FindColumn = Callable[[str], Column | None]
"""Returns the column of a name, or None if the chunk has none."""


def column_finder(schema: pa.Schema, aliases: Mapping[str, str]) -> FindColumn:
    """Return a function that finds columns by name, or by a path into structs.

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
        dtype, sql = schema.field(aliases[first]).type, aliases[first]
        for part in path:
            index = dtype.get_field_index(part) if pt.is_struct(dtype) else -1
            if index < 0:
                return None
            dtype, sql = dtype.field(index).type, f"{sql}.{quote(part)}"
        return Column(sql, dtype, top_level=False)

    return find


def field_of(struct: str, path: tuple[str, ...]) -> str:
    """Write the expression of a field inside a struct."""
    return struct + "".join(f".{quote(name)}" for name in path)


def select_list(expressions: Mapping[str, str]) -> str:
    """Write a select list of names and their expressions."""
    return ", ".join(f"{sql} AS {name}" for name, sql in expressions.items())
