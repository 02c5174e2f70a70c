"""SQL text: names, literals, types, and the columns that refold adds to what a user wrote.

A handler or an SQL upcaster is one ``SELECT`` over the relation ``event``. ``rewrite`` works on DuckDB's own syntax
tree: it supplies ``FROM event`` where that was left out, and appends columns (position, envelope) to the select
list, so that users never write them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import RefoldError
from refold.warehouse.engine.connections import connect

_SIMPLE_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.uuid(): "UUID",
}


class SqlError(RefoldError):
    """SQL text that is not what refold can run; the caller says whose it is."""


def first_line(error: Exception) -> str:
    """Shorten a DuckDB error to its sentence, without the excerpt of the query."""
    return " ".join(line.strip() for line in str(error).split("\n\n")[0].splitlines() if line.strip())


def quote(name: str) -> str:
    """Quote an identifier.

    Example:
        >>> quote('a"b')
        '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def columns(names: Iterable[str], *, prefix: str = "") -> str:
    """Write a list of quoted columns, each with an optional prefix such as ``"e."``."""
    return ", ".join(prefix + quote(n) for n in names)


def duckdb_type(dtype: pa.DataType) -> str:
    """Name the DuckDB type of an Arrow type.

    Example:
        >>> duckdb_type(pa.list_(pa.struct([("sku", pa.string())])))
        'STRUCT("sku" VARCHAR)[]'
    """
    if dtype in _SIMPLE_TYPES:
        return _SIMPLE_TYPES[dtype]
    if pt.is_timestamp(dtype):
        return "TIMESTAMPTZ" if dtype.tz else "TIMESTAMP"
    if pt.is_decimal(dtype):
        return f"DECIMAL({dtype.precision},{dtype.scale})"
    if pt.is_list(dtype):
        return f"{duckdb_type(dtype.value_type)}[]"
    if pt.is_struct(dtype):
        inner = ", ".join(f"{quote(f.name)} {duckdb_type(f.type)}" for f in _fields(dtype))
        return f"STRUCT({inner})"
    raise SqlError(f"The Arrow type {dtype} has no DuckDB type that refold keeps.")


def json_structure(dtype: pa.DataType) -> Any:
    """Describe a type in the way DuckDB's ``json_transform`` wants it."""
    if pt.is_struct(dtype):
        return {f.name: json_structure(f.type) for f in _fields(dtype)}
    if pt.is_list(dtype):
        return [json_structure(dtype.value_type)]
    return duckdb_type(dtype)


def null_in_required(expression: str, field: pa.Field) -> list[str]:
    """Write the conditions under which a required value inside ``expression`` is NULL."""
    conditions = [] if field.nullable else [f"{expression} IS NULL"]
    if pt.is_struct(field.type):
        for inner in _fields(field.type):
            parts = null_in_required(f"{expression}.{quote(inner.name)}", inner)
            conditions += [f"({expression} IS NOT NULL AND {p})" for p in parts]
    if pt.is_list(field.type):
        element = field.type.value_field
        parts = null_in_required("x", element)
        if parts:
            conditions.append(f"len(list_filter({expression}, lambda x: {' OR '.join(parts)})) > 0")
    return conditions


def _fields(dtype: pa.DataType) -> Iterator[pa.Field]:
    return (dtype.field(i) for i in range(dtype.num_fields))


def empty_relation(schema: pa.Schema) -> str:
    """Write a relation of this schema without rows, for binding."""
    typed = ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote(f.name)}" for f in schema)
    return f"(SELECT {typed} WHERE false)"


_HUGE = ("HUGEINT", "UHUGEINT")


def without_huge(connection: duckdb.DuckDBPyConnection, select: str) -> str:
    """Write a query whose 128-bit integers are decimals, such as the sum of a BIGINT.

    DuckDB would write them to Parquet as doubles, and Arrow has no such type.

    Args:
        connection: where the query binds.
        select: the query.
    """
    found = connection.sql(select)
    huge = [n for n, t in zip(found.columns, found.types, strict=True) if t in _HUGE]
    if not huge:
        return select
    exact = ", ".join(f"CAST({quote(n)} AS DECIMAL(38,0)) AS {quote(n)}" for n in huge)
    return f"SELECT * REPLACE ({exact}) FROM ({select})"


def result_schema(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Schema:
    """Give the Arrow schema of a query's result, with plain booleans in place of DuckDB's lossless ``arrow.bool8``."""
    schema = connection.sql(query).to_arrow_table().schema
    return pa.schema([f.with_type(_plain(f.type)) for f in schema])


def _plain(dtype: pa.DataType) -> pa.DataType:
    if isinstance(dtype, pa.Bool8Type):
        return pa.bool_()
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_plain(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_plain(f.type)) for f in _fields(dtype)])
    return dtype


def same_value(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether a value of one type becomes the other without being rounded or reinterpreted.

    A narrower integer may overflow at run time: that is an error then, never a changed value.
    """
    if found == wanted or pt.is_null(found):
        return True
    if pt.is_integer(found):
        return bool(pt.is_integer(wanted) or pt.is_decimal(wanted) or pt.is_floating(wanted))
    if pt.is_decimal(found):
        return bool(pt.is_decimal(wanted) and found.scale <= wanted.scale)
    if pt.is_floating(found):
        return bool(pt.is_floating(wanted))
    if pt.is_timestamp(found):
        return bool(pt.is_timestamp(wanted)) and bool(found.tz) == bool(wanted.tz)
    if pt.is_list(found) and pt.is_list(wanted):
        return same_value(found.value_type, wanted.value_type)
    if pt.is_struct(found) and pt.is_struct(wanted):
        pairs = {f.name: f.type for f in _fields(found)}
        return {f.name for f in _fields(wanted)} == set(pairs) and all(
            same_value(pairs[f.name], f.type) for f in _fields(wanted)
        )
    return False


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A user's ``SELECT``, ready to run over a relation named ``event``.

    Attributes:
        text: the SQL with the appended columns.
        multiplies: whether one event may yield several rows.
        unordered: whether these come in no order that DuckDB promises.
        plain: output column to input column, for outputs that are a bare column reference.
        nonnull: outputs that are constants other than NULL.
    """

    text: str
    multiplies: bool
    unordered: bool
    plain: dict[str, str]
    nonnull: frozenset[str]


def rewrite(select: str, *, append: dict[str, str]) -> Rewritten:
    """Supply ``FROM event`` and append columns to the select list of one statement.

    Args:
        select: one SELECT; set operations (UNION ALL) are rewritten on both sides.
        append: output column to the input column that it takes its values from. An output that the statement
            itself names already, or brings with ``*``, is not appended.

    Raises:
        SqlError: the text does not parse, or is not one SELECT.

    Example:
        >>> rewrite("SELECT 1 AS one WHERE quantity > 0", append={"_position": "position"}).text
        'SELECT 1 AS one, "position" AS _position FROM "event" WHERE (quantity > 0)'
    """
    tree = parse(select)
    node = tree["statements"][0]["node"]
    for leaf in _select_nodes(node):
        if leaf["from_table"]["type"] == "EMPTY":
            leaf["from_table"] = parse("SELECT 1 FROM event")["statements"][0]["node"]["from_table"]
        present = {_output_name(e).lower() for e in leaf["select_list"]}
        starred = any(e["class"] == "STAR" for e in leaf["select_list"])
        for output, source in append.items():
            if output.lower() not in present and not (starred and output == source):
                leaf["select_list"].append(_column(source, alias=output))
    leaves = [leaf["select_list"] for leaf in _select_nodes(node)]
    outputs = leaves[0] if len(leaves) == 1 else []
    return Rewritten(
        text=_deparse(tree),
        multiplies=_multiplies(node),
        unordered=_unordered(node),
        plain={_output_name(e): e["column_names"][-1] for e in outputs if _is_column_of_event(e)},
        nonnull=frozenset(_output_name(e) for e in outputs if _is_constant(e)),
    )


@functools.cache
def _scratch() -> duckdb.DuckDBPyConnection:
    return connect(threads=1)


def scratch() -> duckdb.DuckDBPyConnection:
    """Give a cursor on an empty in-memory database, for parsing and binding only.

    It is made at the first use and kept: opening one costs more than parsing a statement.
    """
    return _scratch().cursor()


def parse(select: str) -> dict[str, Any]:
    """Give the syntax tree of one SELECT.

    Raises:
        SqlError: the text does not parse, or is not one SELECT.
    """
    row = scratch().execute("SELECT json_serialize_sql(?)", [select]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {}
    if tree.get("error"):
        raise SqlError(f"{tree.get('error_message', 'not a SELECT')} in: {select.strip()}")
    if len(tree["statements"]) != 1:
        raise SqlError(f"expected one SELECT, found {len(tree['statements'])} statements in: {select.strip()}")
    return tree


def _deparse(tree: dict[str, Any]) -> str:
    row = scratch().execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    assert row is not None
    return str(row[0])


def normalised(select: str) -> str:
    """Write a statement the way DuckDB would, so that layout, case of keywords and comments make no difference.

    Example:
        >>> normalised("select  a -- note") == normalised("SELECT a")
        True
    """
    return _deparse(parse(select))


def _select_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["type"] == "SELECT_NODE":
        yield node
    elif node["type"] == "SET_OPERATION_NODE":
        for child in node.get("children") or [node["left"], node["right"]]:
            yield from _select_nodes(child)
    else:
        raise SqlError(f"expected a SELECT, found {node['type']}")


def _multiplies(node: dict[str, Any]) -> bool:
    """Tell whether a statement may yield several rows for one of ``event``, erring on the side of yes."""
    tables = [leaf["from_table"] for leaf in _select_nodes(node)]
    return (
        len(tables) != 1
        or tables[0]["type"] != "BASE_TABLE"
        or tables[0]["table_name"].lower() != "event"
        or any(n.get("function_name") in ("unnest", "unlist") for n in walk(node))
    )


def _unordered(node: dict[str, Any]) -> bool:
    """Tell whether rows may come in any order: what is neither streamed from ``event`` nor unnested may be hashed."""
    if node["type"] == "SET_OPERATION_NODE":
        children = node.get("children") or [node["left"], node["right"]]
        return node["setop_type"] != "UNION" or not node["setop_all"] or any(map(_unordered, children))
    grouped = bool(node.get("group_expressions")) or node["aggregate_handling"] != "STANDARD_HANDLING"
    return (
        grouped
        or any(m["type"] == "DISTINCT_MODIFIER" for m in node["modifiers"])
        or _unordered_table(node["from_table"])
    )


def _unordered_table(table: dict[str, Any]) -> bool:
    """DuckDB streams ``event, unnest(column)``, but joins ``event, unnest(expression)`` by hash."""
    if table["type"] == "SUBQUERY":
        return _unordered(table["subquery"]["node"])
    if table["type"] == "JOIN" and table["left"]["type"] == "BASE_TABLE" and table["right"]["type"] == "TABLE_FUNCTION":
        called = table["right"]["function"]
        arguments = [a.get("expression", a)["class"] for a in called.get("arguments") or called.get("children", [])]
        return table["join_type"] != "INNER" or called["function_name"] != "unnest" or arguments != ["COLUMN_REF"]
    return table["type"] not in ("BASE_TABLE", "EMPTY")


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Visit all nodes of a syntax tree, the given one first."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def _output_name(expression: dict[str, Any]) -> str:
    alias = str(expression.get("alias") or "")
    return alias or (str(expression["column_names"][-1]) if expression["class"] == "COLUMN_REF" else "")


def _is_column_of_event(expression: dict[str, Any]) -> bool:
    path = expression["column_names"] if expression["class"] == "COLUMN_REF" else []
    return len(path) == 1 or (len(path) == 2 and path[0] == "event")


def _is_constant(expression: dict[str, Any]) -> bool:
    kind = expression.get("literal", {}) if expression["class"] == "CONSTANT" else {}
    return bool(kind) and kind.get("kind") != "NULL_LITERAL"


def _column(name: str, *, alias: str) -> dict[str, Any]:
    expression: dict[str, Any] = parse(f"SELECT {quote(name)} AS {quote(alias)}")["statements"][0]["node"][
        "select_list"
    ][0]
    return expression
