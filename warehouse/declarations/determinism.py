"""SQL that sees one event at a time: whatever looks beyond it would give other rows for other cuts of the history.

A unit of a rebuild, a bucket, an increment: each hands a handler other events, so it must not count, number, limit or
compare them. Nor may it look at the clock, or throw dice.
"""

from __future__ import annotations

import functools
from typing import Any

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import parse, walk

_EVENT_TABLE = "event"
_NAMES_OF_ONE_EVENT = {"position", "event_id"}
_HARMLESS = {"error"}


def check_one_event(select: str) -> None:
    """Refuse a statement over ``event`` whose rows for one event depend on others, or on anything but the event.

    Raises:
        SqlError: saying what in it does.

    Example:
        >>> check_one_event("SELECT stream_id, quantity * 2 AS twice WHERE quantity > 0")
        >>> check_one_event("SELECT stream_id, random() AS luck")
        Traceback (most recent call last):
        refold.warehouse.engine.sql.SqlError: random() tells something else each time; take it from the event
    """
    tree = parse(select)
    for node in walk(tree):
        if node.get("class") == "WINDOW" and not _within_one_event(node):
            raise SqlError(
                "a window goes over many events; a handler sees them one at a time. Partition it by position"
            )
        _check_repeatable(node, instead="take it from the event")
        if node.get("type") == "SELECT_NODE" and _reads_event(node):
            _check_select(node)


def check_repeatable(select: str) -> None:
    """Refuse a statement over tables that would tell something else the next time.

    Raises:
        SqlError: saying what in it does.
    """
    for node in walk(parse(select)):
        _check_repeatable(node, instead="take it from a table, or write it down")


def _check_repeatable(node: dict[str, Any], *, instead: str) -> None:
    if node.get("class") == "FUNCTION" and node["function_name"].lower() in _volatile():
        raise SqlError(f"{node['function_name']}() tells something else each time; {instead}")


def _check_select(node: dict[str, Any]) -> None:
    kinds = {m["type"] for m in node["modifiers"]}
    if any(kind.startswith("LIMIT") for kind in kinds) or any(n.get("sample") for n in walk(node)):
        raise SqlError("a limit or sample picks some of many events; a handler sees them one at a time")
    if any(m.get("distinct_on_targets") for m in node["modifiers"]):
        raise SqlError("DISTINCT ON picks one of many events; a handler sees them one at a time")
    if (node["from_table"]["type"] == "EMPTY") + sum(map(_is_event_table, walk(node))) > 1:
        raise SqlError("event is read twice in one SELECT; a handler sees one event, and cannot look up others")


def _reads_event(node: dict[str, Any]) -> bool:
    return node["from_table"]["type"] == "EMPTY" or any(map(_is_event_table, walk(node["from_table"])))


def _is_event_table(node: dict[str, Any]) -> bool:
    return node.get("type") == "BASE_TABLE" and node["table_name"].lower() == _EVENT_TABLE


def _within_one_event(window: dict[str, Any]) -> bool:
    columns = [p["column_names"][-1].lower() for p in window["partitions"] if p["class"] == "COLUMN_REF"]
    return not _NAMES_OF_ONE_EVENT.isdisjoint(columns)


@functools.cache
def _volatile() -> frozenset[str]:
    """Name the functions whose value DuckDB does not take from their arguments alone."""
    rows = scratch().execute("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'").fetchall()
    return frozenset(row[0] for row in rows) - _HARMLESS
