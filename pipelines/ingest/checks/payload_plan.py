"""How the payload of one schema is taken from columns, and which rows are invalid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.pipelines.ingest.checks.column import Column, FindColumn
from refold.pipelines.ingest.checks.value_rules import exact_value
from refold.warehouse.engine.sql import duckdb_type, literal, null_in_required


@dataclass(frozen=True, slots=True)
class PayloadPlan:
    """How the payload of one schema is taken from columns.

    Attributes:
        values: field to an expression of its type.
        unchanged: field to the column that has its values already, in the field's own type.
        not_null: columns among ``unchanged`` that must have a value.
        reason: an expression for why a row is invalid, NULL if it is valid.
        checks_values: whether a row can be invalid for more than a NULL in ``not_null``.
    """

    values: Mapping[str, str]
    unchanged: Mapping[str, str]
    not_null: frozenset[str]
    reason: str
    checks_values: bool


def plan_payload(
    schema: pa.Schema, find: FindColumn, columns: Mapping[str, str], *, prefix: str = "", empty_is_null: bool = False
) -> PayloadPlan:
    """Plan the payload of one schema.

    Args:
        schema: of the payload.
        find: the columns of the chunk.
        columns: field to column, where the names differ.
        prefix: of the names of columns, such as ``"payload."``.
        empty_is_null: whether an empty text stands for no value, as in CSV.

    Raises:
        UsageError: no value of a column's type can be one of the field's.
    """
    values: dict[str, str] = {}
    unchanged: dict[str, str] = {}
    nulls: dict[str, str] = {}
    checks: list[tuple[str, str]] = []
    for field in schema:
        name = prefix + columns.get(field.name, field.name)
        column = find(name)
        if column is None:
            values[field.name] = f"NULL::{duckdb_type(field.type)}"
            if not field.nullable:
                reason = f"required field {field.name} is missing: there is no column {name!r}"
                checks.append(("true", literal(reason)))
            continue
        source = _empty_as_null(column, field) if empty_is_null else column
        value, changed = exact_value(source, field, name)
        values[field.name] = value
        if value == column.sql and column.top_level:
            unchanged[field.name] = value
        if changed:
            checks.append((f"{source.sql} IS NOT NULL AND coalesce({changed}, true)", _expected(source, field)))
        for condition in null_in_required(value, field):
            reason = literal(f"required field {field.name} is null")
            if condition == f"{column.sql} IS NULL" and column.top_level:
                nulls[column.sql] = reason
            else:
                checks.append((condition, reason))
    cases = [*checks, *((f"{sql} IS NULL", reason) for sql, reason in nulls.items())]
    whens = " ".join(f"WHEN {condition} THEN {reason}" for condition, reason in cases)
    return PayloadPlan(
        values=values,
        unchanged=unchanged,
        not_null=frozenset(nulls),
        reason=f"CASE {whens} END" if whens else "NULL::VARCHAR",
        checks_values=bool(checks),
    )


def _empty_as_null(column: Column, field: pa.Field) -> Column:
    """Take an empty text for no value, except in a required text, where it may be the value."""
    if pt.is_string(column.type) and (field.nullable or not pt.is_string(field.type)):
        return Column(f"nullif({column.sql}, '')", column.type)
    return column


def _expected(column: Column, field: pa.Field) -> str:
    """Write an expression that names the field, its type and the value."""
    value = f"coalesce(left(CAST({column.sql} AS VARCHAR), 80), 'NULL')"
    return f"{literal(f'{field.name}: expected {field.type}, found ')} || {value}"
