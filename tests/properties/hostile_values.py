"""Values at and near the edges of every field type, and the JSON texts of each, written without the engine."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from hypothesis import strategies as st

TEXTS = [
    "",
    "a",
    "A",
    "b",
    "null",
    "\x00",
    "é",
    "e\u0301",
    "🙂 x",
    "'q\"\\",
    "\ufeff",
    "\u2028\n\t",
    "0",
    "0.0",
    "x" * 300,
]
FLOATS = [0.0, -0.0, 0.1, 1.5, -2.5, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 3.0]
DATES = [date.min, date(1969, 12, 31), date(2000, 2, 29), date(2024, 2, 29), date.max]
TIMES = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(1582, 10, 10, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
    datetime(2024, 10, 27, 1, 30, 0, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]
UUIDS = [uuid.UUID(int=0), uuid.UUID(int=1), uuid.UUID(int=(1 << 127) + 5), uuid.UUID(int=(1 << 128) - 1)]


def _integers(dtype: pa.DataType) -> list[int]:
    bits = dtype.bit_width
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if pt.is_signed_integer(dtype) else (0, (1 << bits) - 1)
    return [0, 1, 2, low, low + 1, high - 1, high]


def _decimals(dtype: pa.DataType) -> list[Decimal]:
    units = [0, 1, -1, 250, 10**dtype.precision - 1, -(10**dtype.precision) + 1, 10 ** (dtype.precision - 1)]
    return [Decimal((u < 0, tuple(map(int, str(abs(u)))), -dtype.scale)) for u in units if abs(u) < 10**dtype.precision]


_EDGES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], list[Any]]], ...] = (
    (pt.is_string, lambda _: TEXTS),
    (pt.is_boolean, lambda _: [False, True]),
    (pt.is_integer, _integers),
    (pt.is_decimal, _decimals),
    (pt.is_float64, lambda _: FLOATS),
    (pt.is_float32, lambda _: [0.0, -0.0, 0.5, -2.5, 2.0**100, 2.0**-149]),
    (pt.is_date, lambda _: DATES),
    (pt.is_timestamp, lambda _: TIMES),
    (lambda dtype: dtype == pa.uuid(), lambda _: UUIDS),
)


def values(field: pa.Field) -> st.SearchStrategy[Any]:
    """Draw values that fit a field; few different ones, so that they meet again."""
    dtype = field.type
    found: st.SearchStrategy[Any]
    if pt.is_list(dtype):
        found = st.lists(values(dtype.value_field), max_size=3)
    elif pt.is_struct(dtype):
        found = payloads(pa.schema([dtype.field(i) for i in range(dtype.num_fields)]))
    else:
        found = st.sampled_from(next(edges(dtype) for matches, edges in _EDGES if matches(dtype)))
    return st.none() | found if field.nullable else found


def payloads(schema: pa.Schema) -> st.SearchStrategy[dict[str, Any]]:
    """Draw payloads that fit a schema."""
    return st.fixed_dictionaries({f.name: values(f) for f in schema})


def json_text(payload: dict[str, Any], schema: pa.Schema, style: int) -> str:
    """Write a payload as JSON, as one of several programs might.

    Args:
        payload: the values.
        schema: their types.
        style: 0 canonical, 1 terse and escaped, 2 with numbers for decimals and other offsets of times.
    """
    made = {f.name: _json(payload[f.name], f.type, style) for f in schema}
    if style:
        made = {name: v for name, v in reversed(made.items()) if v is not None}
    text = json.dumps(made, ensure_ascii=style == 1, separators=(",", ":") if style < 2 else None)
    return text.replace('"\\u0001', "").replace('\\u0001"', "") if style == 2 else text


def _json(value: Any, dtype: pa.DataType, style: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_json(v, dtype.value_type, style) for v in value]
    if isinstance(value, dict):
        fields = [dtype.field(i) for i in range(dtype.num_fields)]
        return {f.name: _json(value[f.name], f.type, style) for f in fields}
    if isinstance(value, Decimal):
        return f"\x01{value:f}\x01" if style == 2 else f"{value:f}"  # json_text removes the quotes
    if isinstance(value, datetime):
        if style == 2 and 2 < value.year < 9998:
            return value.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)


def misfits(schema: pa.Schema) -> st.SearchStrategy[str]:
    """Draw JSON texts that do not fit a schema."""
    found = ["[]", "null", "{", '{"no such field": 1}']
    for field in schema:
        valid = {f.name: None if f.nullable else _json(_first(f), f.type, 0) for f in schema}
        found += [json.dumps({**valid, field.name: wrong}) for wrong in _wrong(field.type)]
        if not field.nullable:
            found += [json.dumps({**valid, field.name: None})]
            found += [json.dumps({name: v for name, v in valid.items() if name != field.name})]
    return st.sampled_from(found)


def _first(field: pa.Field) -> Any:
    dtype = field.type
    if pt.is_list(dtype):
        return []
    if pt.is_struct(dtype):
        return {f.name: _first(f) for f in (dtype.field(i) for i in range(dtype.num_fields))}
    return next(edges(dtype) for matches, edges in _EDGES if matches(dtype))[0]


def _wrong(dtype: pa.DataType) -> list[Any]:
    if pt.is_integer(dtype):
        beyond = _integers(dtype)
        return [min(beyond) - 1, max(beyond) + 1, 0.5, "x", [], {}]
    if pt.is_decimal(dtype):
        tiny = f"0.{'0' * dtype.scale}1"
        return [f"{10 ** (dtype.precision - dtype.scale)}", tiny, "NaN", "Infinity", "x", True, []]
    if pt.is_date(dtype) or pt.is_timestamp(dtype):
        return ["", "2024-13-01", "yesterday", "infinity", 7, []]
    if pt.is_string(dtype):
        return [1, True, [], {}]
    if pt.is_nested(dtype):
        return [1, "x", [[1]], {"no such field": 1}]
    return ["x", [], {}] if not pt.is_boolean(dtype) else [1, "x", "true", []]
