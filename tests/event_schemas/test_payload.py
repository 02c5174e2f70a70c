"""Payloads: validation against a schema, the canonical text, and the values that reads return."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from refold.event_schemas import PayloadError, canonical_json
from refold.event_schemas.payload import from_json, to_json

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
REF = UUID("12345678-1234-5678-1234-567812345678")
TWO_HOURS_EAST = timezone(timedelta(hours=2))


def one(dtype: pa.DataType, *, nullable: bool = False) -> pa.Schema:
    """Make a schema of one field ``x``."""
    return pa.schema([pa.field("x", dtype, nullable=nullable)])


@pytest.mark.parametrize(
    ("dtype", "value", "stored", "read"),
    [
        (pa.string(), "Malmö", '"Malmö"', "Malmö"),
        (pa.int64(), -(2**63), "-9223372036854775808", -(2**63)),
        (pa.uint64(), 2**64 - 1, "18446744073709551615", 2**64 - 1),
        (pa.int8(), 127, "127", 127),
        (pa.float64(), 1, "1.0", 1.0),
        (pa.bool_(), True, "true", True),
        (pa.decimal128(9, 2), Decimal("2.5"), '"2.50"', Decimal("2.50")),
        (pa.decimal128(9, 2), "2.50", '"2.50"', Decimal("2.50")),
        (pa.decimal128(9, 2), 3, '"3.00"', Decimal("3.00")),
        (pa.decimal128(9, 2), 0.1, '"0.10"', Decimal("0.10")),
        (pa.decimal128(3, 1), "99.9", '"99.9"', Decimal("99.9")),
        (pa.decimal128(20, 0), "1e19", '"10000000000000000000"', Decimal(10) ** 19),
        (pa.date32(), date(2024, 2, 29), '"2024-02-29"', date(2024, 2, 29)),
        (pa.date32(), "2024-02-29", '"2024-02-29"', date(2024, 2, 29)),
        (pa.uuid(), REF, f'"{REF}"', REF),
        (pa.uuid(), str(REF).upper(), f'"{REF}"', REF),
        (
            UTC_MICROSECONDS,
            datetime(2024, 5, 1, 14, tzinfo=TWO_HOURS_EAST),
            '"2024-05-01T12:00:00.000000Z"',
            datetime(2024, 5, 1, 12, tzinfo=UTC),
        ),
        (
            UTC_MICROSECONDS,
            "2024-05-01T12:00:00.5Z",
            '"2024-05-01T12:00:00.500000Z"',
            datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC),
        ),
        (pa.list_(pa.int64()), (1, None), "[1,null]", [1, None]),
    ],
)
def test_a_value_has_one_text_and_comes_back(dtype: pa.DataType, value: Any, stored: str, read: Any) -> None:
    """Python and JSON values that mean the same are stored as the same text."""
    text = canonical_json({"x": value}, one(dtype))
    assert text == f'{{"x":{stored}}}'
    assert from_json(json.loads(text), one(dtype)) == {"x": read}
    assert canonical_json({"x": read}, one(dtype)) == text


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (pa.string(), 7),
        (pa.string(), "\ud800"),
        (pa.int64(), "7"),
        (pa.int64(), 7.0),
        (pa.int64(), True),
        (pa.int64(), 2**63),
        (pa.int8(), 128),
        (pa.uint8(), -1),
        (pa.float64(), float("nan")),
        (pa.float64(), float("inf")),
        (pa.float64(), True),
        (pa.float64(), "1.5"),
        (pa.bool_(), 1),
        (pa.decimal128(9, 2), "2.505"),
        (pa.decimal128(9, 2), 0.125),
        (pa.decimal128(3, 1), "100"),
        (pa.decimal128(9, 2), "NaN"),
        (pa.decimal128(9, 2), "two"),
        (pa.decimal128(9, 2), True),
        (UTC_MICROSECONDS, datetime(2024, 5, 1, 12)),
        (UTC_MICROSECONDS, "2024-05-01T12:00:00"),
        (UTC_MICROSECONDS, 1714564800),
        (pa.date32(), datetime(2024, 5, 1, tzinfo=UTC)),
        (pa.date32(), "2023-02-29"),
        (pa.uuid(), "not-a-uuid"),
        (pa.uuid(), 7),
        (pa.list_(pa.int64()), "12"),
        (pa.list_(pa.int64()), {"0": 1}),
        (pa.struct([pa.field("y", pa.int64())]), [1]),
    ],
)
def test_a_value_that_does_not_fit_is_refused(dtype: pa.DataType, value: Any) -> None:
    """A value that does not match its type is rejected: nothing is rounded, truncated or guessed."""
    with pytest.raises(PayloadError, match=r"^x: expected .*, found "):
        canonical_json({"x": value}, one(dtype))


def test_fields_are_written_in_declared_order() -> None:
    """The canonical text does not depend on the order of the fields."""
    schema = pa.schema([pa.field("b", pa.int64()), pa.field("a", pa.int64())])
    assert canonical_json({"a": 1, "b": 2}, schema) == '{"b":2,"a":1}'


def test_an_optional_field_may_be_missing() -> None:
    """A missing optional field is stored as null and read as None, also if the stored object lacks it."""
    schema = one(pa.int64(), nullable=True)
    assert to_json({}, schema) == {"x": None}
    assert from_json({}, schema) == {"x": None}


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "required field x is missing; expected int64"),
        ({"x": None}, "required field x is null; expected int64"),
        ({"x": 1, "y": 2}, r"unknown field y; the schema has \['x'\]"),
        ([1], "the payload: expected an object, found \\[1\\]"),
    ],
)
def test_the_fields_are_those_of_the_schema(payload: Any, message: str) -> None:
    """The message names the field."""
    with pytest.raises(PayloadError, match=f"^{message}$"):
        canonical_json(payload, one(pa.int64()))


@dataclass(frozen=True, slots=True)
class Line:
    """A nested value."""

    sku: str
    quantity: int


LINE = pa.struct([pa.field("sku", pa.string(), nullable=False), pa.field("quantity", pa.int64(), nullable=False)])
LINES = pa.schema([pa.field("lines", pa.list_(pa.field("element", LINE, nullable=False)), nullable=False)])


def test_nested_values_are_checked_and_come_back_as_mappings() -> None:
    """Dataclasses and mappings are stored alike."""
    text = canonical_json({"lines": [Line("cup", 1), {"quantity": 2, "sku": "pot"}]}, LINES)
    assert text == '{"lines":[{"sku":"cup","quantity":1},{"sku":"pot","quantity":2}]}'
    assert from_json(json.loads(text), LINES) == {
        "lines": [{"sku": "cup", "quantity": 1}, {"sku": "pot", "quantity": 2}]
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([Line("cup", 1), {"sku": "pot"}], r"required field lines\[1\]\.quantity is missing"),
        ([{"sku": "pot", "quantity": "2"}], r"lines\[0\]\.quantity: expected int64, found '2'"),
        ([None], r"required field lines\[0\] is null"),
        ([{"sku": "pot", "quantity": 1, "colour": "red"}], r"unknown field lines\[0\]\.colour"),
    ],
)
def test_a_nested_field_is_named_with_its_path(lines: Any, message: str) -> None:
    """One wrong value in a long list is found by its index."""
    with pytest.raises(PayloadError, match=f"^{message}"):
        canonical_json({"lines": lines}, LINES)


def test_a_long_value_is_cut_in_the_message() -> None:
    """A long value is shortened in the message."""
    with pytest.raises(PayloadError) as caught:
        canonical_json({"x": "9" * 1_000_000}, one(pa.int64()))
    assert len(str(caught.value)) < 120
    assert str(caught.value).endswith("999...")


def test_a_type_that_payloads_cannot_hold_is_refused() -> None:
    """An unsupported type is an error of the schema that names the field."""
    with pytest.raises(PayloadError, match="x: a payload cannot hold the type binary"):
        canonical_json({"x": b"1"}, one(pa.binary()))
