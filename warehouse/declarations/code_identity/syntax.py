"""The source of a function as nested lists that are the same in every Python version.

``ast.dump`` and ``ast.unparse`` change with Python. Here a node is its class and the fields that matter when the code
runs; layout, comments, docstrings, annotations and statements without effect are left out.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_WITHOUT_EFFECT = frozenset({"ctx", "kind", "type_comment", "type_params", "annotation", "returns", "simple"})


def find_source(code: CodeType, module: Mapping[str, Any]) -> Function | None:
    """Find the syntax tree of a function; None if its source is not available.

    Args:
        code: the function's code.
        module: the globals of its module.
    """
    lines = linecache.getlines(code.co_filename, dict(module))
    found = [node for node in _functions("".join(lines)).get(code.co_firstlineno, ()) if _names(node) == code.co_name]
    if len(found) <= 1:
        return found[0] if found else None
    within = [node for node in found if isinstance(node, ast.Lambda) and _encloses(node.body, code)]
    return max(within, key=lambda node: (node.lineno, node.col_offset), default=None)  # the innermost


@functools.lru_cache(maxsize=64)
def _functions(source: str) -> dict[int, list[Function]]:
    """Map the first line of each function in a file, its decorators included, to the functions that start there."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    found: dict[int, list[Function]] = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
            found.setdefault(min(n.lineno for n in (node, *decorators)), []).append(node)
    return found


def _names(node: Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _encloses(body: ast.expr, code: CodeType) -> bool:
    """Check whether all instructions of a lambda belong to this body."""
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    spans = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and column is not None and end_line is not None and end_column is not None
    ]
    spans = [span for span in spans if span[0] != span[1]]  # without instructions that stand for no text
    return bool(spans) and all(start <= first and last <= end for first, last in spans)


def canonical_function(node: Function) -> list[Any]:
    """Return a function without its decorators and defaults, which are values by the time that it is called."""
    names = [canonical(part) for part in (node.args.posonlyargs, node.args.args, node.args.kwonlyargs)]
    return [_names(node), *names, canonical(node.args.vararg), canonical(node.args.kwarg), canonical(node.body)]


def canonical(node: Any) -> Any:
    """Return a node, or a list of nodes, as nested lists of text and numbers.

    Example:
        >>> canonical(ast.parse("x: int = f(1)  # one")) == canonical(ast.parse("'''Doc.'''; x = f( 1 )"))
        True
    """
    if isinstance(node, list):
        return [canonical(item) for item in node if not _is_idle(item)]
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, repr(node.value)]
    if isinstance(node, ast.JoinedStr):
        return ["JoinedStr", *_pieces(node)]
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return canonical(ast.Assign([node.target], node.value))
    if not isinstance(node, ast.AST):
        return node
    fields = {name: canonical(getattr(node, name, None)) for name in node._fields if name not in _WITHOUT_EFFECT}
    return [type(node).__name__, {name: value for name, value in sorted(fields.items()) if value not in (None, [])}]


def _is_idle(node: Any) -> bool:
    """Check whether a statement does nothing: a docstring, ``pass``, an annotation without a value."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.AnnAssign) and node.value is None)


def _pieces(node: ast.JoinedStr) -> Iterator[Any]:
    """Yield the parts of an f-string, with adjacent texts joined: Python versions cut them differently."""
    text = ""
    for part in node.values:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text:
            yield text
        text = ""
        assert isinstance(part, ast.FormattedValue)
        spec = list(_pieces(part.format_spec)) if isinstance(part.format_spec, ast.JoinedStr) else []
        yield ["FormattedValue", canonical(part.value), part.conversion, spec]
    if text:
        yield text
