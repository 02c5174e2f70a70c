"""One rule per type: when a value of a file is exactly a value of a contract's field.

A rule does not depend on the format of the file. Every value reaches it as an SQL expression of an Arrow type: a column
of a Parquet file has its own type, a cell of a CSV file is text, and a JSON value has the type that ``extracted_as``
returns. ``exact_value`` writes the cast to the type of the field, and the condition under which the cast would round,
cut or reinterpret the value.

DuckDB extracts JSON values leniently: it rounds 12.7 for an integer and accepts a number for a text. So a JSON value is
extracted only if ``extracts_exactly`` holds for its JSON type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.checks.column import Column
from refold.warehouse.engine.sql import duckdb_type, literal, same_value

VALID_TIME = "{} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"
"""DuckDB has times outside these years, and infinity; Python's ``datetime``, for one, has not."""

_VALID_DATE = "{} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
_INTEGER = frozenset({"BIGINT", "UBIGINT"})
_NUMBER = _INTEGER | {"DOUBLE"}
_TEXT = frozenset({"VARCHAR"})

_EXTRA_SCALE = 6
"""Surplus decimal places that are read, so that they are noticed and not rounded away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRule:
    """Which values are exactly values of a type.

    Attributes:
        matches: whether a type is one of those that the rule is for.
        json_types: what ``json_structure`` calls the JSON values that are extracted without a change.
        text_pattern: what a text must match, beyond that it can be cast; empty: anything.
        valid: the condition that a value of the type must meet, ``{}`` being the value; empty: none.
        json_as_text: whether a JSON value is extracted as text, since the extraction to the type itself is lenient.
    """

    matches: Callable[[pa.DataType], bool]
    json_types: frozenset[str]
    text_pattern: str = ""
    valid: str = ""
    json_as_text: bool = False


_RULES = (
    TypeRule(matches=pt.is_string, json_types=_TEXT),
    TypeRule(matches=pt.is_boolean, json_types=frozenset({"BOOLEAN"})),
    TypeRule(matches=pt.is_integer, json_types=_INTEGER, text_pattern=r"\s*[+-]?\d+\s*"),
    TypeRule(matches=pt.is_decimal, json_types=_NUMBER | _TEXT),
    TypeRule(matches=pt.is_floating, json_types=_NUMBER, valid="isfinite({})"),
    TypeRule(
        matches=pt.is_date, json_types=_TEXT, text_pattern=r"\d{4}-\d\d-\d\d", valid=_VALID_DATE, json_as_text=True
    ),
    TypeRule(matches=pt.is_timestamp, json_types=_TEXT, valid=VALID_TIME),
    TypeRule(matches=lambda dtype: dtype == pa.uuid(), json_types=_TEXT),
)


def rule_of(dtype: pa.DataType) -> TypeRule:
    """Return the rule of a scalar type."""
    return next(rule for rule in _RULES if rule.matches(dtype))


def exact_value(column: Column, field: pa.Field, name: str) -> tuple[str, str]:
    """Write the value of a column in the type of a field, and the condition under which it is another value.

    Args:
        column: where the value is.
        field: of the contract.
        name: of the column in the file, for errors.

    Returns:
        Two expressions. The second is empty if no value can change; it holds only for values other than NULL.

    Raises:
        UsageError: no value of the column's type can be one of the field's.
    """
    source, wanted = column.type, field.type
    if source == wanted:
        return column.sql, _invalid(column.sql, wanted)
    _check_castable(column, field, name)
    value = f"TRY_CAST({column.sql} AS {duckdb_type(wanted)})"
    if pt.is_string(source):
        changed = [f"{value} IS NULL", _inexact_text(column.sql, value, wanted), _invalid(value, wanted)]
    elif same_value(source, wanted) or (pt.is_timestamp(source) and pt.is_timestamp(wanted)):
        changed = [f"{value} IS NULL", _invalid(value, wanted)]
    else:
        changed = [f"CAST({value} AS {duckdb_type(source)}) IS DISTINCT FROM {column.sql}"]
    return value, " OR ".join(filter(None, changed))


def extracted_as(dtype: pa.DataType) -> pa.DataType:
    """Return the type to extract a JSON value as: wider than the field's where that shows a value that does not fit."""
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(extracted_as(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(extracted_as(f.type)) for f in dtype.fields])
    if pt.is_decimal(dtype):
        return _with_extra_scale(dtype)
    return pa.string() if rule_of(dtype).json_as_text else dtype


def extracts_exactly(structure: Any, dtype: pa.DataType, *, drop_unknown: bool) -> bool:
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
    return isinstance(structure, str) and structure in rule_of(dtype).json_types


def is_date_or_time(dtype: pa.DataType) -> bool:
    """Check whether a value of the type is a date, or a point in time."""
    return bool(pt.is_date(dtype) or pt.is_timestamp(dtype))


def _invalid(value: str, dtype: pa.DataType) -> str:
    """Write the condition that a value has the type, but is none that every reader can hold."""
    valid = "" if pt.is_nested(dtype) else rule_of(dtype).valid
    return f"NOT ({valid.format(value)})" if valid else ""


def _inexact_text(text: str, value: str, dtype: pa.DataType) -> str:
    if pt.is_decimal(dtype):
        wide = duckdb_type(_with_extra_scale(dtype))
        return f"TRY_CAST({text} AS {wide}) IS DISTINCT FROM CAST({value} AS {wide})"
    pattern = rule_of(dtype).text_pattern
    return f"NOT regexp_full_match({text}, {literal(pattern)})" if pattern else ""


def _with_extra_scale(dtype: pa.DataType) -> pa.DataType:
    return pa.decimal128(38, min(dtype.scale + _EXTRA_SCALE, 38 - (dtype.precision - dtype.scale)))


def _check_castable(column: Column, field: pa.Field, name: str) -> None:
    source, wanted = column.type, field.type
    if pt.is_string(source):
        if pt.is_nested(wanted):
            raise UsageError(
                f"The field {field.name} is {wanted}, but its column {name!r} holds text. Put the whole payload into "
                "one column of JSON text, and name that column as payload in the mapping."
            )
        return
    unlike = any(is_kind(source) != is_kind(wanted) for is_kind in (pt.is_boolean, is_date_or_time))
    if (unlike and not pt.is_string(wanted)) or pt.is_nested(source) != pt.is_nested(wanted) or pt.is_binary(source):
        raise UsageError(
            f"The field {field.name} is {wanted}, but its column {name!r} is {source}; no value of one type is a value "
            "of the other. Name another column under [payload_columns], or convert the file."
        )
