"""The bound plan of a query: what DuckDB would run, before any optimiser.

Names are resolved, macros and views are expanded, implicit casts are written out, and every call has the types that
overload resolution chose. What the text of a query hides (``current_date`` without parentheses, a view over a system
table, a cast that a comparison needs) is visible here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import walk

Node = dict[str, Any]

CAST = "__cast"
"""How DuckDB names a cast in a plan."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function, an operator or a cast.

    Attributes:
        name: the function's name; an operator's is its symbol.
        arguments: the DuckDB types of the arguments.
        result: the DuckDB type of the result.
        types: all types in arguments and result, with those inside lists and structs.
        text: the value of the only argument if that is a constant text.
    """

    name: str
    arguments: tuple[Any, ...]
    result: Any
    types: frozenset[str]
    text: str | None


def bound_plan(connection: duckdb.DuckDBPyConnection, query: str) -> Node:
    """Return the bound plan of one SELECT.

    Args:
        connection: a connection that has the tables which the query reads.
        query: the SELECT; its parameters are replaced by literals.

    Raises:
        SqlError: the query does not bind, or is not one SELECT.
    """
    row = connection.execute("SELECT json_serialize_plan(?)", [query]).fetchone()
    plan: Node = json.loads(row[0]) if row else {}
    if plan.get("error"):
        raise SqlError(str(plan.get("error_message", "the query has no plan")))
    [root] = plan["plans"]
    return root  # type: ignore[no-any-return]


def operators(plan: Node) -> Iterator[Node]:
    """Visit the operators of a plan, such as ``LOGICAL_FILTER``, also those inside expressions."""
    return (node for node in walk(plan) if str(node.get("type", "")).startswith("LOGICAL_"))


def scans(plan: Node) -> Iterator[tuple[str, str]]:
    """Yield the table function of each scan, and the table that it scans, if any."""
    for node in operators(plan):
        if node["type"] == "LOGICAL_GET":
            scanned = node.get("function_data")
            table = scanned.get("table", "") if isinstance(scanned, dict) else ""
            yield _name(node), str(table or "")


def calls(plan: Node) -> Iterator[Call]:
    """Yield the calls of functions, operators and casts in a plan."""
    for node in walk(plan):
        if "qname" in node and "expression_class" in node:
            children = [child for child in node.get("children", []) if isinstance(child, dict)]
            arguments = tuple(_type_of(child) for child in children)
            result = node.get("return_type")
            yield Call(_name(node), arguments, result, type_names([*arguments, result]), _constant_text(children))


def output_collations(plan: Node) -> dict[str, str]:
    """Return the columns of ``SELECT * FROM (...)`` whose text has a collation, also inside lists and structs.

    A collation stays with a value through a cast, and changes how it is compared.
    """
    node = plan
    while node["type"] != "LOGICAL_PROJECTION":
        node = node["children"][-1]
    found = {str(e.get("alias", "")): collations(_type_of(e)) for e in node["expressions"]}
    return {name: min(names) for name, names in found.items() if names}


def collations(dtype: Any) -> frozenset[str]:
    """Return the collations of a type other than that of bytes, as a plan writes them."""
    names = (str(node.get("collation") or "") for node in walk(dtype))
    return frozenset(name for name in names if name.upper() not in ("", "C", "POSIX", "BINARY"))


def type_names(dtype: Any) -> frozenset[str]:
    """Return the names of a type and of the types inside it, as a plan writes them.

    Example:
        >>> sorted(type_names({"id": "LIST", "type_info": {"child_type": {"id": "DATE"}}}))
        ['DATE', 'LIST']
    """
    return frozenset(str(node["id"]) for node in walk(dtype) if "id" in node)


def _name(node: Node) -> str:
    return str(node["qname"]["path"][-1]).lower()


def _type_of(expression: Node) -> Any:
    return expression.get("return_type") or expression.get("value", {}).get("type")


def _constant_text(children: list[Node]) -> str | None:
    value = children[0].get("value") if len(children) == 1 else None
    return value.get("value") if isinstance(value, dict) and isinstance(value.get("value"), str) else None
