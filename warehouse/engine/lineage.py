"""Where the columns of a query come from, proved on its bound plan.

What refold concludes from a user's SQL (keyed by the stream, never NULL, the same in all rows of an event) rests on the
origin of a column. Names prove nothing: ``SELECT region AS stream_id`` in a subquery names another column so. The plan
refers to columns by their place, so an origin is followed from operator to operator; where that is not certain, there
is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from refold.warehouse.engine.bound_plan import Node


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of a column come from: an input column, or a constant other than NULL.

    Attributes:
        column: the input column; None for a constant.
        constant: the constant, as the plan writes it.
    """

    column: str | None
    constant: str = ""


Origins = frozenset[Origin | None]
"""The origins of one column: several after a UNION; None among them for what is not known."""

UNKNOWN: Origins = frozenset({None})
_Definitions = Mapping[int, Node]

_KEEP_COLUMNS = {"LOGICAL_FILTER", "LOGICAL_ORDER_BY", "LOGICAL_DISTINCT", "LOGICAL_LIMIT", "LOGICAL_TOP_N"}
_APPEND_COLUMNS = {"LOGICAL_WINDOW", "LOGICAL_UNNEST"}
_JOINS = {"LOGICAL_COMPARISON_JOIN", "LOGICAL_ANY_JOIN", "LOGICAL_ASOF_JOIN", "LOGICAL_DELIM_JOIN"}
_KEEP_LEFT = {"INNER", "LEFT", "SEMI", "ANTI", "MARK", "SINGLE"}


def output_origins(plan: Node, source: str) -> list[Origins]:
    """Return the origins of each column of a query's result.

    Args:
        plan: the bound plan of ``WITH source AS MATERIALIZED (...) SELECT ...``.
        source: the name of that common table expression, whose columns are the input columns.
    """
    if plan["type"] != "LOGICAL_MATERIALIZED_CTE" or plan["ctename"] != source:
        return [UNKNOWN] * (_width(plan) or 0)
    trace = _Trace(plan["table_index"])
    body = plan["children"][1]
    return [trace.origins(body, index, MappingProxyType({})) for index in range(_width(body) or 0)]


@dataclass(frozen=True, slots=True)
class _Trace:
    source: int

    def origins(self, node: Node, index: int, definitions: _Definitions) -> Origins:
        """Follow one output column of an operator to its origins."""
        kind = node["type"]
        if kind == "LOGICAL_MATERIALIZED_CTE":
            definition, body = node["children"]
            return self.origins(body, index, {**definitions, node["table_index"]: definition})
        if kind == "LOGICAL_CTE_REF":
            return self._referenced(node, index, definitions)
        if kind == "LOGICAL_UNION":
            found = [self.origins(child, index, definitions) for child in node["children"]]
            return frozenset().union(*found)
        if kind == "LOGICAL_PROJECTION":
            return self._expression(node["expressions"][index], node, definitions)
        if kind == "LOGICAL_AGGREGATE_AND_GROUP_BY":
            groups, sets = node["groups"], node["grouping_sets"]
            whole = not sets or (len(sets) == 1 and len(sets[0]) == len(groups))
            return self._expression(groups[index], node, definitions) if whole and index < len(groups) else UNKNOWN
        step = _STEPS.get(kind)
        found_in = step(node, index) if step else None
        return UNKNOWN if found_in is None else self.origins(found_in[0], found_in[1], definitions)

    def _referenced(self, node: Node, index: int, definitions: _Definitions) -> Origins:
        if node["cte_index"] == self.source:
            return frozenset({Origin(node["bound_columns"][index])})
        definition = definitions.get(node["cte_index"])
        return UNKNOWN if definition is None else self.origins(definition, index, definitions)

    def _expression(self, expression: Node, node: Node, definitions: _Definitions) -> Origins:
        if expression["expression_class"] == "BOUND_REF":
            return self.origins(node["children"][0], expression["index"], definitions)
        if expression["expression_class"] == "BOUND_CONSTANT" and not expression["value"]["is_null"]:
            return frozenset({Origin(None, json.dumps(expression["value"], sort_keys=True))})
        return UNKNOWN


_Step = Callable[[Node, int], tuple[Node, int] | None]


def _same_column(node: Node, index: int) -> tuple[Node, int] | None:
    kept = node.get("projection_map")
    return node["children"][0], kept[index] if kept else index


def _column_of_child(node: Node, index: int) -> tuple[Node, int] | None:
    width = _width(node["children"][0])
    return (node["children"][0], index) if width is not None and index < width else None


def _side_of_join(node: Node, index: int) -> tuple[Node, int] | None:
    """Find the side that a column comes from; a side that an outer join fills up with NULL has no origins."""
    left, right = node["children"]
    kept_left, kept_right = node.get("left_projection_map"), node.get("right_projection_map")
    width = len(kept_left) if kept_left else _width(left)
    if width is None:
        return None
    if index < width:
        kept = node.get("join_type", "INNER") in _KEEP_LEFT
        return (left, kept_left[index] if kept_left else index) if kept else None
    if node.get("join_type", "INNER") not in ("INNER", "RIGHT"):
        return None
    return right, kept_right[index - width] if kept_right else index - width


def _input_of_table_function(node: Node, index: int) -> tuple[Node, int] | None:
    """Find a column that a table function such as unnest passes on from its input."""
    own = len(node["names"])
    passed = node.get("projected_input") or []
    return (node["children"][0], passed[index - own]) if own <= index < own + len(passed) else None


_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_KEEP_COLUMNS, _same_column),
    **dict.fromkeys(_APPEND_COLUMNS, _column_of_child),
    **dict.fromkeys({*_JOINS, "LOGICAL_CROSS_PRODUCT"}, _side_of_join),
    "LOGICAL_GET": _input_of_table_function,
}


def _width(node: Node) -> int | None:
    """Return the number of columns of an operator's result; None if it is not known."""
    kind, children = node["type"], node.get("children", [])
    if kind == "LOGICAL_PROJECTION":
        return len(node["expressions"])
    if kind == "LOGICAL_CTE_REF":
        return len(node["chunk_types"])
    if kind == "LOGICAL_MATERIALIZED_CTE":
        return _width(children[1])
    if kind in ("LOGICAL_UNION", "LOGICAL_EXCEPT", "LOGICAL_INTERSECT", "LOGICAL_RECURSIVE_CTE"):
        return _width(children[0])
    if kind == "LOGICAL_AGGREGATE_AND_GROUP_BY":
        return len(node["groups"]) + len(node["expressions"]) + len(node.get("grouping_functions") or [])
    if kind == "LOGICAL_GET":
        return len(node["names"]) + len(node.get("projected_input") or [])
    if kind in _KEEP_COLUMNS:
        return len(node.get("projection_map") or []) or _width(children[0])
    if kind in _APPEND_COLUMNS:
        child = _width(children[0])
        return None if child is None else child + len(node["expressions"])
    if kind in _JOINS or kind == "LOGICAL_CROSS_PRODUCT":
        return _join_width(node)
    return None


def _join_width(node: Node) -> int | None:
    left = len(node.get("left_projection_map") or []) or _width(node["children"][0])
    if left is None or node.get("join_type") in ("SEMI", "ANTI"):
        return left
    if node.get("join_type") == "MARK":
        return left + 1
    right = len(node.get("right_projection_map") or []) or _width(node["children"][1])
    return None if right is None else left + right
