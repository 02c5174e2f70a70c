"""The data that a rebuild reads, estimated from the manifest alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.upcaster_sql import event_relation_schema
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import duckdb_type, quote
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.replay.contributions import (
    Compiled,
    contributions,
    is_fold,
    partials,
)
from refold.warehouse.replay.history import Replay, sources_of


@dataclass(frozen=True, slots=True)
class Cost:
    """The data that a replay of some segments for one read model reads.

    Attributes:
        events: number of events of the schemas that it reads.
        bytes_read: compressed bytes of the columns that it reads.
        bytes_stored: bytes of all segments, read or not.
    """

    events: int
    bytes_read: int
    bytes_stored: int


def replay_cost(compiled: Compiled, domain: Domain, segments: Iterable[Segment]) -> Cost:
    """Estimate the data that a replay of a read model reads.

    Args:
        compiled: the read model.
        domain: contracts and upcasters.
        segments: all live segments, as the manifest lists them.
    """
    live = list(segments)
    columns = columns_read(compiled, domain)
    needed = [s for s in live if s.schema_key in columns]
    return Cost(
        events=sum(s.rows for s in needed),
        bytes_read=sum(n for s in needed for c, n in s.column_bytes.items() if s.untyped or c in columns[s.schema_key]),
        bytes_stored=sum(s.bytes for s in live),
    )


def columns_read(compiled: Compiled, domain: Domain) -> dict[SchemaKey, frozenset[str]]:
    """Return the stored columns that a read model reads of each stored schema, according to DuckDB's query plan."""
    schema_keys = sources_of(domain, compiled.model.event_types)
    with connect(threads=1) as connection:
        # The stand-in tables are empty; these optimizers would conclude from it that nothing needs to be read.
        connection.execute("SET disabled_optimizers = 'statistics_propagation,filter_pushdown,empty_result_pullup'")
        names = {
            _stand_in(connection, domain, schema_key, i): schema_key for i, schema_key in enumerate(sorted(schema_keys))
        }
        stored = {schema_key: f"(FROM {name})" for name, schema_key in names.items()}
        source = contributions(compiled, Replay(connection, domain, stored).events)
        if source is None:
            return {}
        query = f"FROM ({source})" if is_fold(compiled) else partials(compiled, f"({source})")
        row = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchone()
    assert row is not None
    found: dict[SchemaKey, frozenset[str]] = {schema_key: frozenset() for schema_key in schema_keys}
    for name, columns in _scans(json.loads(row[1])):
        if name in names:
            found[names[name]] |= columns
    return {schema_key: columns | _upcast_columns(domain, schema_key) for schema_key, columns in found.items()}


def _stand_in(connection: duckdb.DuckDBPyConnection, domain: Domain, schema_key: SchemaKey, index: int) -> str:
    name = f"_stand_in_{index}"
    schema = event_relation_schema(domain.registry.schema(*schema_key))
    typed = ", ".join(f"{quote(f.name)} {duckdb_type(f.type)}" for f in schema)
    connection.execute(f"CREATE TEMP TABLE {name} ({typed})")
    return name


def _scans(plan: list[dict[str, Any]]) -> Iterator[tuple[str, frozenset[str]]]:
    for node in plan:
        info = node.get("extra_info", {})
        if "Table" in info:
            columns = info.get("Projections", [])
            listed = [columns] if isinstance(columns, str) else columns
            yield info["Table"].rsplit(".", 1)[-1].strip('"'), frozenset(c.split(".")[0] for c in listed)
        yield from _scans(node.get("children", []))


def _upcast_columns(domain: Domain, schema_key: SchemaKey) -> frozenset[str]:
    """Return all columns of a schema that a Python or merging upcaster reads, since it gets complete events."""
    step = domain.registry.upcaster(schema_key)
    if step is None or step.form is Form.SQL:
        return frozenset()
    return frozenset(event_relation_schema(domain.registry.schema(*schema_key)).names)
