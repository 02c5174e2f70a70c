"""Dataclasses out of payloads: what ``from_json`` gives as mappings, nested as they are declared."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def instance_of(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass of a mapping of Python values, and its nested dataclasses and lists of them too.

    Args:
        cls: a dataclass whose annotations have Arrow types, such as an event.
        values: field name to value, as :func:`refold.event_schemas.payload.from_json` gives them.

    Example:
        >>> from refold.event_schemas.orders import Address, ShippingAddressUpdated
        >>> instance_of(ShippingAddressUpdated, {"address": {"street": "Hafen 1", "city": "Ulm"}}).address.city
        'Ulm'
    """
    nested = _nested(cls)  # type: ignore[arg-type]
    made = {name: _valued(nested[name], value) if name in nested else value for name, value in values.items()}
    return cls(**made)


@functools.cache
def _nested(cls: type) -> dict[str, Any]:
    """Name the fields that hold dataclasses, each with its annotation less what may be left out of it."""
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


def _valued(annotation: Any, value: Any) -> Any:
    if value is None:
        return None
    if typing.get_origin(annotation) is list:
        inner = _plain(typing.get_args(annotation)[0])
        return [_valued(inner, v) for v in value]
    return instance_of(annotation, value)
