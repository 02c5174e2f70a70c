"""One rule per type: when the database may turn a value of a file into a value of a contract's field.

A rule does not depend on the format of the file. Every value reaches it as an SQL expression of an Arrow type: a column
of a Parquet file has its own type, a cell of a CSV file and a text of a JSON document are text, and a JSON number has
the type that ``extracted_as`` returns.

The database converts a text only if it matches a pattern under which the result is provably the same as that of
``exact_values.py``, which reads all other texts. It converts a typed value, such as a DOUBLE, if the cast changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.checks.column import Column
from refold.pipelines.ingest.checks.times import FAST_DATE, FAST_TIME
from refold.pipelines.ingest.mapping import UNITS, ColumnMapping, ValueSource
from refold.warehouse.engine.sql import duckdb_type, invalid_value, literal, same_value

VALID_TIME = "{} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"
"""DuckDB has times outside these years, and infinity; Python's ``datetime``, for one, has not."""

_VALID_DATE = "{} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
_INTEGER = frozenset({"BIGINT", "UBIGINT"})
_NUMBER = _INTEGER | {"DOUBLE"}

_MAX_PRECISION = 38
_HOUR = "INTERVAL 26 HOUR"
"""No zone changes its clocks twice within so many hours, and none by more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRule:
    """Which values the database may convert to a type.

    Attributes:
        matches: whether a type is one of those that the rule is for.
        json_types: what ``json_structure`` calls the JSON values, other than text, that are extracted without a change.
        text_pattern: what a text must match, ``{scale}`` being that of a decimal; empty: it is taken as it is.
        valid: the condition that a value of the type must meet, ``{}`` being the value; empty: none.
        is_number: whether the signs of numbers in the mapping concern it.
    """

    matches: Callable[[pa.DataType], bool]
    json_types: frozenset[str] = frozenset()
    text_pattern: str = ""
    valid: str = ""
    is_number: bool = False


_RULES = (
    TypeRule(matches=pt.is_string),
    TypeRule(matches=pt.is_boolean, json_types=frozenset({"BOOLEAN"}), text_pattern="true|false"),
    TypeRule(matches=pt.is_integer, json_types=_INTEGER, text_pattern=r"[+-]?\d{1,20}", is_number=True),
    TypeRule(
        matches=pt.is_decimal,
        json_types=_NUMBER,
        text_pattern=r"[+-]?\d{{1,38}}(\.\d{{0,{scale}}})?",
        is_number=True,
    ),
    TypeRule(
        matches=pt.is_floating,
        json_types=_NUMBER,
        text_pattern=r"[+-]?(\d{1,15}|\d+\.\d+([eE][+-]?\d{1,3})?)",
        valid="isfinite({})",
        is_number=True,
    ),
    TypeRule(matches=pt.is_date, text_pattern=FAST_DATE, valid=_VALID_DATE),
    TypeRule(matches=pt.is_timestamp, text_pattern=FAST_TIME, valid=VALID_TIME),
    TypeRule(
        matches=lambda dtype: dtype == pa.uuid(), text_pattern="[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSql:
    """How a value is taken from a column.

    Attributes:
        value: an expression of the field's type; NULL if the database cannot convert the value.
        unread: an expression for the text of a value that the database does not convert; empty if it converts all.
        changed: the condition under which the value would be another one; empty if it cannot change. It holds only for
            values other than NULL.
        is_local: whether the values are times without a zone.
    """

    value: str
    unread: str = ""
    changed: str = ""
    is_local: bool = False


def rule_of(dtype: pa.DataType) -> TypeRule:
    """Return the rule of a scalar type."""
    return next(rule for rule in _RULES if rule.matches(dtype))


def value_sql(column: Column, field: pa.Field, name: str, mapping: ColumnMapping, source: ValueSource) -> ValueSql:
    """Write how the value of a column becomes one of a field.

    Args:
        column: where the value is.
        field: of the contract.
        name: of the column in the file, for errors.
        mapping: how values are written in the file.
        source: of the field.

    Raises:
        UsageError: no value of the column's type can be one of the field's.
    """
    found, wanted = column.type, field.type
    if found == wanted:
        return ValueSql(value=column.sql, changed=_invalid(column.sql, wanted))
    _check_castable(column, field, name, source)
    if pt.is_string(found):
        return _from_text(column.sql, wanted, mapping, source)
    if pt.is_timestamp(wanted) and source.unit != "iso":
        return _from_text(f"CAST({column.sql} AS VARCHAR)", wanted, mapping, source)
    if pt.is_timestamp(wanted) and wanted.tz and (pt.is_date(found) or (pt.is_timestamp(found) and not found.tz)):
        value, unread = local_time(column, mapping)
        return ValueSql(value=value, unread=unread, is_local=True)
    value = f"TRY_CAST({column.sql} AS {duckdb_type(wanted)})"
    if same_value(found, wanted):
        changed = " OR ".join(filter(None, [f"{value} IS NULL", _invalid(value, wanted)]))
        return ValueSql(value=value, changed=changed)
    return ValueSql(value=value, changed=f"CAST({value} AS {duckdb_type(found)}) IS DISTINCT FROM {column.sql}")


def fast_text(text: str, dtype: pa.DataType, mapping: ColumnMapping, source: ValueSource) -> str:
    """Write the conversion of a text to a type, NULL where only ``exact_values.py`` knows what it means."""
    rule = rule_of(dtype)
    other_signs = rule.is_number and (mapping.decimal != "." or mapping.thousands)
    if source.unit != "iso" and not source.format:
        return _fast_number_since_1970(text, source.unit)
    if source.format or other_signs:
        return f"NULL::{duckdb_type(dtype)}"
    pattern = rule.text_pattern.format(scale=dtype.scale) if pt.is_decimal(dtype) else rule.text_pattern
    value = f"TRY_CAST({text} AS {duckdb_type(dtype)})"
    if pt.is_timestamp(dtype) and not dtype.tz:  # a text that becomes a TIMESTAMP at once loses its offset
        value = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
    valid = f" AND {rule.valid.format(value)}" if pt.is_floating(dtype) else ""  # the others are by their pattern
    return f"CASE WHEN regexp_full_match({text}, {literal(pattern)}){valid} THEN {value} END"


def _fast_number_since_1970(text: str, unit: str) -> str:
    number = f"TRY_CAST({text} AS BIGINT)"
    if unit == "ns":
        microseconds, exact = f"{number} // 1000", f" AND {number} % 1000 = 0"
    else:
        microseconds, exact = f"{number} * {10 ** (6 - UNITS[unit])}", ""
    value = f"TRY(make_timestamptz({microseconds}))"
    return (
        rf"CASE WHEN regexp_full_match({text}, '-?\d{{1,18}}'){exact} AND {VALID_TIME.format(value)} THEN {value} END"
    )


def local_time(column: Column, mapping: ColumnMapping) -> tuple[str, str]:
    """Write the UTC time of a local one, NULL near a change of the clocks; and the text of one that is left NULL."""
    local = f"CAST({column.sql} AS TIMESTAMP)"
    zone = literal(mapping.zone)
    utc = f"({local} AT TIME ZONE {zone})"
    clocks = " AND ".join(f"({utc} {sign} {_HOUR}) AT TIME ZONE {zone} = {local} {sign} {_HOUR}" for sign in ("+", "-"))
    bounds = VALID_TIME.format(utc)
    value = f"CASE WHEN isfinite({local}) AND {bounds} AND {clocks} THEN {utc} END"
    return value, f"CASE WHEN {value} IS NULL THEN CAST({column.sql} AS VARCHAR) END"


def extracted_as(dtype: pa.DataType, *, text: bool = False) -> pa.DataType:
    """Return the type to extract a JSON value as: wider than the field's where that shows a value that does not fit.

    Args:
        dtype: of the field.
        text: whether the value is a text.
    """
    if text:
        return pa.string()
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(extracted_as(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(extracted_as(f.type)) for f in dtype.fields])
    return _widest(dtype) if pt.is_decimal(dtype) else dtype


def extracts_exactly(structure: object, dtype: pa.DataType, *, drop_unknown: bool) -> bool:
    """Check whether a JSON value can be extracted without a look at the value itself.

    Args:
        structure: what ``json_structure`` returns for the value, parsed.
        dtype: of the field.
        drop_unknown: whether keys that a struct does not have are ignored.
    """
    if pt.is_struct(dtype):
        types = {f.name: f.type for f in dtype.fields}
        return (
            isinstance(structure, dict)
            and (drop_unknown or types.keys() >= structure.keys())
            and all(
                structure.get(name, "NULL") == "NULL"
                or extracts_exactly(structure[name], inner, drop_unknown=drop_unknown)
                for name, inner in types.items()
            )
        )
    if pt.is_list(dtype):
        return isinstance(structure, list) and (
            structure == ["NULL"] or extracts_exactly(structure[0], dtype.value_type, drop_unknown=drop_unknown)
        )
    if pt.is_string(dtype):
        return structure == "VARCHAR"
    return isinstance(structure, str) and structure in rule_of(dtype).json_types


def is_date_or_time(dtype: pa.DataType) -> bool:
    """Check whether a value of the type is a date, or a point in time."""
    return bool(pt.is_date(dtype) or pt.is_timestamp(dtype))


def _from_text(text: str, wanted: pa.DataType, mapping: ColumnMapping, source: ValueSource) -> ValueSql:
    value = fast_text(text, wanted, mapping, source)
    return ValueSql(value=value, unread=f"CASE WHEN {value} IS NULL THEN {text} END")


def _invalid(value: str, dtype: pa.DataType) -> str:
    """Write the condition that a value has the type, but is none that every reader can hold."""
    if pt.is_nested(dtype):
        return " OR ".join(f"({condition}) IS TRUE" for condition in invalid_value(value, dtype))
    valid = rule_of(dtype).valid
    return f"NOT ({valid.format(value)})" if valid else ""


def _widest(dtype: pa.DataType) -> pa.DataType:
    """Return the decimal type with as many digits after the sign as fit, so that surplus ones are noticed."""
    return pa.decimal128(_MAX_PRECISION, _MAX_PRECISION - (dtype.precision - dtype.scale))


def surplus_digits(document: str, fields: Iterable[pa.Field]) -> str:
    """Write the condition that a JSON number may have more digits than ``extracted_as`` keeps; "false" if none can.

    Args:
        document: an expression of JSON text.
        fields: those that are not extracted as text.
    """
    scales = [_widest(dtype).scale for field in fields for dtype in _scalars(field.type) if pt.is_decimal(dtype)]
    if not scales:
        return "false"
    patterns = (rf"\.\d{{{min(scales) + 1}}}", r"e-\d+\s*[,}\]]", r"E-\d+\s*[,}\]]")  # fast with a letter first
    return " OR ".join(f"regexp_matches({document}, {literal(pattern)})" for pattern in patterns)


def _scalars(dtype: pa.DataType) -> list[pa.DataType]:
    if pt.is_list(dtype):
        return _scalars(dtype.value_type)
    if pt.is_struct(dtype):
        return [scalar for field in dtype.fields for scalar in _scalars(field.type)]
    return [dtype]


def _check_castable(column: Column, field: pa.Field, name: str, source: ValueSource) -> None:
    found, wanted = column.type, field.type
    if pt.is_string(found):
        if pt.is_nested(wanted):
            raise UsageError(
                f"The field {field.name} is {wanted}, but its column {name!r} holds text. Put the whole payload into "
                "one column of JSON text, and name that column as payload in the mapping."
            )
        return
    if pt.is_timestamp(wanted) and source.unit != "iso" and not pt.is_nested(found) and not pt.is_boolean(found):
        return
    unlike = any(is_kind(found) != is_kind(wanted) for is_kind in (pt.is_boolean, is_date_or_time))
    if (unlike and not pt.is_string(wanted)) or pt.is_nested(found) != pt.is_nested(wanted) or pt.is_binary(found):
        raise UsageError(
            f"The field {field.name} is {wanted}, but its column {name!r} is {found}; no value of one type is a value "
            "of the other. Name another column under [payload_columns], or convert the file."
        )
