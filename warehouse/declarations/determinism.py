"""Checks that SQL is deterministic: the same rows give the same result, in a rebuild, in a stream and for every reader.

Only functions of the list in ``functions`` may be called. The syntax tree is checked first, because its names are those
that the user wrote, and because DuckDB computes some calls, such as ``getvariable('x')``, while it binds. The bound
plan is checked afterwards, because the text hides what ``current_date``, a macro or an implicit cast stand for.

A handler must also look at one event at a time: a unit of a rebuild, a bucket and an increment each pass a different
set of events to it. So it must not count, number, limit or compare events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from refold.event_schemas.names import folded
from refold.warehouse.declarations import functions
from refold.warehouse.engine.bound_plan import Call, Node, calls, operators, output_collations, scans
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.syntax_tree import own_nodes, parse, walk

_EVENT_TABLE = "event"
_NAMES_OF_ONE_EVENT = {"position", "event_id"}
_TAKE_FROM_EVENT = "take it from the event"
_TAKE_FROM_TABLE = "take it from a table, or write a literal"
_OPERATORS = {
    *("PROJECTION", "FILTER", "AGGREGATE_AND_GROUP_BY", "WINDOW", "UNNEST", "LIMIT", "ORDER_BY", "TOP_N", "DISTINCT"),
    *("GET", "EXPRESSION_GET", "DUMMY_SCAN", "EMPTY_RESULT", "CTE_REF", "MATERIALIZED_CTE", "RECURSIVE_CTE", "PIVOT"),
    *("COMPARISON_JOIN", "ANY_JOIN", "ASOF_JOIN", "CROSS_PRODUCT", "DELIM_JOIN", "DELIM_GET", "DEPENDENT_JOIN"),
    *("UNION", "EXCEPT", "INTERSECT"),
}
_REFUSED_OPERATORS = {
    "SAMPLE": "a sample selects other rows each time; use WHERE",
    "CHUNK_GET": "DESCRIBE and SHOW read the database's own catalogue; write a SELECT over tables",
    "POSITIONAL_JOIN": "a positional join depends on the order of rows, which may differ each time; join by a column",
}


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
    _check_functions(tree, instead=_TAKE_FROM_EVENT)
    definitions = _common_tables(tree)
    _check_own_names(tree, definitions)
    _check_tables(tree, {_EVENT_TABLE, *definitions})
    readers = _event_tables(definitions)
    root = tree["statements"][0]["node"]
    for node in walk(tree):
        if node.get("class") == "WINDOW" and not _within_one_event(node):
            raise SqlError(
                "a window spans many events, but a handler sees one event at a time; partition the window by position"
            )
        if node.get("type") == "SELECT_NODE" and _reads_event(node, readers):
            _check_select(node, readers)
            if not any(
                node is leaf for leaf in _leaves(root)
            ):  # refold adds the position to those, so they group by it
                _check_aggregates(node)


def check_repeatable(select: str, tables: Collection[str] | None = None) -> None:
    """Check that a statement over tables yields the same rows each time.

    Args:
        select: one SELECT.
        tables: the tables and views that it may read; None if any, since the caller knows them only when it runs.

    Raises:
        SqlError: it does not; the message names the function.
    """
    tree = parse(select)
    _check_functions(tree, instead=_TAKE_FROM_TABLE)
    known = None if tables is None else {folded(t) for t in tables} | set(_common_tables(tree))
    _check_tables(tree, known)
    for node in walk(tree):
        if node.get("class") == "COLUMN_REF" and folded(node["column_names"][-1]) == "rowid":
            raise SqlError("rowid differs each time a table is written; order and join by a column")
        modifiers = node.get("modifiers")
        kinds = {m["type"] for m in modifiers} if isinstance(modifiers, list) else set()
        ordered = "ORDER_MODIFIER" in kinds
        if any(kind.startswith("LIMIT") for kind in kinds) and not ordered:
            raise SqlError("LIMIT without ORDER BY selects other rows each time; add ORDER BY")
        if not ordered and any(m.get("distinct_on_targets") for m in modifiers or []):
            raise SqlError("DISTINCT ON without ORDER BY selects other rows each time; add ORDER BY")
        if node.get("class") == "WINDOW" and not node.get("orders"):
            name = _called(node)
            if name in functions.ORDERED_WINDOWS | functions.ORDERED_AGGREGATES:
                raise SqlError(f"{name}() depends on the order of rows; add ORDER BY to its window")


def check_plan(plan: Node, *, tables: Collection[str] | None, of_event: bool = False) -> None:
    """Check that a bound plan holds nothing that may differ each time.

    Args:
        plan: the bound plan.
        tables: the tables that it may scan; None if any.
        of_event: whether the statement is over one event, for the advice.

    Raises:
        SqlError: it does; the message names the function or the operator.
    """
    instead = _TAKE_FROM_EVENT if of_event else _TAKE_FROM_TABLE
    for operator in operators(plan):
        kind = operator["type"].removeprefix("LOGICAL_")
        if kind not in _OPERATORS:
            name = kind.replace("_", " ").lower()
            raise SqlError(_REFUSED_OPERATORS.get(kind, f"{name} cannot be used here; write a SELECT over tables"))
    for function, table in scans(plan):
        if function == "seq_scan" and table and (tables is None or folded(table) in {folded(t) for t in tables}):
            continue
        if function not in functions.TABLE_FUNCTIONS:
            raise SqlError(_not_a_table(table or f"{function}()"))
    for call in calls(plan):
        _check_call(call, instead=instead)


def check_collations(plan: Node) -> None:
    """Check that no column of ``SELECT * FROM (...)`` has a collation: it would be compared so on some ways only.

    Raises:
        SqlError: naming the column and its collation.
    """
    for column, collation in output_collations(plan).items():
        raise SqlError(
            f"column {column!r} has the collation {collation}, which a cast keeps but a stored value does not; select "
            f"lower({column}) to ignore case, or remove the collation with {column} COLLATE C"
        )


def _check_call(call: Call, *, instead: str) -> None:
    if call.name == "age" and len(call.arguments) == 1:
        raise SqlError(
            f"age() with one argument returns a different value each time, because it reads the clock; {instead}"
        )
    if call.name not in functions.TABLE_FUNCTIONS:
        _check_name(call.name, instead=instead)


def _check_functions(tree: Node, *, instead: str) -> None:
    for node in walk(tree):
        if node.get("class") == "PARAMETER":
            raise SqlError("a parameter has no value here; only a report has parameters")
        if node.get("type") == "TABLE_FUNCTION":
            name = _called(node["function"])
            if name not in functions.TABLE_FUNCTIONS:
                raise SqlError(_not_a_table(f"{name}()"))
        elif node.get("class") in ("FUNCTION", "WINDOW"):
            name = _called(node)
            if name not in functions.TABLE_FUNCTIONS:
                _check_name(name, instead=instead)
            if node["class"] == "FUNCTION":
                _check_aggregate(node, name)


def _check_name(name: str, *, instead: str) -> None:
    if name in functions.REFUSED:
        reason = functions.REFUSED[name]
        raise SqlError(f"{name}() {reason}" if ";" in reason else f"{name}() {reason}; {instead}")
    if not functions.is_allowed(name):
        raise SqlError(
            f"{name}() is not among the functions that are known to return the same value each time; {instead}"
        )


def _check_aggregate(node: Node, name: str) -> None:
    if name in functions.ORDERED_AGGREGATES and not (node.get("order_bys") or {}).get("orders"):
        raise SqlError(
            f"{name}() depends on the order of rows; add ORDER BY, as in {name}(x ORDER BY y), or use min() or max()"
        )
    if name in functions.BY_NAME:
        arguments = node.get("arguments") or []
        named = arguments[1].get("expression", {}).get("literal", {}).get("text", "") if len(arguments) > 1 else ""
        if str(named).lower() not in functions.AGGREGATES | functions.ORDERED_AGGREGATES | {"any_value"}:
            raise SqlError(
                f"{name}() calls {named!r}, which is not known to return the same value each time; name another "
                "aggregate, such as 'sum'"
            )


def _check_tables(tree: Node, known: Collection[str] | None) -> None:
    for node in walk(tree):
        if node.get("type") == "BASE_TABLE":
            path = (node.get("qualified_name") or {}).get("path") or [node["table_name"]]
            # DuckDB takes what is no table for the name of a file.
            table = path[-1].isidentifier() and path[:-1] in ([], ["main"], ["refold"])
            if not table if known is None else len(path) > 1 or folded(path[-1]) not in known:
                raise SqlError(_not_a_table(".".join(path)))


def _not_a_table(name: str) -> str:
    return (
        f"{name} cannot be read here: neither files, the network, the database's own catalogue nor undeclared tables. "
        f"Read what is declared; the only table functions are {', '.join(sorted(functions.TABLE_FUNCTIONS))}"
    )


def _check_own_names(tree: Node, definitions: Collection[str]) -> None:
    """Check that a statement over ``event`` gives no name that refold relies on to something else."""
    if _EVENT_TABLE in definitions:
        raise SqlError("a WITH clause defines `event`, which hides the event; give it another name")
    aliases = [str(node["alias"]) for node in walk(tree) if node.get("alias")]
    for name in (*aliases, *definitions):
        if name.startswith("_"):
            raise SqlError(f"the name {name} starts with an underscore, which is reserved; choose another one")
    outer = _leaves(tree["statements"][0]["node"])
    for node in walk(tree):
        nested = node.get("type") == "SELECT_NODE" and not any(node is leaf for leaf in outer)
        given = {n for e in node["select_list"] for n in _given_names(e)} if nested else set()
        given |= set(map(folded, node.get("column_name_alias") or []))
        if taken := given & _NAMES_OF_ONE_EVENT:
            raise SqlError(f"a subquery calls another column `{min(taken)}`, which names one event; rename that column")


def _given_names(expression: Node) -> set[str]:
    """Return the names that an entry of a select list gives to something else than the column of that name."""
    replaced = [entry["key"] for star in walk(expression) for entry in star.get("replace_list") or []]
    renamed = [n for star in walk(expression) for entry in star.get("rename_list") or [] for n in _texts(entry)]
    alias = folded(expression.get("alias") or "")
    same = expression["class"] == "COLUMN_REF" and folded(expression["column_names"][-1]) == alias
    return {*map(folded, [*replaced, *renamed]), *([] if same else [alias])}


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict | list):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _texts(value)


def _check_select(node: dict[str, Any], readers: Collection[str]) -> None:
    limited = any(m["type"].startswith("LIMIT") for m in node["modifiers"])
    if limited or any(n.get("sample") for n in walk(node)):
        raise SqlError("a limit or sample selects among many events, but a handler sees one event at a time")
    if any(m.get("distinct_on_targets") for m in node["modifiers"]):
        raise SqlError("DISTINCT ON selects among many events, but a handler sees one event at a time")
    body = [value for part, value in node.items() if part != "cte_map"]
    if (node["from_table"]["type"] == "EMPTY") + sum(_is_event_table(n, readers) for n in walk(body)) > 1:
        raise SqlError("event is read twice in one SELECT, but a handler sees one event and cannot look up others")


def _check_aggregates(node: Node) -> None:
    """Check that a nested SELECT over events groups by what identifies an event."""
    own = [n for part in ("select_list", "having") for n in own_nodes(node.get(part))]
    aggregates = any(n.get("class") == "FUNCTION" and _called(n) in functions.AGGREGATING for n in own)
    if not (aggregates or node.get("group_expressions") or node.get("having")):
        return
    every = node["aggregate_handling"] == "FORCE_AGGREGATES"  # GROUP BY ALL
    groups = node["select_list"] if every else node.get("group_expressions") or []
    if len(node.get("group_sets") or []) > 1 or not any(map(_identifies_event, groups)):
        raise SqlError("an aggregate spans many events, but a handler sees one event at a time; group by position")


def _leaves(root: Node) -> list[Node]:
    """Return the SELECTs of a statement that its set operations combine."""
    if root["type"] != "SET_OPERATION_NODE":
        return [root]
    return [leaf for child in root.get("children") or [root["left"], root["right"]] for leaf in _leaves(child)]


def _common_tables(tree: Node) -> dict[str, Node]:
    """Return the common table expressions of a statement, by name."""
    maps = [node["cte_map"].get("map") or [] for node in walk(tree) if isinstance(node.get("cte_map"), dict)]
    return {folded(entry["key"]): entry["value"] for entries in maps for entry in entries}


def _event_tables(definitions: dict[str, Node]) -> set[str]:
    """Return the names of the tables that hold events: ``event``, and what a WITH clause derives from it."""
    found = {_EVENT_TABLE}
    while more := {
        name
        for name, definition in definitions.items()
        if name not in found and any(_reads_event(n, found) for n in walk(definition) if n.get("type") == "SELECT_NODE")
    }:
        found |= more
    return found


def _reads_event(node: dict[str, Any], readers: Collection[str]) -> bool:
    return any(_is_event_table(n, readers) for n in walk(node["from_table"])) or node["from_table"]["type"] == "EMPTY"


def _is_event_table(node: dict[str, Any], readers: Collection[str]) -> bool:
    return node.get("type") == "BASE_TABLE" and folded(node["table_name"]) in readers


def _within_one_event(window: dict[str, Any]) -> bool:
    return any(map(_identifies_event, window["partitions"]))


def _identifies_event(expression: Node) -> bool:
    return expression["class"] == "COLUMN_REF" and folded(expression["column_names"][-1]) in _NAMES_OF_ONE_EVENT


def _called(node: Node) -> str:
    return str(node.get("function_name") or (node.get("qualified_name") or {"path": [""]})["path"][-1]).lower()
