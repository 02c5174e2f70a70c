"""Payloads from JSON text to typed columns, without losing an event that does not match its contract.

DuckDB's strict ``json_transform`` parses whole vectors. An event that it rejects (an absent optional field, an unknown
field, a decimal with too many digits) goes through ``canonical_json``, which either normalizes it or names the field
that does not match.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import orjson
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import (
    ENVELOPE,
    PayloadError,
    Registry,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
)
from refold.event_schemas.payload import canonical_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.sql import (
    columns,
    duckdb_type,
    json_structure,
    literal,
    null_in_required,
    quote,
)

_EXTRA_SCALE = 6
"""Surplus digits of a decimal that are noticed; further ones are rounded."""
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class InvalidEvent:
    """An event that cannot be applied, and why.

    Attributes:
        position: its position.
        stream_id: its stream.
        event_type: its stored event type.
        schema_version: its stored schema version.
        reason: what does not match, or what failed.
        payload: its payload as JSON text.
    """

    position: int
    stream_id: str
    event_type: str
    schema_version: int
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Typed:
    """Events with typed payloads.

    Attributes:
        relations: schema to an SQL relation with the envelope, the carried columns and the payload's fields.
        invalid_events: the events that match no contract.
    """

    relations: dict[SchemaKey, str]
    invalid_events: tuple[InvalidEvent, ...]


def typed_events(
    connection: duckdb.DuckDBPyConnection, relation: str, registry: Registry, *, carry: tuple[str, ...] = ()
) -> Typed:
    """Parse a relation of commit rows (envelope and ``payload`` text) into one typed relation for each schema.

    Args:
        connection: connection on which temporary tables are created.
        relation: name of the relation, or a subquery.
        registry: the contracts.
        carry: further columns to keep.

    Returns:
        Relations that are valid as long as the connection.
    """
    schema_keys = connection.execute(
        f"SELECT DISTINCT event_type, schema_version FROM {relation} ORDER BY ALL"
    ).fetchall()
    relations: dict[SchemaKey, str] = {}
    invalid: list[InvalidEvent] = []
    for schema_key in schema_keys:
        where = f"event_type = {literal(schema_key[0])} AND schema_version = {schema_key[1]}"
        rows = f"(SELECT * FROM {relation} WHERE {where})"
        try:
            schema = registry.schema(*schema_key)
        except (UnknownEventTypeError, UnknownSchemaVersionError) as error:
            invalid += _all_invalid(connection, rows, str(error).split(". ")[0])
            continue
        relations[schema_key], rejected = _parse(connection, rows, schema, carry)
        invalid += rejected
    return Typed(relations, tuple(invalid))


def _parse(
    connection: duckdb.DuckDBPyConnection, rows: str, schema: pa.Schema, carry: tuple[str, ...]
) -> tuple[str, list[InvalidEvent]]:
    table = f"_parsed_{next(_names)}"
    connection.execute(f"CREATE TEMP TABLE {table} AS SELECT *, {_transform(schema)} AS _p FROM {rows}")
    matches = _matches(schema)
    rejected = connection.execute(f"SELECT position, payload FROM {table} WHERE NOT ({matches})").fetchall()
    relation = f"(SELECT {_typed_columns(schema, carry)} FROM {table} WHERE {matches})"
    if not rejected:
        return relation, []
    normalized, reasons = _normalize(rejected, schema)
    invalid = [
        InvalidEvent(row[0], row[1], row[2], row[3], reasons[row[0]], row[4])
        for row in connection.execute(
            f"SELECT position, stream_id, event_type, schema_version, payload FROM {table} WHERE NOT ({matches})"
        ).fetchall()
        if row[0] in reasons
    ]
    if normalized:
        connection.register(f"{table}_normalized", pa.table(normalized, schema=_NORMALIZED))
        parsed = (
            f"(SELECT e.* EXCLUDE (_p), {_transform(schema, 'n.canonical')} AS _p "
            f"FROM {table} e JOIN {table}_normalized n USING (position))"
        )
        relation = f"({relation[1:-1]} UNION ALL SELECT {_typed_columns(schema, carry)} FROM {parsed})"
    return relation, invalid


_NORMALIZED = pa.schema([("position", pa.int64()), ("canonical", pa.string())])


def _normalize(rejected: list[tuple[int, str]], schema: pa.Schema) -> tuple[dict[str, list[object]], dict[int, str]]:
    """Return rejected payloads in canonical form as a table's columns, and a reason for each that is invalid."""
    normalized: dict[str, list[object]] = {"position": [], "canonical": []}
    reasons: dict[int, str] = {}
    for position, payload in rejected:
        try:
            canonical = canonical_json(orjson.loads(payload), schema)
        except orjson.JSONDecodeError as error:
            reasons[position] = f"the payload is not JSON: {error}"
        except PayloadError as error:
            reasons[position] = str(error)
        else:
            normalized["position"].append(position)
            normalized["canonical"].append(canonical)
    return (normalized if normalized["position"] else {}), reasons


def _transform(schema: pa.Schema, payload: str = "payload") -> str:
    wide = pa.schema([f.with_type(_wide(f.type)) for f in schema])
    structure = json_structure(pa.struct(list(wide)))
    if not structure:
        empty = f"json_type({payload}) = 'OBJECT' AND len(json_keys({payload})) = 0"
        return f"CASE WHEN json_valid({payload}) AND {empty} THEN true END"
    return f"TRY(json_transform_strict({payload}, {literal(json.dumps(structure))}))"


def _wide(dtype: pa.DataType) -> pa.DataType:
    """Widen decimals, so that surplus digits are noticed and rejected, not rounded."""
    if pt.is_decimal(dtype):
        return pa.decimal128(38, min(dtype.scale + _EXTRA_SCALE, 38 - (dtype.precision - dtype.scale)))
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_wide(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_wide(f.type)) for f in (dtype.field(i) for i in range(dtype.num_fields))])
    return dtype


def _matches(schema: pa.Schema) -> str:
    conditions = ["_p IS NOT NULL"]
    for field in schema:
        value = f"_p.{quote(field.name)}"
        conditions += [f"NOT ({c})" for c in null_in_required(value, field)]
        if (wide := _wide(field.type)) != field.type:
            narrow = f"TRY_CAST({value} AS {duckdb_type(field.type)})"
            conditions.append(f"({value} IS NOT DISTINCT FROM CAST({narrow} AS {duckdb_type(wide)}))")
    return " AND ".join(f"coalesce({c}, false)" for c in conditions)


def _typed_columns(schema: pa.Schema, carry: tuple[str, ...]) -> str:
    fields = [f"CAST(_p.{quote(f.name)} AS {duckdb_type(f.type)}) AS {quote(f.name)}" for f in schema]
    return ", ".join([columns(ENVELOPE.names), *map(quote, carry), "0::BIGINT AS _ordinal", *fields])


def _all_invalid(connection: duckdb.DuckDBPyConnection, rows: str, reason: str) -> Iterator[InvalidEvent]:
    found = connection.execute(
        f"SELECT position, stream_id, event_type, schema_version, payload FROM {rows}"
    ).fetchall()
    return (InvalidEvent(row[0], row[1], row[2], row[3], reason, row[4]) for row in found)
