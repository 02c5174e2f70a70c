"""Checks that SQL is deterministic: the rows of one event depend on that event alone.

A unit of a rebuild, a bucket and an increment each pass a different set of events to a handler. So a handler must not
count, number, limit or compare events, and must not read the clock or a random number.
"""

from __future__ import annotations

import functools
from typing import Any

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import parse, walk

_EVENT_TABLE = "event"
_NAMES_OF_ONE_EVENT = {"position", "event_id"}
_ALLOWED = {"error"}  # DuckDB calls it volatile, but it yields no value


def check_one_event(select: str) -> None:
    """Check that the rows which a statement over ``event`` yields for one event depend on that event alone.

    Raises:
        SqlError: they do not; the message names the part of the statement.

    Example:
        >>> check_one_event("SELECT stream_id, quantity * 2 AS twice WHERE quantity > 0")
        >>> check_one_event("SELECT stream_id, random() AS luck")
        Traceback (most recent call last):
        refold.warehouse.engine.sql.SqlError: random() returns a different value each time; take it from the event
    """
    tree = parse(select)
    for node in walk(tree):
        if node.get("class") == "WINDOW" and not _within_one_event(node):
            raise SqlError(
                "a window spans many events, but a handler sees one event at a time; partition the window by position"
            )
        _check_node(node, instead="take it from the event")
        if node.get("type") == "SELECT_NODE" and _reads_event(node):
            _check_select(node)


def check_repeatable(select: str) -> None:
    """Check that a statement over tables yields the same rows each time.

    Raises:
        SqlError: it does not; the message names the function.
    """
    for node in walk(parse(select)):
        _check_node(node, instead="take it from a table, or write a literal")


def _check_node(node: dict[str, Any], *, instead: str) -> None:
    if node.get("class") == "FUNCTION" and node["function_name"].lower() in _volatile():
        raise SqlError(f"{node['function_name']}() returns a different value each time; {instead}")


def _check_select(node: dict[str, Any]) -> None:
    kinds = {m["type"] for m in node["modifiers"]}
    if any(kind.startswith("LIMIT") for kind in kinds) or any(n.get("sample") for n in walk(node)):
        raise SqlError("a limit or sample selects among many events, but a handler sees one event at a time")
    if any(m.get("distinct_on_targets") for m in node["modifiers"]):
        raise SqlError("DISTINCT ON selects among many events, but a handler sees one event at a time")
    if (node["from_table"]["type"] == "EMPTY") + sum(map(_is_event_table, walk(node))) > 1:
        raise SqlError("event is read twice in one SELECT, but a handler sees one event and cannot look up others")


def _reads_event(node: dict[str, Any]) -> bool:
    return node["from_table"]["type"] == "EMPTY" or any(map(_is_event_table, walk(node["from_table"])))


def _is_event_table(node: dict[str, Any]) -> bool:
    return node.get("type") == "BASE_TABLE" and node["table_name"].lower() == _EVENT_TABLE


def _within_one_event(window: dict[str, Any]) -> bool:
    columns = [p["column_names"][-1].lower() for p in window["partitions"] if p["class"] == "COLUMN_REF"]
    return not _NAMES_OF_ONE_EVENT.isdisjoint(columns)


@functools.cache
def _volatile() -> frozenset[str]:
    """Return the names of the functions whose result does not depend on their arguments alone."""
    rows = scratch().execute("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'").fetchall()
    return frozenset(row[0] for row in rows) - _ALLOWED
