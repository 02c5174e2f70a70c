"""SQL upcasters, compiled: bound against empty tables of their declared schemas, the envelope carried along."""

from __future__ import annotations

import duckdb
import pyarrow as pa

from refold.event_schemas import (
    ENVELOPE,
    ContractError,
    Registry,
    Upcaster,
)
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.determinism import check_one_event
from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import (
    SqlError,
    duckdb_type,
    empty_relation,
    first_line,
    literal,
    quote,
    result_schema,
    same_value,
)
from refold.warehouse.engine.syntax_tree import rewrite

ORDINAL = pa.field("_ordinal", pa.int64(), nullable=False)
"""Place among the events that one stored event was split into; 0 for the first."""

CARRIED = (*ENVELOPE.names, ORDINAL.name)
"""The columns that every upcaster hands on unseen."""


def event_relation_schema(payload: pa.Schema) -> pa.Schema:
    """Give the columns of the relation ``event`` that handlers and upcasters read."""
    return pa.schema([*ENVELOPE, ORDINAL, *payload])


def target_of(step: Upcaster, registry: Registry) -> SchemaKey:
    """Name the one shape that an SQL upcaster yields."""
    source = step.sources[0]
    newest = registry.newest(step.targets[0]) if step.into else None
    return newest or (source.event_type, source.schema_version + 1)


def compile_sql(step: Upcaster, registry: Registry) -> str:
    """Turn an SQL upcaster into a statement over ``event`` with exactly the target's columns.

    Raises:
        ContractError: it does not bind, misses a column, adds one, or yields a type that would change values; the
            message names event type, schema version and column.
    """
    where = f"{step.name}, to {' v'.join(map(str, target_of(step, registry)))}"
    try:
        check_one_event(step.sql())
        rewritten = rewrite(step.sql(), append={name: name for name in CARRIED})
        found = _bind(rewritten.text, step.sources[0].schema)
    except (SqlError, duckdb.Error) as error:
        raise ContractError(f"{where}: {first_line(error)}") from error
    if rewritten.unordered:
        raise ContractError(
            f"{where}: the events that it makes of one have no order, since DuckDB joins rows by hash. Unnest in the "
            "select list."
        )
    target = registry.schema(*target_of(step, registry))
    _check_columns(where, found, target)
    schema_key = target_of(step, registry)
    told = {"event_type": literal(schema_key[0]), "schema_version": f"{schema_key[1]}::INTEGER"}
    carried = ", ".join(f"{told[name]} AS {name}" if name in told else name for name in CARRIED)
    source_required = {f.name for f in step.sources[0].schema if not f.nullable}
    safe = rewritten.nonnull | {o for o, source in rewritten.plain.items() if source in source_required}
    fields = "".join(f", {_field(f, checked=f.name not in safe, where=where)}" for f in target)
    return f"SELECT {carried}{fields} FROM ({rewritten.text})"


def _field(field: pa.Field, *, checked: bool, where: str) -> str:
    """Write one field of the target; a NULL in a required one is an error of that event, not a silent gap."""
    name = quote(field.name)
    value = f"CAST({name} AS {duckdb_type(field.type)})"
    if checked and not field.nullable:
        message = literal(f"{where}: required column {field.name} is NULL")
        value = f"CASE WHEN {name} IS NULL THEN error({message}) ELSE {value} END"
    return f"{value} AS {name}"


def _bind(text: str, payload: pa.Schema) -> pa.Schema:
    relation = empty_relation(event_relation_schema(payload))
    return result_schema(scratch(), f"WITH event AS {relation} SELECT * FROM ({text})")


def _check_columns(where: str, found: pa.Schema, target: pa.Schema) -> None:
    given = {f.name: f.type for f in found if f.name not in CARRIED}
    for field in target:
        if field.name not in given:
            raise ContractError(f"{where}: column {field.name!r} is missing; the SELECT yields {list(given)}.")
        if not same_value(given[field.name], field.type):
            raise ContractError(
                f"{where}, column {field.name!r}: the SELECT yields {given[field.name]}, the schema says {field.type}. "
                "Cast it in the SELECT."
            )
    if extra := [name for name in given if name not in target.names]:
        raise ContractError(f"{where}: column {extra[0]!r} is not in the target's schema {target.names}.")
