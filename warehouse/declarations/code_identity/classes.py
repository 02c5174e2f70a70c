"""Classes: those of the user by their bases and members, all others by name."""

from __future__ import annotations

import dataclasses
import functools
import types
from enum import Enum
from typing import Any

from refold.warehouse.declarations.code_identity.origin import (
    Origin,
    distribution_of,
    origin_of,
    reads_outside,
    standard_name,
)
from refold.warehouse.declarations.code_identity.walk import Walk

_GENERATED = frozenset(
    [
        "_asdict",
        "_field_defaults",
        "_fields",
        "_make",
        "_replace",
        "__getnewargs__",
        "__getstate__",
        "__init__",
        "__new__",
        "__replace__",
        "__repr__",
        "__setstate__",
        "__eq__",
        "__ge__",
        "__gt__",
        "__hash__",
        "__le__",
        "__lt__",
        "__setattr__",
        "__delattr__",
        "__match_args__",
    ]
)
"""What a dataclass, a named tuple or an enumeration adds to its class, in one Python version or another."""

_PARAMETERS = ("init", "eq", "order", "unsafe_hash", "frozen")
"""What makes one dataclass behave differently from another with the same fields."""


def describe_class(value: Any, walk: Walk, _: int = 0) -> Any:
    """Describe a class, or something that stands for code in a class; None for anything else."""
    if isinstance(value, type):
        return _class(value, walk)
    return _descriptor(value, walk)


def _class(cls: type, walk: Walk) -> Any:
    origin = origin_of(cls.__module__, walk.root)
    if origin is Origin.STANDARD:
        name = standard_name(cls.__module__, cls.__qualname__)
        return walk.hide(name) if reads_outside(name) else ["standard", name]
    if origin is Origin.DISTRIBUTION:
        return ["distribution", distribution_of(cls.__module__.partition(".")[0]), cls.__qualname__]
    if origin is Origin.UNKNOWN:
        return walk.hide(f"the class {cls.__module__}.{cls.__qualname__}, whose version is not known")
    return walk.node(cls, lambda: _own_class(cls, walk))


def _own_class(cls: type, walk: Walk) -> Any:
    walk.classes += 1
    with walk.at(cls.__name__):
        bases = [walk.describe(base) for base in cls.__bases__ if base is not object]
        meta = [] if type(cls) is type or issubclass(cls, Enum) else [walk.describe(type(cls))]
        members = [[name, _member(name, value, walk)] for name, value in sorted(_members(cls).items())]
        found = ["class", cls.__name__, bases, meta, members, _fields(cls, walk)]
    walk.classes -= 1
    return found


def _members(cls: type) -> dict[str, Any]:
    """Return the members of a class that its author wrote."""
    held = dict(vars(cls))
    if issubclass(cls, Enum):
        members = {name: member.value for name, member in cls.__members__.items()}
        return {**{n: v for n, v in held.items() if n not in members and _is_code(v, cls)}, **members}
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    named = set(getattr(cls, "_fields", ())) if issubclass(cls, tuple) else set()
    return {
        name: value
        for name, value in held.items()
        if name not in fields | named
        and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
        and not name.startswith(("_abc_", "__abstractmethods__"))
        and (not name.startswith("__") or not name.endswith("__") or _is_code(value, cls))
        and not (name in _GENERATED and (fields or named) and not _is_code(value, cls))
    }


def _is_code(value: Any, cls: type) -> bool:
    """Check whether a member is code that the author of the class wrote, and not code that was generated."""
    function = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
    if not isinstance(function, types.FunctionType):
        return hasattr(function, "__wrapped__") or (callable(value) and not isinstance(value, type))
    return not function.__code__.co_filename.startswith("<string") and function.__globals__.get("__name__") not in (
        "enum",
        "dataclasses",
        "collections",
        "typing",
        "functools",
        "reprlib",
        "abc",
    )


def _member(name: str, value: Any, walk: Walk) -> Any:
    with walk.at(name):
        return walk.describe(value)


def _fields(cls: type, walk: Walk) -> Any:
    """Describe what a dataclass or a named tuple declares beside its methods."""
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return [list(cls._fields), walk.describe(getattr(cls, "_field_defaults", {}))]
    if not dataclasses.is_dataclass(cls):
        return []
    parameters = getattr(cls, "__dataclass_params__", None)
    fields = []
    for field in dataclasses.fields(cls):
        default = [] if field.default is dataclasses.MISSING else [_member(field.name, field.default, walk)]
        factory = field.default_factory
        made = [] if factory is dataclasses.MISSING else [_member(field.name, factory, walk)]
        fields.append([field.name, default, made, field.init, field.compare, field.hash, field.kw_only])
    return [[bool(getattr(parameters, name, None)) for name in _PARAMETERS], fields]


def _descriptor(value: Any, walk: Walk) -> Any:
    if isinstance(value, property):
        return ["property", [walk.describe(part) for part in (value.fget, value.fset, value.fdel)]]
    if isinstance(value, classmethod | staticmethod):
        return [type(value).__name__, walk.describe(value.__func__)]
    if isinstance(value, functools.cached_property):
        return ["cached_property", walk.describe(value.func)]
    if isinstance(value, functools.partialmethod):
        return ["partialmethod", walk.describe(value.func), walk.describe(value.args), walk.describe(value.keywords)]
    if isinstance(value, functools.singledispatchmethod):
        return ["singledispatchmethod", walk.describe(value.dispatcher)]
    return None
