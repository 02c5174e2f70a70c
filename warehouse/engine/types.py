"""DuckDB types as declarations write them, resolved: ``FLOAT8`` and ``double precision`` are both ``DOUBLE``."""

from __future__ import annotations

import functools

import duckdb

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError, first_line
from refold.warehouse.engine.syntax_tree import parse

FLOATS = frozenset({"FLOAT", "DOUBLE"})
"""Types whose sum depends on the order of addition."""

INTEGERS = frozenset(
    f"{sign}{width}" for sign in ("", "U") for width in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)


@functools.cache
def resolved_type(text: str) -> str:
    """Return the name that DuckDB itself gives a type.

    Raises:
        SqlError: the text is not the name of one type.

    Example:
        >>> resolved_type("float8"), resolved_type("NUMERIC(9, 2)"), resolved_type("INT8[]")
        ('DOUBLE', 'DECIMAL(9,2)', 'BIGINT[]')
    """
    query = f"SELECT CAST(NULL AS {text})"
    try:
        node = parse(query)["statements"][0]["node"]
    except SqlError as error:
        raise SqlError(f"{text!r} is not a DuckDB type: {str(error).split(' in: ')[0]}") from error
    if [e["class"] for e in node["select_list"]] != ["CAST"] or node["from_table"]["type"] != "EMPTY":
        raise SqlError(f"{text!r} is not a DuckDB type")
    try:
        return str(scratch().sql(query).types[0])
    except duckdb.Error as error:
        raise SqlError(f"{text!r} is not a DuckDB type: {first_line(error)}") from error
