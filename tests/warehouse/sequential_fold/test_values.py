"""The sequential fold's own table of values: what a field accepts, and how SQL gets it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest

from refold.warehouse.sequential_fold.values import MisfitError, as_sql, parse, payload_of

POINT = pa.struct([pa.field("x", pa.int8(), nullable=False), pa.field("y", pa.string())])


def typed(text: str, dtype: pa.DataType, *, nullable: bool = False) -> Any:
    """Parse one field out of JSON."""
    return payload_of(parse(f'{{"f": {text}}}'), pa.schema([pa.field("f", dtype, nullable=nullable)]))["f"]


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [
        ('"2.5"', pa.decimal128(9, 2), Decimal("2.50")),
        ("2.5", pa.decimal128(9, 2), Decimal("2.50")),
        ("1e2", pa.decimal128(9, 2), Decimal("100.00")),
        (
            '"12345678901234567890123456789012345678"',
            pa.decimal128(38, 0),
            Decimal(12345678901234567890123456789012345678),
        ),
        ("0.1", pa.float64(), 0.1),
        ("3", pa.float64(), 3.0),
        ("18446744073709551615", pa.uint64(), 2**64 - 1),
        ('"2024-02-29"', pa.date32(), date(2024, 2, 29)),
        ('"2024-01-01T02:00:00+02:00"', pa.timestamp("us", tz="UTC"), datetime(2024, 1, 1, tzinfo=UTC)),
        ('"00000000-0000-0000-0000-000000000007"', pa.uuid(), UUID(int=7)),
        ('[{"x": 1, "y": null}, {"x": 2}]', pa.list_(POINT), [{"x": 1, "y": None}, {"x": 2, "y": None}]),
    ],
)
def test_what_fits_becomes_a_value_and_sql_gets_the_same(text: str, dtype: pa.DataType, value: Any) -> None:
    """A number in JSON never becomes a binary float on its way to a decimal."""
    found = typed(text, dtype)
    assert (found, repr(found)) == (value, repr(value))
    expression, parameters = as_sql(found, dtype)
    with closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert connection.execute(f"SELECT {expression}", parameters).fetchall() == [(value,)]


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ('"NaN"', pa.decimal128(9, 2)),
        ('"1e999999999"', pa.decimal128(9, 2)),
        ('"2.505"', pa.decimal128(9, 2)),
        ('"10000000"', pa.decimal128(9, 2)),
        ("128", pa.int8()),
        ("-1", pa.uint8()),
        ("1.0", pa.int64()),
        ("true", pa.int64()),
        ("1", pa.bool_()),
        ("1e999", pa.float64()),
        ('"\\ud800"', pa.string()),
        ("1", pa.string()),
        ('"2024-02-30"', pa.date32()),
        ('"2024-01-01T00:00:00"', pa.timestamp("us", tz="UTC")),
        ('{"x": 1, "z": 2}', POINT),
        ('{"y": "a"}', POINT),
        ("null", pa.string()),
    ],
)
def test_what_does_not_fit_is_refused(text: str, dtype: pa.DataType) -> None:
    """Nothing is rounded, cut, or taken for something else."""
    with pytest.raises(MisfitError):
        typed(text, dtype)


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', '{"a": Infinity}', "\x00"])
def test_what_is_not_json_is_refused(text: str) -> None:
    """Python's own reader would take NaN and Infinity."""
    with pytest.raises(MisfitError, match="not JSON"):
        parse(text)
