"""Hostile values: for each type that a field may have, values at its edges and beyond, and what becomes of them.

A value is written in up to three ways: as a Python object, as JSON text, and as SQL. It either is stored, and is then
read as ``stored`` on every way out, or it is refused on every way in.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa

NOT_WRITABLE: Any = object()
"""A value cannot be written in this way, such as nanoseconds as a ``datetime``."""

REFUSED: Any = object()
"""A value is refused on every way in."""

MAX_TEXT = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hostile:
    """One value.

    Attributes:
        name: for the report of a test.
        stored: the value as it is read; ``REFUSED`` if it does not fit.
        python: the value as an object.
        json: the value as JSON text; empty if JSON has no such value.
        sql: the value as an SQL expression; empty if SQL has no such value, or another one.
        bulky: too large for logs of many events.
    """

    name: str
    stored: Any
    python: Any = NOT_WRITABLE
    json: str = ""
    sql: str = ""
    bulky: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether it does not fit its field."""
        return self.stored is REFUSED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FieldType:
    """A type that a field may have.

    Attributes:
        name: a part of event types' names.
        annotation: in Python.
        arrow: in Arrow.
        sql: in DuckDB.
        plain: a value that nobody doubts, which is stored as it is.
        values: hostile ones.
    """

    name: str
    annotation: Any
    arrow: pa.DataType
    sql: str
    plain: Hostile
    values: tuple[Hostile, ...] = field(repr=False)


def fits(name: str, stored: Any, **written: Any) -> Hostile:
    """Return a value that is stored; as a Python object it is what is read, unless given otherwise."""
    return Hostile(name=name, stored=stored, **({"python": stored} | written))


def refused(name: str, **written: Any) -> Hostile:
    """Return a value that does not fit."""
    return Hostile(name=name, stored=REFUSED, **written)


def _integer(name: str, arrow: pa.DataType, sql: str) -> FieldType:
    signed = name.startswith("int")
    bits = arrow.bit_width - 1 if signed else arrow.bit_width
    highest, lowest = 2**bits - 1, -(2**bits) if signed else 0

    def exact(number: int) -> Hostile:
        return fits(str(number), number, json=str(number), sql=f"{number}::{sql}")

    return FieldType(
        name=name,
        annotation=int,
        arrow=arrow,
        sql=sql,
        plain=exact(7),
        values=(
            exact(0),
            exact(highest),
            exact(lowest),
            refused("max_plus_1", python=highest + 1, json=str(highest + 1), sql=f"{highest + 1}::DECIMAL(38,0)"),
            refused("min_minus_1", python=lowest - 1, json=str(lowest - 1), sql=f"{lowest - 1}::DECIMAL(38,0)"),
            refused("true", python=True, json="true"),
            refused("whole_float", python=1.0, json="1.0"),
            refused("exponent", json="1e2"),
            refused("text", python="1", json='"1"'),
            refused("other_digits", python="\u0661", json='"\u0661"'),
            refused("huge", python=10**400, json="1" + "0" * 400),
            refused("nan", python=float("nan"), json="NaN"),
            refused("object", python={}, json="{}"),
        ),
    )


def _float(number: float, json: str) -> Hostile:
    return fits(json, number, json=json, sql=f"CAST('{number!r}' AS DOUBLE)")


FLOAT = FieldType(
    name="float64",
    annotation=float,
    arrow=pa.float64(),
    sql="DOUBLE",
    plain=_float(0.1, "0.1"),
    values=(
        _float(-0.0, "-0.0"),
        _float(5e-324, "5e-324"),
        _float(0.000001, "1e-6"),
        _float(0.00001234, "1.234E-05"),
        _float(1e15, "1000000000000000.0"),
        _float(1.2345678901234568e17, "123456789012345680.0"),
        _float(1e300, "1e300"),
        _float(1.7976931348623157e308, "1.7976931348623157e308"),
        _float(0.30000000000000004, "0.30000000000000004"),
        fits("integer", 3.0, python=3, json="3"),
        fits("2_to_53", 2.0**53, python=2**53, json=str(2**53)),
        refused("2_to_53_plus_1", python=2**53 + 1, json=str(2**53 + 1), sql=f"{2**53 + 1}::BIGINT"),
        refused("nan", python=float("nan"), json="NaN", sql="'NaN'::DOUBLE"),
        refused("infinity", python=float("inf"), json="Infinity", sql="'Infinity'::DOUBLE"),
        refused("minus_infinity", python=float("-inf"), json="-Infinity", sql="'-Infinity'::DOUBLE"),
        refused("too_large", json="1e400"),
        refused("true", python=True, json="true"),
        refused("text", python="1.5", json='"1.5"'),
        refused("nan_text", python="NaN", json='"NaN"'),
    ),
)

BOOL = FieldType(
    name="bool",
    annotation=bool,
    arrow=pa.bool_(),
    sql="BOOLEAN",
    plain=fits("true", True, json="true", sql="true"),
    values=(
        fits("false", False, json="false", sql="false"),
        refused("one", python=1, json="1"),
        refused("text", python="true", json='"true"'),
        refused("yes", python="yes", json='"yes"'),
        refused("list", python=[], json="[]"),
    ),
)


def _decimal(text: str, **written: Any) -> Hostile:
    return fits(text, Decimal(text), **({"json": f'"{text}"', "sql": f"{text}::DECIMAL(18,2)"} | written))


MONEY = FieldType(
    name="money",
    annotation=Decimal,
    arrow=pa.decimal128(18, 2),
    sql="DECIMAL(18,2)",
    plain=_decimal("5.00"),
    values=(
        _decimal("0.00"),
        _decimal("-0.01"),
        _decimal("9999999999999999.99"),
        _decimal("-9999999999999999.99"),
        fits("minus_zero", Decimal("0.00"), python=Decimal("-0.0"), json='"-0.00"'),
        fits("fewer_digits", Decimal("2.50"), python=Decimal("2.5"), json='"2.5"', sql="2.5::DECIMAL(18,1)"),
        fits("more_zeros", Decimal("2.50"), python=Decimal("2.50000000000"), json='"2.50000000000"'),
        fits("exponent", Decimal("1000.00"), python="1e3", json='"1e3"'),
        fits("plus", Decimal("1.00"), python="+1", json='"+1"'),
        fits("number", Decimal("0.10"), python=0.1, json="0.1"),
        fits("integer", Decimal("3.00"), python=3, json="3", sql="3"),
        fits("17_digits", Decimal("123456789012345.67"), json="123456789012345.67"),
        refused("17_digits_as_float", python=123456789012345.67),
        refused("nan", python=Decimal("NaN"), json='"NaN"'),
        refused("signalling_nan", python=Decimal("sNaN"), json='"sNaN"'),
        refused("infinity", python=Decimal("Infinity"), json='"Infinity"'),
        refused("float_nan", python=float("nan"), json="NaN"),
        refused("one_digit_too_many", python=Decimal("1.005"), json='"1.005"'),
        refused("a_digit_far_out", python=Decimal("1.00000000001"), json='"1.00000000001"'),
        refused("a_tiny_digit", python=Decimal("1e-30"), json='"0.' + "0" * 29 + '1"'),
        refused("a_digit_as_number", python=0.125, json="0.125"),
        refused("max_plus", python=Decimal("10000000000000000"), json='"10000000000000000"', sql="1e16::DECIMAL(38,2)"),
        refused("1e300", python=Decimal("1e300"), json='"1e300"'),
        refused("1e300_as_number", python=1e300, json="1e300"),
        refused("underscore", python="1_0", json='"1_0"'),
        refused("spaces", python=" 1 ", json='" 1 "'),
        refused("other_digits", python="\u0661", json='"\u0661"'),
        refused("comma", python="1,5", json='"1,5"'),
        refused("empty", python="", json='""'),
        refused("hexadecimal", python="0x10", json='"0x10"'),
        refused("true", python=True, json="true"),
    ),
)

_LONG = "9" * 38

LARGE = FieldType(
    name="decimal38",
    annotation=Decimal,
    arrow=pa.decimal128(38, 0),
    sql="DECIMAL(38,0)",
    plain=fits("1", Decimal(1), json='"1"', sql="1::DECIMAL(38,0)"),
    values=(
        fits("max", Decimal(_LONG), json=f'"{_LONG}"', sql=f"{_LONG}::DECIMAL(38,0)"),
        fits("min", Decimal(f"-{_LONG}"), json=f'"-{_LONG}"', sql=f"-{_LONG}::DECIMAL(38,0)"),
        fits("number", Decimal(12345678901234567890123), json="12345678901234567890123"),
        refused("max_plus_1", python=Decimal(10**38), json=f'"{10**38}"'),
        refused("half", python=Decimal("0.5"), json='"0.5"'),
    ),
)

FRACTION = FieldType(
    name="decimal38_38",
    annotation=Decimal,
    arrow=pa.decimal128(38, 38),
    sql="DECIMAL(38,38)",
    plain=fits("half", Decimal("0.5" + "0" * 37), python=Decimal("0.5"), json='"0.5"'),
    values=(
        fits("max", Decimal(f"0.{_LONG}"), json=f'"0.{_LONG}"', sql=f"0.{_LONG}::DECIMAL(38,38)"),
        fits("tiny", Decimal("1e-38"), json='"1e-38"'),
        refused("one", python=1, json='"1"'),
        refused("too_tiny", python=Decimal("1e-39"), json='"1e-39"'),
    ),
)


def _text(name: str, text: str, json: str, **more: Any) -> Hostile:
    return fits(name, text, json=json, **more)


TEXT = FieldType(
    name="text",
    annotation=str,
    arrow=pa.string(),
    sql="VARCHAR",
    plain=_text("cup", "cup", '"cup"', sql="'cup'"),
    values=(
        _text("empty", "", '""', sql="''"),
        _text("null_word", "null", '"null"', sql="'null'"),
        _text("nul", "a\0b", '"a\\u0000b"', sql="'a' || chr(0) || 'b'"),
        _text("controls", "\x01\x1f\x7f\n\r\t", '"\\u0001\\u001f\x7f\\n\\r\\t"'),
        _text("bom", "\ufeffa", '"\ufeffa"', sql="'\ufeffa'"),
        _text("combining", "e\u0301", '"e\u0301"', sql="'e\u0301'"),
        _text("composed", "\u00e9", '"\\u00e9"', sql="'\u00e9'"),
        _text("beyond_the_plane", "\U0001f600", '"\\ud83d\\ude00"', sql="'\U0001f600'"),
        _text("quotes", "'\"\\/", '"\'\\"\\\\\\/"'),
        _text("spaces", " a ", '" a "', sql="' a '"),
        _text("separators", "\u2028\u2029\u200f", '"\u2028\u2029\u200f"'),
        _text("long", "x" * MAX_TEXT, f'"{"x" * MAX_TEXT}"', sql=f"repeat('x', {MAX_TEXT})", bulky=True),
        refused("lone_surrogate", python="\ud800", json='"\\ud800"'),
        refused("lone_low_surrogate", python="a\udc00", json='"a\\udc00"'),
        refused("number", python=1, json="1"),
        refused("true", python=True, json="true"),
        refused("bytes", python=b"a"),
        refused("object", python={"a": 1}, json='{"a":1}'),
    ),
)


def _at(text: str, moment: datetime, **written: Any) -> Hostile:
    return fits(text, moment, **({"json": f'"{text}"', "sql": f"'{text}'::TIMESTAMPTZ"} | written))


_WEST, _EAST = timezone(timedelta(hours=-5)), timezone(timedelta(hours=14))
_MOMENT = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)

TIME = FieldType(
    name="time",
    annotation=datetime,
    arrow=pa.timestamp("us", tz="UTC"),
    sql="TIMESTAMPTZ",
    plain=_at("2026-01-05T09:00:00.000000Z", datetime(2026, 1, 5, 9, tzinfo=UTC)),
    values=(
        _at("0001-01-01T00:00:00.000000Z", datetime(1, 1, 1, tzinfo=UTC)),
        _at("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        _at("1969-12-31T23:59:59.999999Z", datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        _at("2026-03-29T02:30:00+01:00", _MOMENT, python=_MOMENT.astimezone(timezone(timedelta(hours=1)))),
        _at("2026-03-28T20:30:00-05:00", _MOMENT, python=_MOMENT.astimezone(_WEST)),
        _at("2026-03-29T01:30Z", _MOMENT),
        _at("2026-03-29 01:30:00+00", _MOMENT),
        _at("2026-03-29t01:30:00z", _MOMENT, sql=""),
        _at("2026-03-29T01:30:00.5Z", _MOMENT.replace(microsecond=500_000)),
        _at("2026-03-29T01:30:00.123456000Z", _MOMENT.replace(microsecond=123_456), sql=""),
        refused("7_digits", python="2026-03-29T01:30:00.1234567Z", json='"2026-03-29T01:30:00.1234567Z"'),
        refused("nanoseconds_1969", python="1969-12-31T23:59:59.999999999Z", json='"1969-12-31T23:59:59.999999999Z"'),
        refused("max_in_the_west", python=datetime.max.replace(tzinfo=_WEST), json='"9999-12-31T23:59:59-05:00"'),
        refused("min_in_the_east", python=datetime.min.replace(tzinfo=_EAST), json='"0001-01-01T00:00:00+14:00"'),
        refused("no_zone", python=datetime(2026, 3, 29, 1, 30), json='"2026-03-29T01:30:00"'),
        refused("leap_second", python="2016-12-31T23:59:60Z", json='"2016-12-31T23:59:60Z"'),
        refused("24_hours", python="2026-03-29T24:00:00Z", json='"2026-03-29T24:00:00Z"'),
        refused("no_time", python="2026-03-29", json='"2026-03-29"'),
        refused("date", python=date(2026, 3, 29)),
        refused("week_date", python="2026-W13-7T01:30:00Z", json='"2026-W13-7T01:30:00Z"'),
        refused("basic", python="20260329T013000Z", json='"20260329T013000Z"'),
        refused("no_day", python="2026-02-29T00:00:00Z", json='"2026-02-29T00:00:00Z"'),
        refused(
            "year_0", python="0000-01-01T00:00:00Z", json='"0000-01-01T00:00:00Z"', sql="'0001-01-01 (BC)'::TIMESTAMPTZ"
        ),
        refused(
            "year_10000",
            python="10000-01-01T00:00:00Z",
            json='"10000-01-01T00:00:00Z"',
            sql="'10000-01-01'::TIMESTAMPTZ",
        ),
        refused("infinity", python="infinity", json='"infinity"', sql="'infinity'::TIMESTAMPTZ"),
        refused("epoch", python="epoch", json='"epoch"'),
        refused("named_zone", python="2026-03-29 01:30:00 UTC", json='"2026-03-29 01:30:00 UTC"'),
        refused("number", python=1774747800, json="1774747800"),
        refused("spaces", python=" 2026-03-29T01:30:00Z ", json='" 2026-03-29T01:30:00Z "'),
        refused("other_digits", python="\u0662026-03-29T01:30:00Z", json='"\u0662026-03-29T01:30:00Z"'),
    ),
)

WALL = FieldType(
    name="time_without_zone",
    annotation=datetime,
    arrow=pa.timestamp("us"),
    sql="TIMESTAMP",
    plain=_at(
        "2026-01-05T09:00:00.000000Z", datetime(2026, 1, 5, 9, tzinfo=UTC), sql="'2026-01-05 09:00:00'::TIMESTAMP"
    ),
    values=(
        _at("0001-01-01T00:00:00.000000Z", datetime(1, 1, 1, tzinfo=UTC), sql="'0001-01-01 00:00:00'::TIMESTAMP"),
        _at("2026-03-29T02:30:00+01:00", _MOMENT, sql=""),
        refused("no_zone", python=datetime(2026, 3, 29, 1, 30), json='"2026-03-29T01:30:00"'),
        refused("infinity", python="infinity", json='"infinity"', sql="'infinity'::TIMESTAMP"),
        refused("year_10000", json='"10000-01-01T00:00:00Z"', sql="'10000-01-01'::TIMESTAMP"),
    ),
)


def _day(day: date) -> Hostile:
    return fits(str(day), day, json=f'"{day}"', sql=f"DATE '{day}'")


DATE = FieldType(
    name="date",
    annotation=date,
    arrow=pa.date32(),
    sql="DATE",
    plain=_day(date(2026, 1, 5)),
    values=(
        _day(date.min),
        _day(date.max),
        _day(date(2024, 2, 29)),
        refused("time", python=datetime(2026, 1, 5, tzinfo=UTC), json='"2026-01-05T00:00:00Z"'),
        refused("no_day", python="2026-02-29", json='"2026-02-29"'),
        refused("week_date", python="2026-W01-1", json='"2026-W01-1"'),
        refused("basic", python="20260105", json='"20260105"'),
        refused("short", python="2026-1-5", json='"2026-1-5"'),
        refused("year_0", python="0000-01-01", json='"0000-01-01"', sql="DATE '0001-01-01 (BC)'"),
        refused("year_10000", python="10000-01-01", json='"10000-01-01"', sql="DATE '10000-01-01'"),
        refused("infinity", python="infinity", json='"infinity"', sql="'infinity'::DATE"),
        refused("epoch", python="epoch", json='"epoch"'),
        refused("number", python=20458, json="20458"),
        refused("spaces", python=" 2026-01-05", json='" 2026-01-05"'),
    ),
)

_ID = uuid.UUID("12345678-1234-5678-1234-567812345678")

UUID = FieldType(
    name="uuid",
    annotation=uuid.UUID,
    arrow=pa.uuid(),
    sql="UUID",
    plain=fits(str(_ID), _ID, json=f'"{_ID}"', sql=f"'{_ID}'::UUID"),
    values=(
        fits("zero", uuid.UUID(int=0), json=f'"{uuid.UUID(int=0)}"', sql=f"'{uuid.UUID(int=0)}'::UUID"),
        fits("max", uuid.UUID(int=2**128 - 1), json=f'"{uuid.UUID(int=2**128 - 1)}"'),
        fits("upper_case", uuid.UUID(int=2**128 - 1), json=f'"{str(uuid.UUID(int=2**128 - 1)).upper()}"'),
        refused("braces", python=f"{{{_ID}}}", json=f'"{{{_ID}}}"'),
        refused("urn", python=_ID.urn, json=f'"{_ID.urn}"'),
        refused("hex", python=_ID.hex, json=f'"{_ID.hex}"'),
        refused(
            "other_hyphens", python="1234-56781234567812345678-12345678", json='"1234-56781234567812345678-12345678"'
        ),
        refused(
            "underscore", python="12345678-1234-5678-1234-56781234_678", json='"12345678-1234-5678-1234-56781234_678"'
        ),
        refused("empty", python="", json='""'),
        refused("integer", python=_ID.int, json="1"),
    ),
)

TYPES: tuple[FieldType, ...] = (
    *(
        _integer(name, getattr(pa, name)(), sql)
        for name, sql in {
            "int8": "TINYINT",
            "int16": "SMALLINT",
            "int32": "INTEGER",
            "int64": "BIGINT",
            "uint8": "UTINYINT",
            "uint16": "USMALLINT",
            "uint32": "UINTEGER",
            "uint64": "UBIGINT",
        }.items()
    ),
    FLOAT,
    BOOL,
    MONEY,
    LARGE,
    FRACTION,
    TEXT,
    TIME,
    WALL,
    DATE,
    UUID,
)
