"""SQL upcasters, compiled: bound against empty tables of their declared schemas, with the envelope's columns added."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import (
    ENVELOPE,
    ContractError,
    Registry,
    Upcaster,
)
from refold.event_schemas.names import first_double
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.determinism import check_collations, check_one_event, check_plan
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.lineage import Origin, Origins, output_origins, subquery_names
from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import (
    SqlError,
    duckdb_type,
    empty_relation,
    first_line,
    invalid_value,
    literal,
    null_in_required,
    quote,
    result_schema,
    same_value,
)
from refold.warehouse.engine.syntax_tree import rewrite

ORDINAL = pa.field("_ordinal", pa.int64(), nullable=False)
"""The place among the events that one stored event was split into; 0 for the first."""

CARRIED = (*ENVELOPE.names, ORDINAL.name)
"""The columns that every upcaster passes on; its SQL does not name them."""


def event_relation_schema(payload: pa.Schema) -> pa.Schema:
    """Return the columns of the relation ``event`` that handlers and upcasters read."""
    return pa.schema([*ENVELOPE, ORDINAL, *payload])


def target_of(step: Upcaster, registry: Registry) -> SchemaKey:
    """Return the event type and schema version that an SQL upcaster yields."""
    source = step.sources[0]
    newest = registry.newest(step.targets[0]) if step.into else None
    return newest or (source.event_type, source.schema_version + 1)


def compile_sql(step: Upcaster, registry: Registry) -> str:
    """Compile an SQL upcaster to a statement over ``event`` with exactly the target's columns.

    Raises:
        ContractError: it does not bind, lacks a column, has one too many, or yields a type whose conversion would
            change values; the message names event type, schema version and column.
    """
    event_type, version = target_of(step, registry)
    where = f"{step.name}, to {event_type} v{version}"
    try:
        check_one_event(step.sql())
        rewritten = rewrite(step.sql(), append={name: name for name in CARRIED})
        query = _over_empty_events(rewritten.text, step.sources[0].schema)
        found = result_schema(scratch(), query)
        plan = bound_plan(scratch(), query)
        check_plan(plan, tables=(), of_event=True)
        check_collations(plan)
        origins = dict(zip(found.names, output_origins(plan, "event"), strict=True))
        _check_carried(subquery_names(plan), origins)
    except (SqlError, duckdb.Error) as error:
        raise ContractError(f"{where}: {first_line(error)}") from error
    if rewritten.unordered:
        raise ContractError(
            f"{where}: the events that it makes of one event have no order, because DuckDB joins rows by hash. Unnest "
            "in the select list."
        )
    target = registry.schema(event_type, version)
    _check_columns(where, found, target)
    new = {"event_type": literal(event_type), "schema_version": f"{version}::INTEGER"}
    carried = ", ".join(f"{new[name]} AS {name}" if name in new else name for name in CARRIED)
    required: set[str | None] = {None, *(f.name for f in step.sources[0].schema if not f.nullable)}
    safe = {name for name, found in origins.items() if all(o is not None and o.column in required for o in found)}
    fields = "".join(
        f", {_field(f, found.field(f.name).type, checked=f.name not in safe, where=where)}" for f in target
    )
    return f"SELECT {carried}{fields} FROM ({rewritten.text})"


def _field(field: pa.Field, found: pa.DataType, *, checked: bool, where: str) -> str:
    """Return the expression of one field of the target; a value that it cannot have is an error of that event."""
    name, dtype = quote(field.name), duckdb_type(field.type)
    value = f"CAST({name} AS {dtype})"
    column = f"{where}, column {field.name}"
    nulls = null_in_required(name, field if checked else field.with_nullable(True))
    cases = [f"WHEN {n} THEN error({literal(f'{column}: NULL in a required field')})" for n in nulls]
    changed = []
    if found != field.type and not pt.is_null(found):  # inside a list, TRY_CAST makes NULL of what does not fit
        changed.append(f"TRY_CAST(TRY_CAST({name} AS {dtype}) AS {duckdb_type(found)}) IS DISTINCT FROM {name}")
    typed = name if found == field.type else f"TRY_CAST({name} AS {dtype})"  # such as a bare NULL
    changed += invalid_value(typed, field.type)
    if changed:
        message = f"{literal(f'{column}: the value does not fit {field.type}: ')} || left(CAST({name} AS VARCHAR), 80)"
        cases.append(f"WHEN {name} IS NOT NULL AND ({' OR '.join(changed)}) THEN error({message})")
    if cases:
        value = f"CASE {' '.join(cases)} ELSE {value} END"
    return f"{value} AS {name}"


def _over_empty_events(text: str, payload: pa.Schema) -> str:
    relation = empty_relation(event_relation_schema(payload))
    return f"WITH event AS MATERIALIZED {relation} SELECT * FROM ({text})"


def _check_carried(names: list[str], origins: Mapping[str, Origins]) -> None:
    """Check that an upcaster passes the envelope on as it is."""
    if double := first_double(name for name in names if name):
        raise SqlError(
            f"the SELECT yields two columns {double[0]!r} and {double[1]!r}, and SQL ignores case; rename one"
        )
    for name in CARRIED:
        if origins.get(name) != frozenset({Origin(name)}):
            raise SqlError(
                f"the SELECT changes `{name}`, which every event keeps: another column has its name, or an outer join "
                "hides it; rename that column"
            )


def _check_columns(where: str, found: pa.Schema, target: pa.Schema) -> None:
    given = {f.name: f.type for f in found if f.name not in CARRIED}
    for field in target:
        if field.name not in given:
            raise ContractError(
                f"{where}: column {field.name!r} is missing. The SELECT yields {list(given)}; add the column."
            )
        if not same_value(given[field.name], field.type):
            raise ContractError(
                f"{where}, column {field.name!r}: the SELECT yields {given[field.name]}, the schema says {field.type}. "
                "Cast it in the SELECT."
            )
    if extra := [name for name in given if name not in target.names]:
        raise ContractError(
            f"{where}: column {extra[0]!r} is not in the target's schema {target.names}. Exclude it from the SELECT."
        )
