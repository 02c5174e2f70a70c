"""A few events from JSON text to typed columns, in Python.

For an increment of a few commits, planning SQL for each schema would take longer than everything else. Only payloads in
canonical form, as refold's own writers store them, are parsed here. If a schema has any other payload, all of its
payloads are parsed in SQL, so that the result does not depend on the number of events.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from refold.event_schemas import ENVELOPE, PayloadError, Registry
from refold.event_schemas.payload import canonical_json, from_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.event_log.payload_parsing import Typed, typed_events

FEW = 256
"""Number of events up to which this is faster than SQL."""

_names = itertools.count()


def typed_few_events(connection: duckdb.DuckDBPyConnection, rows: pa.Table, registry: Registry) -> Typed:
    """Parse commit rows into one typed relation for each schema, as ``payload_parsing.typed_events`` does.

    Args:
        connection: connection on which Arrow tables are registered.
        rows: the envelope and ``payload`` text.
        registry: the contracts.
    """
    by_schema_key: dict[SchemaKey, list[int]] = {}
    for index, schema_key in enumerate(zip(_list(rows, "event_type"), _list(rows, "schema_version"), strict=True)):
        by_schema_key.setdefault(schema_key, []).append(index)
    relations: dict[SchemaKey, str] = {}
    others: list[int] = []
    for schema_key, indices in sorted(by_schema_key.items()):
        own = rows.take(pa.array(indices, pa.int64()))
        payloads = (
            _canonical(_list(own, "payload"), registry.schema(*schema_key)) if registry.knows(schema_key) else None
        )
        if payloads is None:
            others += indices
        else:
            relations[schema_key] = _register(connection, own, payloads, registry.schema(*schema_key))
    if not others:
        return Typed(relations, ())
    name = f"_few_{next(_names)}"
    connection.register(name, rows.take(pa.array(others, pa.int64())))
    parsed = typed_events(connection, name, registry)
    return Typed({**relations, **parsed.relations}, parsed.invalid_events)


def _list(rows: pa.Table, name: str) -> list[Any]:
    return rows[name].to_pylist()  # type: ignore[no-any-return]


def _canonical(texts: Sequence[str], schema: pa.Schema) -> list[dict[str, Any]] | None:
    """Parse payloads; return None if one of them is not canonical."""
    payloads = []
    for text in texts:
        try:
            value = orjson.loads(text)
            if canonical_json(value, schema) != text:
                return None
        except (orjson.JSONDecodeError, PayloadError):
            return None
        payloads.append(from_json(value, schema))
    return payloads


def _register(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, payloads: Sequence[dict[str, Any]], schema: pa.Schema
) -> str:
    table = rows.select(ENVELOPE.names).append_column("_ordinal", pa.array([0] * len(payloads), pa.int64()))
    for field in schema:
        table = table.append_column(field.name, array_of([p[field.name] for p in payloads], field.type))
    name = f"_few_{next(_names)}"
    connection.register(name, table)
    return name
