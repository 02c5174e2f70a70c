"""Rewriting of users' SQL on DuckDB's own syntax tree.

A handler or an SQL upcaster is one ``SELECT`` over the relation ``event``. ``rewrite`` supplies ``FROM event`` where
the user left it out, and appends columns (position, envelope) to the select list, so that users never write them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError, quote

_NO_SELECT = "Only SELECT statements can be serialized"

UNNESTING = frozenset({"generate_subscripts", "regexp_split_to_table", "unlist", "unnest"})
"""Functions that make several rows of one when they are in a select list."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A user's ``SELECT``, ready to run over a relation named ``event``.

    Attributes:
        text: the SQL with the appended columns.
        multiplies: whether one event may yield several rows.
        unordered: whether DuckDB promises no order for these rows.
    """

    text: str
    multiplies: bool
    unordered: bool


def rewrite(select: str, *, append: dict[str, str]) -> Rewritten:
    """Add ``FROM event`` where it is missing, and append columns to the select list of one statement.

    Args:
        select: one SELECT; set operations (UNION ALL) are rewritten on both sides.
        append: output column to the input column that holds its values. An output that the statement names itself,
            or brings with ``*``, is not appended.

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
        starred = any(_brings_all(e, leaf["from_table"]) for e in leaf["select_list"])
        for output, source in append.items():
            if output.lower() not in present and not (starred and output == source):
                leaf["select_list"].append(_column(source, alias=output))
    multiplies = _multiplies(node)
    unordered = _unordered(node, _common_tables(tree)) or (multiplies and any(map(_reorders, walk(tree))))
    return Rewritten(text=deparse(tree), multiplies=multiplies, unordered=unordered)


def parse(select: str) -> dict[str, Any]:
    """Return the syntax tree of one SELECT.

    Raises:
        SqlError: the text does not parse, or is not one SELECT.
    """
    row = scratch().execute("SELECT json_serialize_sql(?)", [select]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {}
    if tree.get("error"):
        message = str(tree.get("error_message", _NO_SELECT))
        raise SqlError(f"{'expected one SELECT' if message.startswith(_NO_SELECT) else message} in: {select.strip()}")
    if len(tree["statements"]) != 1:
        raise SqlError(f"expected one SELECT, found {len(tree['statements'])} statements in: {select.strip()}")
    return tree


def deparse(tree: dict[str, Any]) -> str:
    """Return a syntax tree as SQL."""
    row = scratch().execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchone()
    assert row is not None
    return str(row[0])


def with_values(select: str, values: Mapping[str, str]) -> str:
    """Return a SELECT with SQL expressions in place of its parameters.

    Example:
        >>> with_values("SELECT $a + 1", {"a": "2"})
        'SELECT (2 + 1)'
    """
    tree = parse(select)
    for node in list(walk(tree)):
        if node.get("class") == "PARAMETER":
            [value] = parse(f"SELECT {values[node['identifier']]}")["statements"][0]["node"]["select_list"]
            alias = node.get("alias", "")
            node.clear()
            node.update(value, alias=alias)
    tree["statements"][0]["named_param_map"] = []
    return deparse(tree)


def normalised(select: str) -> str:
    """Return a statement as DuckDB writes it: layout, case of keywords and comments make no difference.

    Example:
        >>> normalised("select  a -- note") == normalised("SELECT a")
        True
    """
    return deparse(parse(select))


def _select_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["type"] == "SELECT_NODE":
        yield node
    elif node["type"] == "SET_OPERATION_NODE":
        for child in node.get("children") or [node["left"], node["right"]]:
            yield from _select_nodes(child)
    else:
        raise SqlError(f"expected a SELECT, found {node['type']}")


def _multiplies(node: dict[str, Any]) -> bool:
    """Check whether a statement may yield several rows for one of ``event``. In doubt, it may."""
    tables = [leaf["from_table"] for leaf in _select_nodes(node)]
    return (
        len(tables) != 1
        or tables[0]["type"] != "BASE_TABLE"
        or tables[0]["table_name"].lower() != "event"
        or any(str(n.get("function_name", "")).lower() in UNNESTING for n in own_nodes(node))
    )


_Definitions = dict[str, dict[str, Any]]


def _common_tables(tree: dict[str, Any]) -> _Definitions:
    """Return the queries of all WITH clauses, by name in lower case."""
    maps = [node["cte_map"].get("map") or [] for node in walk(tree) if isinstance(node.get("cte_map"), dict)]
    queries = {entry["key"].lower(): entry["value"] for entries in maps for entry in entries}
    return {name: value.get("query_node") or value["query"]["node"] for name, value in queries.items()}


def _unordered(node: dict[str, Any], definitions: _Definitions) -> bool:
    """Check whether rows may come in any order, as they do from a hash join, a GROUP BY or a DISTINCT."""
    if node["type"] == "SET_OPERATION_NODE":
        children = node.get("children") or [node["left"], node["right"]]
        every = node["setop_type"] == "UNION" and node["setop_all"]
        return not every or any(_unordered(child, definitions) for child in children)
    if node["type"] != "SELECT_NODE":
        return True
    grouped = bool(node.get("group_expressions")) or node["aggregate_handling"] != "STANDARD_HANDLING"
    return (
        grouped
        or any(m["type"] == "DISTINCT_MODIFIER" for m in node["modifiers"])
        or _unordered_table(node["from_table"], definitions)
    )


def _reorders(node: dict[str, Any]) -> bool:
    """Check whether a part of a statement may change the order of rows: a sort, a window, or a subquery's join."""
    sorts = node.get("type") == "ORDER_MODIFIER" and bool(node.get("orders"))
    return sorts or node.get("class") in ("WINDOW", "SUBQUERY")


def _unordered_table(table: dict[str, Any], definitions: _Definitions) -> bool:
    """Check a FROM clause. DuckDB streams ``event, unnest(column)`` and hashes ``event, unnest(expression)``."""
    if table["type"] == "SUBQUERY":
        return _unordered(table["subquery"]["node"], definitions)
    if table["type"] == "BASE_TABLE" and table["table_name"].lower() in definitions:
        others = {n: d for n, d in definitions.items() if n != table["table_name"].lower()}
        return _unordered(definitions[table["table_name"].lower()], others)
    if table["type"] == "JOIN" and table["left"]["type"] == "BASE_TABLE" and table["right"]["type"] == "TABLE_FUNCTION":
        called = table["right"]["function"]
        arguments = [a.get("expression", a)["class"] for a in called.get("arguments") or called.get("children", [])]
        return (
            table["join_type"] != "INNER"
            or called["function_name"] != "unnest"
            or arguments != ["COLUMN_REF"]
            or _unordered_table(table["left"], definitions)
        )
    return table["type"] not in ("BASE_TABLE", "EMPTY")


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Visit all nodes of a syntax tree, the given one first."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(reversed(node.values()))
        elif isinstance(node, list):
            pending.extend(reversed(node))


def _brings_all(expression: dict[str, Any], table: dict[str, Any]) -> bool:
    """Check whether an expression is ``*``, or ``e.*`` of a table; ``address.*`` brings the fields of a struct only."""
    if expression["class"] != "STAR" or expression["columns"]:
        return False
    names = {str(n.get(part, "")).lower() for n in walk(table) for part in ("alias", "table_name")}
    return not expression["relation_name"] or expression["relation_name"].lower() in names


def own_nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Visit all nodes of a part of a syntax tree, without those of subqueries in expressions."""
    if isinstance(part, dict) and part.get("class") != "SUBQUERY":
        yield part
        for value in part.values():
            yield from own_nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from own_nodes(value)


def _output_name(expression: dict[str, Any]) -> str:
    alias = str(expression.get("alias") or "")
    return alias or (str(expression["column_names"][-1]) if expression["class"] == "COLUMN_REF" else "")


def _column(name: str, *, alias: str) -> dict[str, Any]:
    expression: dict[str, Any] = parse(f"SELECT {quote(name)} AS {quote(alias)}")["statements"][0]["node"][
        "select_list"
    ][0]
    return expression
