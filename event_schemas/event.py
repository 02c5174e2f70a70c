"""``@event``: a frozen dataclass with a schema version is the contract of an event type."""

from __future__ import annotations

import dataclasses
import types
import typing
import uuid
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar, dataclass_transform

import pyarrow as pa

from refold.event_schemas.envelope import ENVELOPE_NAMES, UTC_MICROSECONDS
from refold.event_schemas.errors import ContractError
from refold.event_schemas.field_types import check_event_type, check_fields
from refold.event_schemas.personal import with_marks

T = TypeVar("T")

_PLAIN_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    date: pa.date32(),
    datetime: UTC_MICROSECONDS,
    uuid.UUID: pa.uuid(),
}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def event(*, schema_version: int, name: str | None = None) -> Callable[[type[T]], type[T]]:
    """Turn a class into the contract of an event type.

    The class becomes a frozen, slotted dataclass with keyword-only fields. A field's annotation gives its
    Arrow type: ``str``, ``int`` (64 bits), ``bool``, ``float``, ``date``, ``datetime`` (UTC, microseconds),
    ``UUID``, ``list[...]``, a nested dataclass, ``... | None`` for an optional field, and
    ``Annotated[..., pa.decimal128(18, 2)]`` for a decimal, ``Annotated[int, pa.int16()]`` for an integer of another
    width. Types that some way into the log or out of it would change are refused.
    ``Annotated[..., Personal(subject="customer_id")]`` marks a field whose values the log holds encrypted.

    Args:
        schema_version: the version of these fields, from 1. Increase it with every change of the fields, and write an
            upcaster from the version before.
        name: the event type's name in the log; the name of the class by default.

    Raises:
        ContractError: an annotation has no Arrow type, or one that cannot be declared; a field name is reserved; the
            name of the event type is empty, too long, or has control characters.

    Example:
        >>> @event(schema_version=1)
        ... class OrderShipped:
        ...     order_id: str
        ...     carrier: str | None
        >>> schema_of(OrderShipped).names
        ['order_id', 'carrier']
    """

    def decorate(cls: type[T]) -> type[T]:
        event_type = cls.__name__ if name is None else name
        check_event_type(event_type, where=f"Event class {cls.__name__}")
        if schema_version < 1:
            raise ContractError(f"Event {event_type}: schema_version is {schema_version}; versions start at 1.")
        made = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
        schema = with_marks(made, dataclass_schema(made, where=f"Event {event_type}"), where=f"Event {event_type}")
        check_field_names(schema, where=f"Event {event_type}")
        made.__event_type__ = event_type  # type: ignore[attr-defined]
        made.__schema_version__ = schema_version  # type: ignore[attr-defined]
        made.__event_schema__ = schema  # type: ignore[attr-defined]
        return made

    return decorate


def is_event(cls: object) -> bool:
    """Check whether a class was made by ``@event``."""
    return isinstance(cls, type) and hasattr(cls, "__event_type__")


def event_type_of(cls: type) -> str:
    """Return the name of the event type whose contract a class is."""
    return str(_contract(cls).__event_type__)


def schema_version_of(cls: type) -> int:
    """Return the schema version that a class declares."""
    return int(_contract(cls).__schema_version__)


def schema_of(cls: type) -> pa.Schema:
    """Return the Arrow schema of an event class's payload."""
    return _contract(cls).__event_schema__


def _contract(cls: type) -> Any:
    if not is_event(cls):
        raise ContractError(f"{cls!r} is not an event. Decorate the class with @event(schema_version=...).")
    return cls


def check_field_names(schema: pa.Schema, *, where: str) -> None:
    """Check that no payload field hides a column of the envelope, which handlers see beside it, or one of refold.

    Raises:
        ContractError: a field name is reserved.
    """
    for field in schema:
        folded = field.name.lower()
        if folded in ENVELOPE_NAMES or folded.startswith("_"):
            raise ContractError(
                f"{where}: the field name {field.name!r} is reserved, as all names of the envelope and all that start "
                "with an underscore. Choose another name; an import takes it from the old one with [payload_columns]."
            )


def dataclass_schema(cls: type, *, where: str) -> pa.Schema:
    """Derive an Arrow schema from a dataclass's annotations.

    Args:
        cls: a dataclass.
        where: the start of an error message.

    Raises:
        ContractError: an annotation has no Arrow type, or one that cannot be declared.
    """
    try:
        schema = pa.schema(_arrow_fields(cls, where=where))
    except RecursionError:
        raise ContractError(
            f"{where}: a dataclass contains itself, so it has no Arrow type. Store the parts as a list, with the index "
            "of the part that contains each of them."
        ) from None
    check_fields(schema, where=where)
    return schema


def _arrow_fields(cls: type, *, where: str) -> list[pa.Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return [_arrow_field(f.name, hints[f.name], where=where) for f in dataclasses.fields(cls)]


def _arrow_field(name: str, annotation: Any, *, where: str) -> pa.Field:
    annotation, optional = _strip_optional(annotation)
    dtype = _arrow_type(annotation, where=f"{where}, field {name}")
    return pa.field(name, dtype, nullable=optional or dtype == pa.null())  # Arrow fails on a required null


def _strip_optional(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) is typing.Annotated:
        plain, *marks = typing.get_args(annotation)
        inner, optional = _strip_optional(plain)
        return (typing.Annotated[(inner, *marks)], True) if optional else (annotation, False)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    members = [m for m in typing.get_args(annotation) if m is not type(None)]
    return (members[0], True) if len(members) == 1 else (annotation, False)


def _arrow_type(annotation: Any, *, where: str) -> pa.DataType:
    if annotation in _PLAIN_TYPES:
        return _PLAIN_TYPES[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        exact = [a for a in arguments[1:] if isinstance(a, pa.DataType)]
        return exact[0] if exact else _arrow_type(arguments[0], where=where)
    if origin is list:
        return pa.list_(_arrow_field("element", arguments[0], where=where))
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return pa.struct(_arrow_fields(annotation, where=where))
    hint = " Write Annotated[Decimal, pa.decimal128(18, 2)]." if annotation is Decimal else ""
    raise ContractError(
        f"{where}: {annotation!r} has no Arrow type. Use str, int, bool, float, date, datetime, UUID, list, a "
        f"nested dataclass, or Annotated[..., an Arrow type]; the only union is with None.{hint}"
    )
