"""Values as nested lists that are equal if the values are: constants, containers, and objects of the user's classes."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import functools
import hashlib
import json
import logging
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa

from refold.warehouse.declarations.code_identity.classes import describe_class
from refold.warehouse.declarations.code_identity.functions import describe_callable
from refold.warehouse.declarations.code_identity.origin import Origin, origin_of
from refold.warehouse.declarations.code_identity.walk import Walk

_AS_TEXT: dict[type, Callable[[Any], str]] = {
    type(None): repr,
    bool: repr,
    int: hex,  # decimal digits of a huge integer take long, and are limited
    float: repr,
    complex: repr,
    str: str,
    bytes: repr,
    bytearray: repr,
    types.EllipsisType: repr,
    types.NotImplementedType: repr,
    range: repr,
    decimal.Decimal: str,
    Fraction: str,
    date: date.isoformat,
    timedelta: repr,
    timezone: str,
    ZoneInfo: str,
    UUID: str,
    logging.Logger: lambda logger: str(logger.name),
}
_CONTAINERS: dict[type, Callable[[Any], Any]] = {
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
"""Built-in classes that a class of one's own may extend, and the built-in part of its objects."""

_STATELESS = frozenset({"abc", "collections.abc", "typing"})
"""Modules of base classes that keep nothing in their objects."""

_MAX_ITEMS = 1_000


def describe(value: Any, walk: Walk, depth: int) -> Any:
    """Describe a value.

    Args:
        value: the value.
        walk: the walk that came to it.
        depth: how many levels of a mapping are used only to look up keys, so that their order does not matter.
    """
    if (text := _AS_TEXT.get(type(value))) is not None:
        return [type(value).__name__, text(value)]
    for describe_kind in (_container, _standard_value, describe_callable, describe_class, _typing, _object):
        if (found := describe_kind(value, walk, depth)) is not None:
            return found
    if type(value) is object:
        return ["object"]
    if isinstance(value, types.ModuleType):
        return walk.hide(f"the module {value.__name__}, which is passed on as a value")
    return walk.hide(f"an object of {type(value).__module__}.{type(value).__qualname__}")


def _container(value: Any, walk: Walk, depth: int) -> Any:
    kind = type(value)
    if kind in (list, tuple, collections.deque):
        return walk.container(value, lambda: [kind.__name__, _short([walk.describe(item) for item in value])])
    if kind in (set, frozenset):
        return ["set", _short([walk.describe(item) for item in _sorted(value, walk)])]
    if kind in (dict, collections.OrderedDict, collections.Counter, collections.defaultdict, types.MappingProxyType):
        return walk.container(value, lambda: _mapping(value, walk, depth))
    if kind is types.SimpleNamespace:
        return walk.container(value, lambda: ["SimpleNamespace", _mapping(vars(value), walk, 1)])
    return None


def _mapping(value: Mapping[Any, Any], walk: Walk, depth: int) -> Any:
    keys = _sorted(value, walk) if depth > 0 else list(value)
    pairs = [[walk.describe(key), _named(walk, key, value[key], depth - 1)] for key in keys]
    factory = [walk.describe(value.default_factory)] if isinstance(value, collections.defaultdict) else []
    return ["mapping" if depth > 0 else type(value).__name__, _short(pairs), *factory]


def _named(walk: Walk, key: Any, item: Any, depth: int) -> Any:
    with walk.at(f"[{str(key)[:40]!r}]"):
        return walk.describe(item, depth)


def _sorted(items: Iterable[Any], walk: Walk) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(walk.alone(item), sort_keys=True))


def _short(items: list[Any]) -> Any:
    """Replace the description of a large container by its digest."""
    if len(items) <= _MAX_ITEMS:
        return items
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()


def _standard_value(value: Any, walk: Walk, _: int) -> Any:
    kind = type(value)
    if kind in (datetime, time):
        return [kind.__name__, value.isoformat(), value.fold, walk.describe(value.tzinfo)]
    if isinstance(value, Enum):
        return ["enum", walk.describe(type(value)), value.name or repr(value.value)]
    if isinstance(value, PurePath) and not isinstance(value, Path):
        return ["path", str(value)]
    if kind is re.Pattern:
        return ["pattern", walk.describe(value.pattern), value.flags]
    if kind is slice:
        return ["slice", [walk.describe(part) for part in (value.start, value.stop, value.step)]]
    if kind is decimal.Context:
        names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
        traps = sorted(signal.__name__ for signal, is_set in value.traps.items() if is_set)
        return ["context", [str(getattr(value, name)) for name in names], traps]
    if kind in (operator.itemgetter, operator.attrgetter, operator.methodcaller):
        return [kind.__name__, walk.describe(value.__reduce__()[1])]
    if kind is functools.partial:
        return ["partial", walk.describe(value.func), walk.describe(value.args), walk.describe(value.keywords, 1)]
    if isinstance(value, pa.DataType | pa.Field | pa.Schema):
        return ["arrow", str(value)]
    return None


def _typing(value: Any, walk: Walk, _: int) -> Any:
    if isinstance(value, typing.TypeVar | typing.ParamSpec | typing.NewType):
        return ["type variable", value.__name__]
    if (generic := typing.get_origin(value)) is not None:
        name = "Union" if generic in (types.UnionType, typing.Union) else walk.describe(generic)
        return ["generic", name, [walk.describe(item) for item in typing.get_args(value)]]
    if type(value).__module__ == "typing" and (name := getattr(value, "_name", None)):
        return ["standard", f"typing.{name}"]
    return None


def _object(value: Any, walk: Walk, _: int) -> Any:
    cls = type(value)
    classes = [b for b in cls.__mro__ if b is not object and b not in _CONTAINERS and b.__module__ not in _STATELESS]
    origins = {origin_of(base.__module__, walk.root) for base in classes}
    if origins == {Origin.OWN} or (dataclasses.is_dataclass(cls) and origins <= {Origin.OWN, Origin.DISTRIBUTION}):
        return walk.node(value, lambda: ["object", walk.describe(cls), *_state(value, walk)])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return ["object", walk.describe(cls), [walk.describe(item) for item in tuple(value)]]
    return None


def _state(value: Any, walk: Walk) -> list[Any]:
    """Describe the attributes of an object, and its built-in part if its class extends a built-in one."""
    cls = type(value)
    names = dict.fromkeys(name for base in cls.__mro__ for name in _slots(base))
    held = {**{n: getattr(value, n) for n in names if hasattr(value, n)}, **getattr(value, "__dict__", {})}
    computed = {n for n in held if isinstance(getattr(cls, n, None), functools.cached_property)}
    parts = [part(value) for base, part in _CONTAINERS.items() if isinstance(value, base)][:1]
    attributes = [[name, _named(walk, name, held[name], 0)] for name in sorted(held) if name not in computed]
    return [attributes, *(walk.describe(part) for part in parts)]


def _slots(cls: type) -> list[str]:
    slots = cls.__dict__.get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    mangled = [f"_{cls.__name__.lstrip('_')}{n}" if n.startswith("__") and not n.endswith("__") else n for n in names]
    return [name for name in mangled if name not in ("__weakref__", "__dict__")]
