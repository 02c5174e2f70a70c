"""A few events from JSON text to typed columns, in Python.

For an increment of a few commits, planning SQL for each schema would take longer than everything else.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from refold.event_schemas import Registry
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.event_log.payload_parsing import (
    InvalidEvent,
    Typed,
    invalid_rows,
    typed_rows,
    undeclared,
)

FEW = 256
"""Number of events up to which this is faster than SQL."""


def typed_few_events(connection: duckdb.DuckDBPyConnection, rows: pa.Table, registry: Registry) -> Typed:
    """Parse commit rows into one typed relation for each schema, as ``payload_parsing.typed_events`` does.

    Args:
        connection: connection on which Arrow tables are registered.
        rows: the envelope and ``payload`` text.
        registry: the contracts.
    """
    by_schema_key: dict[SchemaKey, list[int]] = {}
    stored = zip(rows["event_type"].to_pylist(), rows["schema_version"].to_pylist(), strict=True)
    for index, schema_key in enumerate(stored):
        by_schema_key.setdefault(schema_key, []).append(index)
    relations: dict[SchemaKey, str] = {}
    invalid: list[InvalidEvent] = []
    for schema_key, indices in sorted(by_schema_key.items()):
        own = rows.take(pa.array(indices, pa.int64()))
        if reason := undeclared(registry, schema_key):
            invalid += invalid_rows(own, [reason] * len(own))
            continue
        relations[schema_key], found = typed_rows(connection, own, registry.stored_schema(*schema_key))
        invalid += found
    return Typed(relations, tuple(invalid))
