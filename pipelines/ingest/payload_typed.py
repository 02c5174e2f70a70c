"""Payloads as typed columns: cast to the contract's types only where no value changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import UsageError
from refold.pipelines.ingest.envelope_columns import (
    DATES,
    TIMES,
    Column,
    Find,
    in_range,
)
from refold.warehouse.engine.sql import (
    duckdb_type,
    literal,
    null_in_required,
    same_value,
)

_INTEGER_TEXT = r"\s*[+-]?\d+\s*"
_DATE_TEXT = r"\d{4}-\d\d-\d\d"


@dataclass(frozen=True, slots=True)
class TypedShape:
    """How the payload of one shape is taken from columns.

    Attributes:
        fields: field to an expression of its type.
        plain: fields whose expression is a mere column of the field's very type, to that column.
        required: columns that must have a value.
        wrong: an expression for why a row does not fit, NULL if it does.
        look: whether it needs more than that ``required`` columns have values.
    """

    fields: Mapping[str, str]
    plain: Mapping[str, str]
    required: frozenset[str]
    wrong: str
    look: bool


def typed_shape(
    schema: pa.Schema, find: Find, renamed: Mapping[str, str], *, empty_is_null: bool, prefix: str = ""
) -> TypedShape:
    """Plan the payload of one shape.

    Args:
        schema: of the payload.
        find: the columns of the chunk.
        renamed: field to column, where the names differ.
        empty_is_null: whether an empty text stands for no value, as in CSV.
        prefix: of the columns' names, such as ``"payload."``.

    Raises:
        UsageError: a column has a type that can never become the field's.
    """
    fields: dict[str, str] = {}
    plain: dict[str, str] = {}
    nulls: dict[str, str] = {}
    looks: list[tuple[str, str]] = []
    for field in schema:
        name = prefix + renamed.get(field.name, field.name)
        column = find(name)
        if column is None:
            fields[field.name] = f"NULL::{duckdb_type(field.type)}"
            if not field.nullable:
                reason = f"required field {field.name} is missing: there is no column {name!r}"
                looks.append(("true", literal(reason)))
            continue
        source = _or_null(column, field, empty_is_null=empty_is_null)
        value, changed = _value(source, field, name)
        fields[field.name] = value
        if value == column.sql and column.whole:
            plain[field.name] = value
        if changed:
            looks.append((f"{source.sql} IS NOT NULL AND coalesce({changed}, true)", _found(source, field)))
        for condition in null_in_required(value, field):
            reason = literal(f"required field {field.name} is null")
            if condition == f"{column.sql} IS NULL" and column.whole:
                nulls[column.sql] = reason
            else:
                looks.append((condition, reason))
    cases = [*looks, *((f"{name} IS NULL", reason) for name, reason in nulls.items())]
    wrong = " ".join(f"WHEN {condition} THEN {reason}" for condition, reason in cases)
    return TypedShape(
        fields=fields,
        plain=plain,
        required=frozenset(nulls),
        wrong=f"CASE {wrong} END" if wrong else "NULL::VARCHAR",
        look=bool(looks),
    )


def _or_null(column: Column, field: pa.Field, *, empty_is_null: bool) -> Column:
    """Take an empty text for no value, but where an empty text may be meant."""
    if empty_is_null and pt.is_string(column.type) and (field.nullable or not pt.is_string(field.type)):
        return Column(f"nullif({column.sql}, '')", column.type)
    return column


def _found(column: Column, field: pa.Field) -> str:
    """Write an expression that tells what was expected and what was found."""
    value = f"coalesce(left(CAST({column.sql} AS VARCHAR), 80), 'NULL')"
    return f"{literal(f'{field.name}: expected {field.type}, found ')} || {value}"


def _value(column: Column, field: pa.Field, name: str) -> tuple[str, str]:
    """Write the value in the field's type, and the condition under which that would not be the same value."""
    found, wanted = column.type, field.type
    if found == wanted:
        return column.sql, _out_of_range(column.sql, wanted)
    if pt.is_string(found):
        return _from_text(column, field, name)
    _castable(column, field, name)
    value = f"TRY_CAST({column.sql} AS {duckdb_type(wanted)})"
    if same_value(found, wanted) or (pt.is_timestamp(found) and pt.is_timestamp(wanted)):
        return value, " OR ".join(filter(None, (f"{value} IS NULL", _out_of_range(value, wanted))))
    return value, f"CAST({value} AS {duckdb_type(found)}) IS DISTINCT FROM {column.sql}"


def _from_text(column: Column, field: pa.Field, name: str) -> tuple[str, str]:
    wanted = field.type
    if pt.is_nested(wanted):
        raise UsageError(
            f"The field {field.name} is {wanted}, but its column {name!r} holds text. Put the whole payload into one "
            "column of JSON text, and name that as payload in the mapping."
        )
    value = f"TRY_CAST({column.sql} AS {duckdb_type(wanted)})"
    lost = f"{value} IS NULL"
    if pt.is_integer(wanted):
        lost += f" OR NOT regexp_full_match({column.sql}, {literal(_INTEGER_TEXT)})"
    elif pt.is_decimal(wanted):
        wide = duckdb_type(pa.decimal128(38, min(wanted.scale + 6, 38 - (wanted.precision - wanted.scale))))
        lost += f" OR TRY_CAST({column.sql} AS {wide}) IS DISTINCT FROM CAST({value} AS {wide})"
    elif pt.is_date(wanted):
        lost += f" OR NOT regexp_full_match({column.sql}, {literal(_DATE_TEXT)})"
    return value, " OR ".join(filter(None, (lost, _out_of_range(value, wanted))))


def _out_of_range(value: str, dtype: pa.DataType) -> str:
    """Write the condition that a value is of the type, but not one that every reader can hold."""
    if pt.is_floating(dtype):
        return f"NOT isfinite({value})"
    if pt.is_timestamp(dtype):
        return f"NOT ({in_range(value, TIMES)})"
    return f"NOT ({in_range(value, DATES)})" if pt.is_date(dtype) else ""


def _castable(column: Column, field: pa.Field, name: str) -> None:
    """Refuse what no cast can make of each other."""
    found, wanted = column.type, field.type
    nested = pt.is_nested(found) or pt.is_nested(wanted)
    kinds = [(pt.is_boolean(found), pt.is_boolean(wanted)), (_is_time(found), _is_time(wanted))]
    impossible = any(a != b for a, b in kinds) and not pt.is_string(wanted)
    if impossible or (nested and not (pt.is_nested(found) and pt.is_nested(wanted))) or pt.is_binary(found):
        raise UsageError(
            f"The field {field.name} is {wanted}, but its column {name!r} is {found}: no value of the one is one of "
            "the other. Name another column under [payload_columns], or convert the file."
        )


def _is_time(dtype: pa.DataType) -> bool:
    return bool(pt.is_timestamp(dtype) or pt.is_date(dtype))
