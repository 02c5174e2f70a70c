"""Values of payloads: what a contract's field accepts, in Python, and how DuckDB writes its type.

A table of its own, by ``docs/how-to/declare-events.md``: not that of ``event_schemas/payload.py``, which writes
payloads.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

_WIDE = Context(prec=100)


class MisfitError(ValueError):
    """A value does not fit its contract."""


def parse(text: str) -> Any:
    """Parse a recorded payload; numbers with a fraction or an exponent stay decimals.

    Raises:
        MisfitError: it is not JSON.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except ValueError as error:
        raise MisfitError(f"the payload is not JSON: {error}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def payload_of(given: Any, schema: pa.Schema) -> dict[str, Any]:
    """Return a payload in Python values: from parsed JSON, from the columns of a segment, or from an upcaster.

    Raises:
        MisfitError: it does not fit the schema.
    """
    return _object(given, list(schema))


def _object(given: Any, fields: list[pa.Field]) -> dict[str, Any]:
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    if not isinstance(given, Mapping):
        raise MisfitError(f"{given!r} is no object")
    if unknown := given.keys() - {f.name for f in fields}:
        raise MisfitError(f"unknown fields {sorted(map(str, unknown))}")
    return {f.name: _value(given.get(f.name), f) for f in fields}


def _value(given: Any, field: pa.Field) -> Any:
    dtype = field.type
    if given is None:
        if field.nullable:
            return None
        raise MisfitError(f"required {field.name} is missing")
    if pt.is_struct(dtype):
        return _object(given, [dtype.field(i) for i in range(dtype.num_fields)])
    if pt.is_list(dtype):
        if not isinstance(given, list | tuple):
            raise MisfitError(f"{field.name}: {given!r} is no list")
        return [_value(v, dtype.value_field) for v in given]
    try:
        return next(scalar for matches, scalar in _SCALARS if matches(dtype))(given, dtype)
    except (TypeError, ValueError, ArithmeticError, AttributeError, StopIteration) as error:
        raise MisfitError(f"{field.name}: {given!r} is no {dtype}") from error


def _text(given: Any, _: pa.DataType) -> str:
    given.encode("utf-8")
    return str(given)


def _boolean(given: Any, _: pa.DataType) -> bool:
    if given is True or given is False:
        return bool(given)
    raise TypeError


def _integer(given: Any, dtype: pa.DataType) -> int:
    if type(given) is not int:
        raise TypeError
    bits = dtype.bit_width
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pt.is_signed_integer(dtype) else (0, 2**bits - 1)
    if not low <= given <= high:
        raise ValueError
    return given


def _decimal(given: Any, dtype: pa.DataType) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
        raise TypeError
    number = Decimal(repr(given) if isinstance(given, float) else given)
    if not number.is_finite() or abs(number.adjusted()) > 100:
        raise ValueError
    units = Fraction(number) * 10**dtype.scale
    if units.denominator != 1 or abs(units) >= 10**dtype.precision:
        raise ValueError
    return Decimal(units.numerator).scaleb(-dtype.scale, _WIDE)


def _float(given: Any, dtype: pa.DataType) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | Decimal):
        raise TypeError
    number = float(given)
    if pt.is_float32(dtype):
        number = struct.unpack("f", struct.pack("f", number))[0]
    if not math.isfinite(number):
        raise ValueError
    return number


def _date(given: Any, _: pa.DataType) -> date:
    found = date.fromisoformat(given) if isinstance(given, str) else given
    if type(found) is not date:
        raise TypeError
    return found


def _timestamp(given: Any, dtype: pa.DataType) -> datetime:
    found = datetime.fromisoformat(given) if isinstance(given, str) else given
    if not isinstance(found, datetime):
        raise TypeError
    if found.tzinfo is None:
        if isinstance(given, str) or dtype.tz:
            raise TypeError
        return found  # a segment's column without a zone
    found = found.astimezone(UTC)
    return found if dtype.tz else found.replace(tzinfo=None)


def _uuid(given: Any, _: pa.DataType) -> uuid.UUID:
    if isinstance(given, bytes):
        return uuid.UUID(bytes=given)
    return given if isinstance(given, uuid.UUID) else uuid.UUID(given)


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, pa.DataType], Any]], ...] = (
    (pt.is_string, _text),
    (pt.is_boolean, _boolean),
    (pt.is_integer, _integer),
    (pt.is_decimal, _decimal),
    (pt.is_floating, _float),
    (pt.is_date, _date),
    (pt.is_timestamp, _timestamp),
    (lambda dtype: dtype == pa.uuid(), _uuid),
)

_INTEGERS = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}


def sql_type(dtype: pa.DataType) -> str:
    """Return the DuckDB type of a field."""
    if pt.is_integer(dtype):
        return ("" if pt.is_signed_integer(dtype) else "U") + _INTEGERS[dtype.bit_width]
    if pt.is_decimal(dtype):
        return f"DECIMAL({dtype.precision}, {dtype.scale})"
    if pt.is_timestamp(dtype):
        return "TIMESTAMP WITH TIME ZONE" if dtype.tz else "TIMESTAMP"
    if pt.is_list(dtype):
        return f"{sql_type(dtype.value_type)}[]"
    if pt.is_struct(dtype):
        inner = (dtype.field(i) for i in range(dtype.num_fields))
        return "STRUCT(" + ", ".join(f"{name_in_sql(f.name)} {sql_type(f.type)}" for f in inner) + ")"
    return next(name for matches, name in _NAMES if matches(dtype))


_NAMES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pt.is_string, "VARCHAR"),
    (pt.is_boolean, "BOOLEAN"),
    (pt.is_float32, "FLOAT"),
    (pt.is_float64, "DOUBLE"),
    (pt.is_date, "DATE"),
    (lambda dtype: dtype == pa.uuid(), "UUID"),
)


def name_in_sql(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def as_sql(value: Any, dtype: pa.DataType) -> tuple[str, list[Any]]:
    """Return an SQL expression of a value, with its parameters: each scalar as text or number, and cast."""
    if value is None:
        return f"CAST(NULL AS {sql_type(dtype)})", []
    if pt.is_list(dtype):
        parts = [as_sql(v, dtype.value_type) for v in value]
        text = f"CAST([{', '.join(p[0] for p in parts)}] AS {sql_type(dtype)})"
    elif pt.is_struct(dtype):
        fields = [dtype.field(i) for i in range(dtype.num_fields)]
        parts = [as_sql(value[f.name], f.type) for f in fields]
        packed = ", ".join(f"{name_in_sql(f.name)} := {p[0]}" for f, p in zip(fields, parts, strict=True))
        text = f"struct_pack({packed})"
    else:
        plain = value if isinstance(value, bool | int | float) else _written(value)
        return f"CAST(? AS {sql_type(dtype)})", [plain]
    return text, [parameter for p in parts for parameter in p[1]]


def _written(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
