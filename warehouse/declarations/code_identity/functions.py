"""Functions and other callables: those of the user by their source and all that it reads, all others by name."""

from __future__ import annotations

import builtins
import functools
import importlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

from refold.warehouse.declarations.code_identity.origin import (
    Origin,
    distribution_of,
    origin_of,
    reads_outside,
    standard_name,
)
from refold.warehouse.declarations.code_identity.references import (
    Chain,
    hidden_names,
    imports_of,
    is_changed,
    lookup_depth,
    references_of,
)
from refold.warehouse.declarations.code_identity.syntax import Function, canonical_function, find_source
from refold.warehouse.declarations.code_identity.walk import Walk

_BUILT_IN = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)


def describe_callable(value: Any, walk: Walk, _: int = 0) -> Any:
    """Describe a function, a method, or a cache around one; None for anything else."""
    if isinstance(value, types.FunctionType):
        return walk.node(value, lambda: _function(value, walk))
    if isinstance(value, types.MethodType):
        return ["method", walk.describe(value.__self__), walk.describe(value.__func__)]
    if isinstance(value, functools._lru_cache_wrapper):
        return ["cache", walk.describe(value.__wrapped__)]
    if isinstance(value, _BUILT_IN):
        return _built_in(value, walk)
    return None


def _built_in(value: Any, walk: Walk) -> Any:
    owner = getattr(value, "__objclass__", None)
    holder = getattr(value, "__self__", None)
    if owner is not None:
        return ["of", walk.describe(owner), value.__name__]
    if holder is not None and not isinstance(holder, types.ModuleType):
        return ["of", walk.describe(holder, 1), value.__name__]
    module = getattr(value, "__module__", None) or getattr(holder, "__name__", None)
    return _by_name(module, value.__qualname__, walk)


def _by_name(module: str | None, name: str, walk: Walk) -> Any:
    """Describe something whose source is not the user's."""
    origin = origin_of(module, walk.root)
    if origin is Origin.STANDARD:
        full = standard_name(str(module), name)
        return walk.hide(full) if reads_outside(full) else ["standard", full]
    if origin is Origin.DISTRIBUTION:
        return ["distribution", distribution_of(str(module).partition(".")[0]), name]
    return walk.hide(f"{module or 'unknown'}.{name}, a function without Python source")


def _function(function: types.FunctionType, walk: Walk) -> Any:
    module = function.__globals__.get("__name__")  # __module__ is that of another function if functools.wraps set it
    if module == "functools" and hasattr(function, "registry") and hasattr(function, "dispatch"):
        return _dispatch(function.registry, walk)
    with walk.at(function.__name__):
        if origin_of(module, walk.root) is not Origin.OWN:
            held = [walk.describe(cell) for _, cell in sorted(_cells(function, walk).items())]
            return [_by_name(module, function.__qualname__, walk), held]
        tree = find_source(function.__code__, function.__globals__)
        if tree is None:
            return walk.hide("a function whose source is not available")
        return ["function", canonical_function(tree), *_outside(function, tree, walk)]


def _dispatch(registry: Mapping[Any, Any], walk: Walk) -> Any:
    """Describe a ``functools.singledispatch`` by its implementations."""
    found = [(cls.__qualname__, cls.__module__, cls, implementation) for cls, implementation in registry.items()]
    return ["singledispatch", [[walk.describe(c), walk.describe(f)] for *_, c, f in sorted(found, key=_names)]]


def _names(item: tuple[Any, ...]) -> tuple[str, str]:
    return item[0], item[1]


def _outside(function: types.FunctionType, tree: Function, walk: Walk) -> list[Any]:
    """Describe all that a function reads from outside itself."""
    for hidden in hidden_names(tree):
        walk.hide(hidden)
    read = references_of(function.__code__)
    for name in sorted(read.assigned):
        walk.hide(f"`{name}`, which it assigns outside itself")
    cells, scope = _cells(function, walk), {**vars(builtins), **function.__globals__}
    found = [
        _variables(read.globals, scope, tree, walk),
        _variables({name: read.cells.get(name, {()}) for name in cells}, cells, tree, walk),
        _defaults(function, tree, walk),
        [_import(function, one.module, one.name, one.chains, walk) for one in imports_of(tree)],
    ]
    attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
    return [*found, [[name, walk.describe(value)] for name, value in sorted(attributes.items())]]


def _cells(function: types.FunctionType, walk: Walk) -> dict[str, Any]:
    """Return the variables of the enclosing functions."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__" and walk.classes:
            continue  # the class that is being described
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            walk.wait_for(f"`{name}`, which has no value yet")
    return found


def _variables(names: Mapping[str, set[Chain]], scope: Mapping[str, Any], tree: Function, walk: Walk) -> list[Any]:
    found = []
    for name, chains in sorted(names.items()):
        if name not in scope:
            found.append([name, walk.wait_for(f"`{name}`, which is not defined yet")])
            continue
        if is_changed(tree, name) and not isinstance(scope[name], types.ModuleType):
            walk.hide(f"`{name}`, which it changes")
        with walk.at(name):
            found.append([name, _used(scope[name], chains, lookup_depth(tree, name), walk)])
    return found


def _used(value: Any, chains: Iterable[Chain], depth: int, walk: Walk) -> Any:
    """Describe a value by the attributes that are read from it."""
    if isinstance(value, types.ModuleType):
        return [[list(chain), _from_module(value, chain, walk)] for chain in sorted(chains)]
    found = walk.describe(value, depth)
    if isinstance(found, list) and found[0] == "standard":
        for name in sorted(f"{found[1]}.{chain[0]}" for chain in chains if chain):
            if reads_outside(name):
                return walk.hide(name)
    return found


def _from_module(module: types.ModuleType, chain: Chain, walk: Walk) -> Any:
    """Describe what a chain of attributes reads from a module."""
    origin = origin_of(module.__name__, walk.root)
    if origin is not Origin.OWN:
        return _by_name(module.__name__, ".".join(chain), walk)
    if not chain:
        return walk.hide(f"the module {module.__name__}, which is passed on as a value")
    try:
        value = getattr(module, chain[0])
    except AttributeError:
        return walk.wait_for(f"`{chain[0]}`, which {module.__name__} does not have")
    with walk.at(chain[0]):
        return _used(value, {chain[1:]}, 0, walk)


def _defaults(function: types.FunctionType, tree: Function, walk: Walk) -> list[Any]:
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    given = function.__defaults__ or ()
    defaults = {**dict(zip(names[len(names) - len(given) :], given, strict=True)), **(function.__kwdefaults__ or {})}
    for name in defaults:
        if is_changed(tree, name):
            walk.hide(f"the default of `{name}`, which it changes")
    return [[name, walk.describe(value, lookup_depth(tree, name))] for name, value in sorted(defaults.items())]


def _import(function: types.FunctionType, module: str, name: str, chains: Iterable[Chain], walk: Walk) -> Any:
    """Describe what an import within a function takes from a module."""
    try:
        package = function.__globals__.get("__package__") or ""
        found = importlib.import_module(module, package)
        value = found if not name else getattr(found, name, None) or importlib.import_module(f"{found.__name__}.{name}")
    except ImportError:
        return walk.hide(f"the module {module}, which cannot be imported")
    with walk.at(name or module):
        return [module, name, _used(value, chains, 0, walk)]
