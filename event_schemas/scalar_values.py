"""One rule for each scalar type: which Python and JSON values are values of the type, and the JSON that is stored.

Nothing is rounded, cut, trimmed or guessed. Text is read in one form for each type, which every part of refold reads
alike; Python's own parsers accept more (``1_0``, ``urn:uuid:...``, week dates), and other programs do not.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

ToJson = Callable[[Any], Any]
"""Converts a value to what JSON stores; raises ValueError, TypeError, ArithmeticError or AttributeError."""

FromJson = Callable[[Any], Any]
"""Converts what JSON stores to a Python value."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)"
)
_FRACTION = re.compile(r"\.([0-9]{6})([0-9]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_DIGITS_OF_A_FLOAT = 15
"""A decimal of at most so many digits is the same after it was a binary float; one with more may be another."""

_EXACT = Context(prec=76, Emax=9999, Emin=-9999, traps=[Inexact, InvalidOperation, Overflow])


class Unfit(ValueError):
    """A value does not fit for a reason that its type does not show."""


class JsonNumber(Decimal):
    """A number of a JSON text that is no integer, with all its digits."""

    __slots__ = ()


def rule_of(dtype: pa.DataType) -> tuple[ToJson, FromJson] | None:
    """Return the two conversions of an allowed scalar type, None for any other type."""
    if pt.is_string(dtype):
        return _text, _same
    if pt.is_integer(dtype):
        return _integer(dtype), _same
    if pt.is_decimal128(dtype):
        return _decimal(dtype), Decimal
    if pt.is_timestamp(dtype):
        return _timestamp, datetime.fromisoformat
    if pt.is_boolean(dtype):
        return _boolean, _same
    if pt.is_date32(dtype):
        return _date, date.fromisoformat
    if dtype == pa.uuid():
        return _uuid, uuid.UUID
    return (_float, float) if pt.is_float64(dtype) else None


def utc(moment: datetime) -> datetime:
    """Return a time in UTC.

    Raises:
        Unfit: it has no time zone, is more exact than microseconds, or is outside the years 1 to 9999 in UTC.
    """
    if moment.utcoffset() is None:
        raise Unfit("it has no time zone")
    if getattr(moment, "nanosecond", 0):  # pandas: its conversion to microseconds would cut
        raise Unfit("it is more exact than a microsecond")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise Unfit("in UTC it is outside the years 1 to 9999") from None


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unfit("it has half of a surrogate pair, which is no character") from None
    return str.__str__(value)


def _integer(dtype: pa.DataType) -> ToJson:
    signed = pt.is_signed_integer(dtype)
    limit = 1 << (dtype.bit_width - 1 if signed else dtype.bit_width)
    lowest = -limit if signed else 0

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if not lowest <= value < limit:
            raise ValueError
        return int(value)

    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | JsonNumber):
        raise TypeError
    number = float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError
    if isinstance(value, int) and int(number) != value:
        raise Unfit("a 64-bit float would round this integer")
    return number


def _decimal(dtype: pa.DataType) -> ToJson:
    unit = Decimal(1).scaleb(-dtype.scale)
    precision = dtype.precision

    def convert(value: Any) -> str:
        number = value if isinstance(value, Decimal) else _number(value)
        if not number.is_finite():
            raise ValueError
        exact = number.quantize(unit, context=_EXACT)
        if len(exact.as_tuple().digits) > precision:
            raise ValueError
        return f"{exact:f}" if exact else f"{exact.copy_abs():f}"  # a decimal has no negative zero

    return convert


def _number(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise TypeError
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    if not isinstance(value, float):
        return Decimal(value)
    number = Decimal(repr(float(value)))
    if number.is_finite() and len(number.normalize(_EXACT).as_tuple().digits) > _DIGITS_OF_A_FLOAT:
        raise Unfit("a binary float may have rounded it; give a Decimal, or text")
    return number


def _timestamp(value: Any) -> str:
    if isinstance(value, str):
        value = _time_of(value)
    if not isinstance(value, datetime):
        raise TypeError
    return f"{utc(value).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _time_of(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise Unfit("a time is written as 2026-01-31T23:59:59.999999Z, with Z or an offset such as +02:00")
    surplus = _FRACTION.search(text)
    if surplus and surplus[2].strip("0"):
        raise Unfit("it is more exact than a microsecond")
    text = _FRACTION.sub(r".\1", text) if surplus else text
    return datetime.fromisoformat(text.upper())


def _date(value: Any) -> str:
    if isinstance(value, str):
        if not _DATE.fullmatch(value):
            raise Unfit("a date is written as 2026-01-31")
        value = date.fromisoformat(value)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return f"{value.year:04d}-{value.month:02d}-{value.day:02d}"


def _uuid(value: Any) -> str:
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise Unfit("a UUID is written as 12345678-1234-5678-1234-567812345678")
    return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))
