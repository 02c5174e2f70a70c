"""How the payload of one schema is taken from columns, and which rows are invalid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from refold.pipelines.ingest.checks.column import Column, FindColumn, without_null_values
from refold.pipelines.ingest.checks.value_rules import value_sql
from refold.pipelines.ingest.mapping import ColumnMapping, ValueSource
from refold.warehouse.engine.sql import duckdb_type, literal, null_in_required

SourceOf = Callable[[str], ValueSource]
"""Returns where a field of the payload comes from, by its name."""


@dataclass(frozen=True, slots=True)
class PayloadPlan:
    """How the payload of one schema is taken from columns.

    Attributes:
        values: field to an expression of its type.
        unread: field to an expression for the text of a value that only ``exact_values.py`` reads.
        local: fields to the condition that the row has a time without a zone.
        unchanged: field to the column that has its values already, in the field's own type.
        not_null: columns among ``unchanged`` that must have a value.
        reason: an expression for why a row is invalid, NULL if it is valid.
        checks_values: whether a row can be invalid for more than a NULL in ``not_null``.
    """

    values: Mapping[str, str]
    unread: Mapping[str, str]
    local: Mapping[str, str]
    unchanged: Mapping[str, str]
    not_null: frozenset[str]
    reason: str
    checks_values: bool


def plan_payload(
    schema: pa.Schema, find: FindColumn, source_of: SourceOf, mapping: ColumnMapping, *, empty_is_null: bool = False
) -> PayloadPlan:
    """Plan the payload of one schema.

    Args:
        schema: of the payload.
        find: the columns of the payload.
        source_of: where each field comes from.
        mapping: how values are written.
        empty_is_null: whether an empty text stands for no value, as in CSV.

    Raises:
        UsageError: no value of a column's type can be one of the field's.
    """
    values: dict[str, str] = {}
    unread: dict[str, str] = {}
    local: dict[str, str] = {}
    unchanged: dict[str, str] = {}
    nulls: dict[str, str] = {}
    checks: list[tuple[str, str]] = []
    for field in schema:
        source = source_of(field.name)
        name = source.columns[0]
        column = find(name)
        if column is None or pt.is_null(column.type):
            values[field.name] = f"NULL::{duckdb_type(field.type)}"
            if not field.nullable:
                checks.append(("true", literal(_missing(field, name, column))))
            continue
        given = without_null_values(_empty_as_null(column, field) if empty_is_null else column, mapping)
        sql = value_sql(given, field, name, mapping, source)
        values[field.name] = sql.value
        if sql.unread:
            unread[field.name] = sql.unread
        if sql.is_local:
            local[field.name] = f"{given.sql} IS NOT NULL"
        if sql.value == column.sql and column.top_level:
            unchanged[field.name] = sql.value
        if sql.changed:
            checks.append((f"{given.sql} IS NOT NULL AND coalesce({sql.changed}, true)", _expected(given, field)))
        for condition in null_in_required(given.sql if sql.unread else sql.value, field):
            reason = literal(f"required field {field.name} is null")
            if condition == f"{column.sql} IS NULL" and column.top_level:
                nulls[column.sql] = reason
            else:
                checks.append((condition, reason))
    return PayloadPlan(
        values=values,
        unread=unread,
        local=local,
        unchanged=unchanged,
        not_null=frozenset(nulls),
        reason=_reason([*checks, *((f"{sql} IS NULL", reason) for sql, reason in nulls.items())]),
        checks_values=bool(checks),
    )


def _missing(field: pa.Field, name: str, column: Column | None) -> str:
    why = f"is missing: there is no column {name!r}" if column is None else "is null"
    return f"required field {field.name} {why}"


def _reason(cases: list[tuple[str, str]]) -> str:
    whens = " ".join(f"WHEN {condition} THEN {reason}" for condition, reason in cases)
    return f"CASE {whens} END" if whens else "NULL::VARCHAR"


def _empty_as_null(column: Column, field: pa.Field) -> Column:
    """Take an empty text for no value, except in a required text, where it may be the value."""
    if pt.is_string(column.type) and (field.nullable or not pt.is_string(field.type)):
        return Column(f"nullif({column.sql}, '')", column.type, top_level=False)
    return column


def _expected(column: Column, field: pa.Field) -> str:
    """Write an expression that names the field, its type and the value."""
    value = f"coalesce(left(CAST({column.sql} AS VARCHAR), 80), 'NULL')"
    return f"{literal(f'{field.name}: expected {field.type}, found ')} || {value}"
