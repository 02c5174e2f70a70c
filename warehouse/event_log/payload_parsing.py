"""Payloads from JSON text to typed columns, without losing an event or changing a value.

DuckDB parses whole vectors, but reads more than the one rule of ``event_schemas.payload``: it takes text for numbers,
rounds, and keeps one of two equal keys. So a row that DuckDB parsed counts only if its typed columns have exactly the
stored text again. Every other row (an absent optional field, another program's spelling, a value that does not fit)
goes through the rule in Python, which either reads it or names the field that does not match.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from refold.event_schemas import (
    ENVELOPE,
    PayloadError,
    Registry,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
)
from refold.event_schemas.payload import from_json, read_stored
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.engine.sql import (
    columns,
    invalid_value,
    json_structure,
    literal,
    null_in_required,
    quote,
)
from refold.warehouse.event_log.canonical_sql import canonical_text

_FIRST_TIME = int(datetime.min.replace(tzinfo=UTC).timestamp()) * 1_000_000
_LAST_TIME = int(datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()) * 1_000_000 + 999_999
"""The times that Python's ``datetime`` has, in microseconds since 1970."""

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


def typed_events(connection: duckdb.DuckDBPyConnection, relation: str, registry: Registry) -> Typed:
    """Parse a relation of commit rows (envelope and ``payload`` text) into one typed relation for each schema.

    Args:
        connection: connection on which temporary tables are created.
        relation: name of the relation, or a subquery.
        registry: the contracts.

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
        if reason := undeclared(registry, schema_key):
            found = connection.sql(f"SELECT {columns(_OF_INVALID)} FROM {rows}").to_arrow_table()
            invalid += invalid_rows(found, [reason] * len(found))
            continue
        relations[schema_key], rejected = _parse(connection, rows, registry.stored_schema(*schema_key))
        invalid += rejected
    return Typed(relations, tuple(invalid))


def _parse(connection: duckdb.DuckDBPyConnection, rows: str, schema: pa.Schema) -> tuple[str, list[InvalidEvent]]:
    table = f"_parsed_{next(_names)}"
    parsed = f"SELECT *, {_transform(schema)} AS _p FROM {rows}"
    connection.execute(f"CREATE TEMP TABLE {table} AS SELECT *, {_is_exact(schema)} AS _exact FROM ({parsed})")
    fields = [f"_p.{quote(f.name)} AS {quote(f.name)}" for f in schema]
    relation = f"(SELECT {columns(ENVELOPE.names)}, 0::BIGINT AS _ordinal{_listed(fields)} FROM {table} WHERE _exact)"
    others = connection.sql(f"SELECT {columns(ENVELOPE.names)}, payload FROM {table} WHERE NOT _exact").to_arrow_table()
    if not len(others):
        return relation, []
    read, invalid = typed_rows(connection, others, schema)
    return f"(FROM {relation} UNION ALL FROM {read})", invalid


def _listed(parts: list[str]) -> str:
    return "".join(f", {part}" for part in parts)


def _transform(schema: pa.Schema) -> str:
    if not len(schema):
        return "NULL"
    structure = json.dumps(json_structure(pa.struct(list(schema))))
    return f"TRY(json_transform_strict(payload, {literal(structure)}))"


def _is_exact(schema: pa.Schema) -> str:
    """Return the condition that the parsed struct ``_p`` has the stored text, and the event a valid time."""
    conditions = [f"payload = {canonical_text(schema, '_p') if len(schema) else literal('{}')}"]
    conditions.append(f"epoch_us(occurred_at) BETWEEN {_FIRST_TIME} AND {_LAST_TIME}")
    for field in schema:
        value = f"_p.{quote(field.name)}"
        wrong = null_in_required(value, field) + invalid_value(value, field.type)  # years after 9999 have a text, too
        conditions += [f"({condition}) IS NOT TRUE" for condition in wrong]
    return f"coalesce({' AND '.join(conditions)}, false)"


def typed_rows(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, schema: pa.Schema
) -> tuple[str, list[InvalidEvent]]:
    """Parse commit rows of one schema in Python, one by one.

    Args:
        connection: connection on which an Arrow table is registered.
        rows: the envelope and ``payload`` text.
        schema: the contract of their payloads.

    Returns:
        A relation with the envelope, ``_ordinal`` and the payload's fields; and the events that do not match.
    """
    reasons: dict[int, str] = {}
    payloads = []
    occurred = rows["occurred_at"].cast(pa.int64()).to_pylist()
    for index, (text, moment) in enumerate(zip(rows["payload"].to_pylist(), occurred, strict=True)):
        try:
            if not _FIRST_TIME <= moment <= _LAST_TIME:
                raise PayloadError("occurred_at is outside the years 1 to 9999")
            payloads.append(from_json(read_stored(text, schema), schema))
        except PayloadError as error:
            reasons[index] = str(error)
    valid = rows.take(pa.array([i for i in range(len(rows)) if i not in reasons], pa.int64())) if reasons else rows
    table = valid.select(ENVELOPE.names).append_column("_ordinal", pa.array([0] * len(valid), pa.int64()))
    for field in schema:
        table = table.append_column(field.name, array_of([p[field.name] for p in payloads], field.type))
    name = f"_read_{next(_names)}"
    connection.register(name, table)
    return name, invalid_rows(rows.take(pa.array(list(reasons), pa.int64())), reasons.values())


_OF_INVALID = ("position", "stream_id", "event_type", "schema_version", "payload")


def invalid_rows(rows: pa.Table, reasons: Iterable[str]) -> list[InvalidEvent]:
    """Return commit rows as invalid events, each with its reason."""
    return [
        InvalidEvent(**row, reason=reason)
        for row, reason in zip(rows.select(_OF_INVALID).to_pylist(), reasons, strict=True)
    ]


def undeclared(registry: Registry, schema_key: SchemaKey) -> str:
    """Return why no event of a schema can be read; empty if the contracts have the schema."""
    try:
        registry.schema(*schema_key)
    except (UnknownEventTypeError, UnknownSchemaVersionError) as error:
        return str(error).split(". ")[0]
    return ""
