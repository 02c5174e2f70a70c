"""Checks that SQL in a published file gives every reader the same answer, whatever the settings of the session.

Readers open the file with their own DuckDB, in the time zone of their machine. So a derived column, a view or an
endpoint must not convert between a time with a zone and one without: ``CAST(at AS DATE)`` is another day in Tokyo.
Handlers and upcasters may, because they run in connections of refold, which are in UTC.

What a setting changes when a query is bound, the bound plan shows: a derived column or a view must have the same plan
under each such setting. What a setting changes later is known by the names of functions.
"""

from __future__ import annotations

import re
from typing import Any

import duckdb

from refold.warehouse.declarations.functions import ZONE_FREE
from refold.warehouse.engine.bound_plan import CAST, Call, Node, bound_plan, calls, type_names
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import deparse, parse, walk

_ZONED = re.compile(r"WITH TIME ZONE$")
_HAS_ZONE = re.compile(r"\s*(-?infinity|epoch|.*:\d\d(\.\d+)?\s*(Z|[+-]\d\d(:?\d\d)?))\s*", re.IGNORECASE)

_SORTS = {"list_sort": 3, "array_sort": 3, "list_grade_up": 3, "array_grade_up": 3, "grade_up": 3}
_REVERSE_SORTS = ("list_reverse_sort", "array_reverse_sort")


def check_reader_settings(plan: Node) -> None:
    """Check that a bound plan does not depend on the reader's time zone, nor on the reader's order of NULLs.

    Raises:
        SqlError: it does; the message names the conversion and what to write.
    """
    for call in calls(plan):
        if any(_ZONED.search(name) for name in call.types) and not _zone_free(call):
            raise SqlError(
                f"{_described(call)} depends on the time zone of the reader's session; convert the time to UTC first, "
                "as in occurred_at AT TIME ZONE 'UTC'"
            )
        if call.name in _REVERSE_SORTS or len(call.arguments) < _SORTS.get(call.name, 0):
            raise SqlError(
                f"{call.name}() depends on the reader's default order; write list_sort(x, 'ASC', 'NULLS LAST')"
            )


_BINDING_SETTINGS = {
    "default_collation": ("'nocase'", "write COLLATE C after the text, as in CAST(x AS VARCHAR) COLLATE C = 'a'"),
    "default_order": ("'desc'", "write ASC or DESC"),
    "default_null_order": ("'nulls_first'", "write NULLS LAST"),
    "integer_division": ("true", "write // for a quotient without a fraction"),
    "regex_match_operator_semantics": ("'full'", "call regexp_matches()"),
}
"""Settings that change how a query is bound, each with another value than that of refold, and what to write instead."""


def check_binding(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Check that a query over tables and views is bound alike in every session.

    Args:
        connection: a connection that has them; their text was parsed with the settings of refold.
        query: reads a derived column or a view.

    Raises:
        SqlError: it is not; the message names the setting.
    """
    plan = _without_notes(bound_plan(connection, query))
    for name, (other, instead) in _BINDING_SETTINGS.items():
        connection.execute(f"SET SESSION {name} = {other}")
        try:
            if _without_notes(bound_plan(connection, query)) != plan:
                raise SqlError(f"the answer depends on {name} in the reader's session; {instead}")
        finally:
            connection.execute(f"RESET SESSION {name}")


_DIVISIONS = ("/", "//", "%", "divide", "mod", "fmod", "fdiv")


def check_divisors(select: str) -> None:
    """Check that nothing may be divided by zero: a reader's session decides if that is infinity, NULL or an error.

    Raises:
        SqlError: a divisor is neither a constant nor ``nullif(x, 0)``.

    Example:
        >>> check_divisors("SELECT spent / 100, spent / nullif(visits, 0)")
        >>> check_divisors("SELECT spent / visits")
        Traceback (most recent call last):
        refold.warehouse.engine.sql.SqlError: the reader's session decides what x / 0 is; divide by nullif(x, 0)
    """
    for node in walk(parse(select)):
        given = [each["expression"] for each in node.get("arguments") or []]
        divides = node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in _DIVISIONS
        if divides and len(given) == 2 and not _is_divisor(given[1]):
            raise SqlError("the reader's session decides what x / 0 is; divide by nullif(x, 0)")


def _is_divisor(expression: Node) -> bool:
    while expression["class"] == "CAST":
        expression = expression["child"]
    if expression.get("function_name", "").lower() == "nullif":
        second = expression["arguments"][1]["expression"]
        return second["class"] == "CONSTANT" and not _is_divisor(second)
    return expression["class"] == "CONSTANT" and bool(re.search("[1-9]", str(expression["literal"].get("text", ""))))


def _without_notes(plan: Node) -> Node:
    """Remove where list_sort() notes the default collation: its sort key shows whether that matters."""
    for node in walk(plan):
        node.pop("default_collation", None)
    return plan


def _zone_free(call: Call) -> bool:
    if call.name == CAST:
        same = call.arguments[0] == call.result or type_names(call.arguments[0]) == {"NULL"}
        return same or bool(call.text and _HAS_ZONE.fullmatch(call.text))
    if call.name == "timezone":
        return len(call.arguments) == 2 and type_names(call.arguments[0]) == {"VARCHAR"}
    return call.name in ZONE_FREE and (call.name != "make_timestamptz" or len(call.arguments) == 1)


def _described(call: Call) -> str:
    if call.name == CAST:
        return f"a conversion of {_written(call.arguments[0])} to {_written(call.result)}"
    called = f"{call.name}()" if call.name[0].isalpha() else f"the operator {call.name}"
    return f"{called} with {', '.join(map(_written, call.arguments))}"


def _written(dtype: Any) -> str:
    return str(dtype.get("id", "?")) if isinstance(dtype, dict) else "?"


def with_explicit_order(select: str) -> str:
    """Return a SELECT whose every ORDER BY says ASC or DESC, and where NULLs go, as DuckDB's own defaults are.

    A reader may have other defaults (``default_order``, ``default_null_order``).

    Example:
        >>> with_explicit_order("SELECT sku FROM stock ORDER BY sku")
        'SELECT sku FROM stock ORDER BY sku ASC NULLS LAST'
    """
    tree = parse(select)
    changed = False
    for node in walk(tree):
        if "null_order" in node and "type" in node:
            changed |= "ORDER_DEFAULT" in (node["type"], node["null_order"])
            node["type"] = "ASCENDING" if node["type"] == "ORDER_DEFAULT" else node["type"]
            node["null_order"] = "NULLS LAST" if node["null_order"] == "ORDER_DEFAULT" else node["null_order"]
    return deparse(tree) if changed else select
