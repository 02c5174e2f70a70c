"""The Arrow types that a field may have: those whose every value is the same on each way into the log and out of it.

A value passes through Python, JSON text, Arrow, DuckDB and Parquet. A type is allowed if all of them hold all of its
values. All others are refused when a field is declared, with the type to use in its place.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from urllib.parse import quote as url_quote

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas.errors import ContractError
from refold.event_schemas.names import first_double

MAX_NAME_BYTES = 200
"""Limit of an event type in percent-encoded form: a path segment of at most 255 bytes holds it with a prefix."""

_DECIMAL_DIGITS = 38

_TEXT = "Use str."
_DOUBLE = "Use float, which has 64 bits: a shorter one would round what is written."
_TIME = "Use str for a time of day, or int for a number of microseconds."
_BYTES = "Use str, with the bytes as Base64."

_BINARY: tuple[Callable[[pa.DataType], bool], ...] = (
    pt.is_binary,
    pt.is_large_binary,
    pt.is_fixed_size_binary,
    pt.is_binary_view,
)
_REFUSED: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pt.is_timestamp, "Use datetime, which is pa.timestamp('us', tz='UTC'): others are converted or cut on the way."),
    (pt.is_decimal, "Use pa.decimal128 with a precision of at most 38, and a scale from 0 to the precision."),
    (pt.is_floating, _DOUBLE),
    (pt.is_date, "Use date, which is pa.date32()."),
    (pt.is_time, _TIME),
    (pt.is_duration, "Use int for a number of microseconds."),
    (pt.is_large_string, _TEXT),
    (pt.is_string_view, _TEXT),
    (pt.is_dictionary, "Use the type of its values; segments compress repeated values."),
    (pt.is_struct, "A struct needs at least one field: DuckDB and Parquet have no empty struct."),
    (pt.is_map, "Use a list of a dataclass with a key and a value."),
    (pt.is_nested, "Use list[...] or a nested dataclass."),
    (pt.is_null, "Use the type that the field has when it has a value, with ``| None``."),
    *((is_bytes, _BYTES) for is_bytes in _BINARY),
)
_ALLOWED = "Use str, int, bool, float, date, datetime, UUID, list, a nested dataclass or pa.decimal128."


def check_fields(fields: pa.Schema | pa.StructType, *, where: str) -> None:
    """Check the type of every field, nested ones included, and the names inside structs.

    Args:
        fields: a schema, or a struct.
        where: the start of an error message.

    Raises:
        ContractError: a type is not allowed, or a name cannot be one.

    Example:
        >>> check_fields(pa.schema([("at", pa.timestamp("ns"))]), where="Event DoorOpened")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        refold.event_schemas.errors.ContractError: Event DoorOpened, field at: the type timestamp[ns] cannot be ...
    """
    for field in fields:
        check_name(field.name, what="the field name", where=where)
        _check_type(field.type, where=f"{where}, field {field.name}")
    if double := first_double(field.name for field in fields):
        raise ContractError(f"{where}: two fields are named {double[1]!r}; SQL ignores case. Rename one of them.")


def check_event_type(name: str, *, where: str) -> None:
    """Check that a name can be that of an event type: it is text in SQL, in messages, and in the paths of segments.

    Raises:
        ContractError: the name is empty, too long, or has characters that no path or line of text should have.
    """
    check_name(name, what="the event type", where=where)
    if name in (".", ".."):
        raise ContractError(f"{where}: the event type {name!r} is a folder in paths. Choose another name.")
    if (size := len(path_name(name))) > MAX_NAME_BYTES:
        raise ContractError(
            f"{where}: the event type {name[:40]!r}... has {size} bytes in the path of a segment; the limit is "
            f"{MAX_NAME_BYTES}. Choose a shorter name."
        )


def path_name(event_type: str) -> str:
    """Return the name of an event type in the path of a segment, percent-encoded."""
    return url_quote(event_type, safe="")


def check_name(name: object, *, what: str, where: str) -> None:
    """Check that a name is text that is not empty and has no control characters and no half of a surrogate pair.

    Raises:
        ContractError: it is not such a text.
    """
    if not isinstance(name, str) or not name.strip():
        raise ContractError(f"{where}: {what} is {name!r}; expected text that is not empty.")
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise ContractError(
                f"{where}: {what} {name!r} has the character U+{ord(character):04X}, which is a control character or "
                "no character. Choose another name."
            )


def _check_type(dtype: pa.DataType, *, where: str) -> None:
    if pt.is_struct(dtype) and dtype.num_fields:
        check_fields(dtype, where=where)
    elif pt.is_list(dtype):
        _check_type(dtype.value_type, where=where)
    elif not _is_allowed_scalar(dtype):
        hint = next((hint for refused, hint in _REFUSED if refused(dtype)), _ALLOWED)
        raise ContractError(
            f"{where}: the type {dtype} cannot be declared, since not every way in and out of the log keeps its "
            f"values. {hint}"
        )


def _is_allowed_scalar(dtype: pa.DataType) -> bool:
    if pt.is_timestamp(dtype):
        return dtype.unit == "us" and dtype.tz in (None, "UTC")
    if pt.is_decimal(dtype):
        return bool(pt.is_decimal128(dtype)) and 0 <= dtype.scale <= dtype.precision <= _DECIMAL_DIGITS
    return dtype in _SCALARS


_SCALARS = frozenset(
    {
        pa.string(),
        pa.bool_(),
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
        pa.float64(),
        pa.date32(),
        pa.uuid(),
    }
)
