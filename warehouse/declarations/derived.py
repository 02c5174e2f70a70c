"""Derived columns: generated columns of a read model's table, which DuckDB computes when they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from refold.event_schemas import ProjectionError
from refold.event_schemas.names import folded
from refold.warehouse.declarations.determinism import check_plan, check_repeatable
from refold.warehouse.declarations.reader_settings import check_binding, check_divisors, check_reader_settings
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.duckdb_types import resolve
from refold.warehouse.engine.scratch import scratch, scratch_schema
from refold.warehouse.engine.sql import SqlError, first_line, quote
from refold.warehouse.engine.syntax_tree import deparse, parse, walk


def generated_column(expression: str, columns: Collection[str]) -> str:
    """Return an expression as a generated column can have it.

    DuckDB refuses ``address.city`` in a generated column, because it takes ``address`` for a table there.

    Args:
        expression: the SQL expression over the columns of the row.
        columns: the columns of the row.

    Raises:
        SqlError: the text is not one expression.

    Example:
        >>> generated_column("address.city", ["address"])
        "struct_extract(address, 'city')"
    """
    tree = parse(f"SELECT {expression}")
    node = tree["statements"][0]["node"]
    only = node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1 and node["from_table"]["type"] == "EMPTY"
    if not only or node["modifiers"] or node.get("where_clause") or node["select_list"][0].get("alias"):
        raise SqlError("expected one expression over the columns of the row")
    known = {folded(c) for c in columns}
    for found in list(walk(node)):
        path = found["column_names"] if found.get("class") == "COLUMN_REF" else []
        if len(path) > 1 and folded(path[0]) in known:
            _extract(found)
    return deparse(tree).removeprefix("SELECT ")


def _extract(reference: dict[str, Any]) -> None:
    """Replace a reference to a field of a struct by a call, in its place in the syntax tree."""
    column, *fields = reference["column_names"]
    text = quote(column)
    for field in fields:
        text = f"struct_extract({text}, '{field.replace(chr(39), chr(39) * 2)}')"
    [call] = parse(f"SELECT {text}")["statements"][0]["node"]["select_list"]
    alias = reference.get("alias", "")
    reference.clear()
    reference.update(call, alias=alias)


def check_derived(where: str, table: Mapping[str, str], derived: Mapping[str, str]) -> None:
    """Check derived columns: they repeat, do not depend on the reader's session, and DuckDB can generate them.

    Args:
        where: the start of an error message.
        table: the table's other columns, with their DuckDB types.
        derived: column to expression.

    Raises:
        ProjectionError: naming the derived column.
    """
    typed = ", ".join(f"CAST(NULL AS {t}) AS {quote(c)}" for c, t in table.items())
    for column, expression in derived.items():
        try:
            text = generated_column(expression, table)
            query = f"SELECT {text} FROM (SELECT {typed})"
            check_repeatable(query, ())
            scratch().sql(query)
            plan = bound_plan(scratch(), query)
            check_plan(plan, tables=())
            check_reader_settings(plan)
            check_divisors(f"SELECT {text}")
            _create(table, column, text)
        except (SqlError, duckdb.Error) as error:
            raise ProjectionError(f"{where}, derived column {column}: {first_line(error)}") from error


def stored_type(declared: str) -> str:
    """Return the type of a published column: text has the collation of bytes, whatever a reader's default is."""
    dtype = resolve(declared)
    return f"{declared} COLLATE C" if dtype.id == "varchar" and str(dtype) == "VARCHAR" else declared


def _create(table: Mapping[str, str], column: str, expression: str) -> None:
    """Create an empty table with the column: only this shows whether DuckDB can generate it."""
    typed = ", ".join(f"{quote(c)} {stored_type(t)}" for c, t in table.items())
    try:
        with scratch_schema() as connection:
            connection.execute(f"CREATE TABLE _derived ({typed}, {quote(column)} AS ({expression}))")
            check_binding(connection, f"SELECT {quote(column)} FROM _derived")
    except duckdb.Error as error:
        raise SqlError(
            f"DuckDB cannot compute it when a row is read: {first_line(error)} A derived column has no lambda, "
            "subquery, window, aggregate or unnest; compute it in a handler or a view"
        ) from error
