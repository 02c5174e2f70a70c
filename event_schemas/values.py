"""Dataclass instances from the mappings that ``from_json`` returns, nested dataclasses included."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def instance_of(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a dataclass instance, with its nested dataclasses and lists of them, from a mapping of Python values.

    Args:
        cls: a dataclass whose annotations have Arrow types, such as an event.
        values: field name to value, as :func:`refold.event_schemas.payload.from_json` returns them.

    Example:
        >>> from refold.event_schemas.orders import Address, ShippingAddressUpdated
        >>> instance_of(ShippingAddressUpdated, {"address": {"street": "Hafen 1", "city": "Ulm"}}).address.city
        'Ulm'
    """
    nested = _nested(cls)  # type: ignore[arg-type]
    fields = {name: _instance(nested[name], value) if name in nested else value for name, value in values.items()}
    return cls(**fields)


@functools.cache
def _nested(cls: type) -> dict[str, Any]:
    """Map each field that holds dataclasses to its annotation, without ``Annotated`` and ``| None``."""
    hints = typing.get_type_hints(cls, include_extras=True)
    plain = {f.name: _plain(hints[f.name]) for f in dataclasses.fields(cls)}
    return {name: annotation for name, annotation in plain.items() if _holds_dataclass(annotation)}


def _plain(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _plain(next(a for a in typing.get_args(annotation) if a is not type(None)))
    return annotation


def _holds_dataclass(annotation: Any) -> bool:
    if typing.get_origin(annotation) is list:
        return _holds_dataclass(_plain(typing.get_args(annotation)[0]))
    return dataclasses.is_dataclass(annotation)


def _instance(annotation: Any, value: Any) -> Any:
    if value is None:
        return None
    if typing.get_origin(annotation) is list:
        inner = _plain(typing.get_args(annotation)[0])
        return [_instance(inner, v) for v in value]
    return instance_of(annotation, value)
