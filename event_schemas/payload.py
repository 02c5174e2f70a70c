"""Payloads as JSON: checked against their Arrow schema when they are written, converted to Python types when read.

A commit stores payloads as canonical JSON text: every declared field in declared order, decimals as text, timestamps
as RFC 3339 in UTC with microseconds. The same event always has the same text, and no decimal passes through a binary
float.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas.errors import PayloadError

Converter = Callable[[Any, str], Any]


def canonical_json(payload: Mapping[str, Any] | object, schema: pa.Schema) -> str:
    """Return a payload as canonical JSON text.

    Args:
        payload: an event (a dataclass) or a mapping; values as Python types or as JSON types.
        schema: the payload's Arrow schema.

    Raises:
        PayloadError: a field is missing or unknown, or its value does not fit; the message names the field.

    Example:
        >>> canonical_json({"amount": Decimal("2.5")}, pa.schema([pa.field("amount", pa.decimal128(9, 2))]))
        '{"amount":"2.50"}'
    """
    return orjson.dumps(to_json(payload, schema)).decode()


def to_json(payload: Mapping[str, Any] | object, schema: pa.Schema) -> dict[str, Any]:
    """Return a payload as the JSON object that ``canonical_json`` writes."""
    return _struct_to_json(payload, list(schema), "")


def from_json(payload: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Convert a canonical JSON object to Python values: Decimal, datetime, date, UUID.

    Args:
        payload: the parsed JSON object; a missing optional field becomes None.
        schema: the payload's Arrow schema.
    """
    return {f.name: _from_json(payload.get(f.name), f.type) for f in schema}


def _struct_to_json(value: Any, fields: list[pa.Field], path: str) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        raise _unfit(path or "the payload", "an object", value)
    known = {f.name for f in fields}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise PayloadError(f"unknown field {_join(path, str(unknown[0]))}; the schema has {sorted(known)}")
    return {f.name: _field_to_json(value.get(f.name, _MISSING), f, _join(path, f.name)) for f in fields}


_MISSING = object()


def _field_to_json(value: Any, field: pa.Field, where: str) -> Any:
    if value is not None and value is not _MISSING:
        return _value_to_json(value, field.type, where)
    if field.nullable:
        return None
    state = "is null" if value is None else "is missing"
    raise PayloadError(f"required field {where} {state}; expected {field.type}")


def _value_to_json(value: Any, dtype: pa.DataType, where: str) -> Any:
    if pt.is_struct(dtype):
        return _struct_to_json(value, [dtype.field(i) for i in range(dtype.num_fields)], where)
    if pt.is_list(dtype):
        if not isinstance(value, list | tuple):
            raise _unfit(where, dtype, value)
        return [_field_to_json(v, dtype.value_field, f"{where}[{i}]") for i, v in enumerate(value)]
    for matches, convert in _SCALARS:
        if matches(dtype):
            try:
                return convert(value, dtype)
            except (ValueError, TypeError, ArithmeticError, AttributeError):
                raise _unfit(where, dtype, value) from None
    raise PayloadError(f"{where}: a payload cannot hold the type {dtype}")


def _text(value: Any, _: pa.DataType) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # raises for a lone surrogate, which UTF-8 cannot hold
    return value


def _integer(value: Any, dtype: pa.DataType) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    signed = pt.is_signed_integer(dtype)
    bits = dtype.bit_width - 1 if signed else dtype.bit_width
    if not (-(1 << bits) if signed else 0) <= value < (1 << bits):
        raise ValueError
    return value


def _boolean(value: Any, _: pa.DataType) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _float(value: Any, _: pa.DataType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError
    return float(value)


_EXACT = Context(prec=76, traps=[Inexact, InvalidOperation])  # 76 digits: the most that an Arrow decimal256 holds


def _decimal(value: Any, dtype: pa.DataType) -> str:
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str | float):
        raise TypeError
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    exact = number.quantize(Decimal(1).scaleb(-dtype.scale), context=_EXACT)
    if not exact.is_finite() or len(exact.as_tuple().digits) > dtype.precision:
        raise ValueError
    return f"{exact:f}"


def _timestamp(value: Any, _: pa.DataType) -> str:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _date(value: Any, _: pa.DataType) -> str:
    if isinstance(value, str):
        value = date.fromisoformat(value)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return value.isoformat()


def _uuid(value: Any, _: pa.DataType) -> str:
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.DataType], Any]], ...] = (
    (pt.is_string, _text),
    (pt.is_integer, _integer),
    (pt.is_decimal, _decimal),
    (pt.is_timestamp, _timestamp),
    (pt.is_boolean, _boolean),
    (pt.is_date, _date),
    (lambda t: t == pa.uuid(), _uuid),
    (pt.is_floating, _float),
)


def _from_json(value: Any, dtype: pa.DataType) -> Any:
    if value is None:
        return None
    if pt.is_struct(dtype):
        return {f.name: _from_json(value.get(f.name), f.type) for f in _struct_fields(dtype)}
    if pt.is_list(dtype):
        return [_from_json(v, dtype.value_type) for v in value]
    if pt.is_decimal(dtype):
        return Decimal(value)
    if pt.is_timestamp(dtype):
        return datetime.fromisoformat(value)
    if pt.is_date(dtype):
        return date.fromisoformat(value)
    return uuid.UUID(value) if dtype == pa.uuid() else value


def _struct_fields(dtype: pa.DataType) -> list[pa.Field]:
    return [dtype.field(i) for i in range(dtype.num_fields)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unfit(where: str, expected: object, value: Any) -> PayloadError:
    found = repr(value)
    found = found if len(found) <= 80 else found[:77] + "..."  # a whole document would hide the message
    return PayloadError(f"{where}: expected {expected}, found {found}")
