"""The names outside a function that its code reads, and how it uses them."""

from __future__ import annotations

import ast
import dis
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType

Chain = tuple[str, ...]
"""The attributes that are read after a name: ``("path", "join")`` of ``os.path.join``."""

_HIDING_ATTRIBUTES = frozenset({"__globals__", "__builtins__", "__subclasses__", "__closure__", "__code__"})
_BY_NAME = frozenset({"getattr", "setattr", "delattr", "hasattr"})
_LOADS_IN_CLASS = frozenset({"LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_CHANGES = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    ]
)
_ANY_DEPTH = 99


@dataclass(slots=True)
class References:
    """What a function reads.

    Attributes:
        globals: global or built-in name to the chains of attributes that are read after it.
        cells: the same for the variables of enclosing functions.
        assigned: the global names and the variables of enclosing functions that it assigns.
    """

    globals: dict[str, set[Chain]] = field(default_factory=dict)
    cells: dict[str, set[Chain]] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)


def references_of(code: CodeType) -> References:
    """Return what a function reads, functions, classes and comprehensions within it included."""
    found = References()
    _collect(code, frozenset(code.co_freevars), found)
    return found


def _collect(code: CodeType, outer: frozenset[str], found: References) -> None:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    inner = {"__name__", *(str(step.argval) for step in steps if step.opname == "STORE_NAME")}  # of a class's body
    for index, step in enumerate(steps):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
            step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outer
        ):
            found.assigned.add(str(step.argval))
        elif step.opname == "LOAD_GLOBAL" or (step.opname in _LOADS_IN_CLASS and step.argval not in inner):
            if not str(step.argval).startswith("@"):  # pytest's own, in a test that it has rewritten
                found.globals.setdefault(str(step.argval), set()).add(_chain(steps, index + 1))
        elif step.opname.startswith("LOAD_") and step.opname.endswith("DEREF") and step.argval in outer:
            found.cells.setdefault(str(step.argval), set()).add(_chain(steps, index + 1))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _collect(constant, outer, found)


def _chain(steps: Sequence[dis.Instruction], index: int) -> Chain:
    names: list[str] = []
    while index < len(steps) and steps[index].opname in ("LOAD_ATTR", "LOAD_METHOD"):
        names.append(str(steps[index].argval))
        index += 1
    return tuple(names)


@dataclass(frozen=True, slots=True)
class Import:
    """An import within a function: ``from module import name as local``, or ``import module as local``.

    Attributes:
        module: the module, with a dot for each level of a relative import.
        name: what is taken from it; empty for the module.
        chains: the chains of attributes that are read after the local name.
    """

    module: str
    name: str
    chains: frozenset[Chain]


def imports_of(tree: ast.AST) -> Iterator[Import]:
    """Yield the imports within a function."""
    for node in _nodes(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = "." * node.level + (node.module or "")
                yield Import(module, alias.name, frozenset(_chains_after(tree, alias.asname or alias.name)))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                yield Import(module, "", frozenset(_chains_after(tree, alias.asname or module)))


@functools.lru_cache(maxsize=4)
def _owners(tree: ast.AST) -> Mapping[int, ast.AST]:
    """Return the node that each node is part of."""
    return {id(child): node for node in _nodes(tree) for child in ast.iter_child_nodes(node)}


@functools.lru_cache(maxsize=4)
def _nodes(tree: ast.AST) -> Sequence[ast.AST]:
    return tuple(ast.walk(tree))


@functools.lru_cache(maxsize=4)
def _names(tree: ast.AST) -> Mapping[str, Sequence[ast.Name]]:
    """Return where each name is read."""
    found: dict[str, list[ast.Name]] = {}
    for node in _nodes(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.setdefault(node.id, []).append(node)
    return found


def _chains_after(tree: ast.AST, name: str) -> set[Chain]:
    owner = _owners(tree)
    found: set[Chain] = set()
    for node in _names(tree).get(name, ()):
        chain: list[str] = []
        at: ast.AST = node
        while isinstance(outer := owner.get(id(at)), ast.Attribute):
            chain.append(outer.attr)
            at = outer
        found.add(tuple(chain))
    return found


def hidden_names(tree: ast.AST) -> Iterator[str]:
    """Yield the expressions that find code or values by a name that is computed, or that look inside functions."""
    called = {id(node.func) for node in _nodes(tree) if isinstance(node, ast.Call)}
    for node in _nodes(tree):
        if isinstance(node, ast.Attribute) and node.attr in _HIDING_ATTRIBUTES:
            yield f"`.{node.attr}`"
        elif isinstance(node, ast.Name) and node.id in _BY_NAME and id(node) not in called:
            yield f"`{node.id}` as a value"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_NAME:
            by = node.args[1] if len(node.args) > 1 else None
            if not (isinstance(by, ast.Constant) and isinstance(by.value, str)):
                yield f"`{node.func.id}` by a name that is computed"


def lookup_depth(tree: ast.AST, name: str) -> int:
    """Return how many levels of a mapping are used only to look up keys, so that their order does not matter.

    Example:
        >>> lookup_depth(ast.parse("RATES[kind][zone] + RATES.get(kind)['eu']"), "RATES")
        2
        >>> lookup_depth(ast.parse("[rate for rate in RATES]"), "RATES")
        0
    """
    owner = _owners(tree)
    return min((_depth(use, owner) for use in _names(tree).get(name, ())), default=0)


def _depth(use: ast.AST, owner: Mapping[int, ast.AST]) -> int:
    depth, at = 0, use
    while True:
        outer = owner.get(id(at))
        if isinstance(outer, ast.Subscript) and outer.value is at:
            at = outer
        elif (
            isinstance(outer, ast.Compare) and at in outer.comparators and isinstance(outer.ops[0], ast.In | ast.NotIn)
        ):
            return _ANY_DEPTH
        elif isinstance(outer, ast.Attribute) and outer.attr == "get" and isinstance(owner.get(id(outer)), ast.Call):
            at = owner[id(outer)]
        else:
            return depth
        depth += 1


def is_changed(tree: ast.AST, name: str) -> bool:
    """Check whether code changes the object that a name stands for.

    Example:
        >>> is_changed(ast.parse("SEEN.add(key)"), "SEEN"), is_changed(ast.parse("key in SEEN"), "SEEN")
        (True, False)
    """
    for node in _nodes(tree):
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            changed: ast.AST = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            changed = node.func.value
        else:
            continue
        while isinstance(changed, ast.Subscript | ast.Attribute):
            changed = changed.value
        if isinstance(changed, ast.Name) and changed.id == name:
            return True
    return False
