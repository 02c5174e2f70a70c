"""The data that a rebuild reads, estimated from the manifest alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from refold.event_schemas.registry import SchemaKey
from refold.event_schemas.upcasting import Form
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.upcaster_sql import event_relation_schema
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import duckdb_type, quote
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.replay.contributions import compile_model, contributions, is_fold, partials
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


class CostEstimator:
    """Estimates what replays read. One connection serves all read models of a domain, as a context manager.

    Args:
        domain: contracts, upcasters and read models.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._connection = connect(threads=1)
        # The stand-in tables are empty; these optimizers would conclude from it that nothing needs to be read.
        self._connection.execute(
            "SET disabled_optimizers = 'statistics_propagation,filter_pushdown,empty_result_pullup'"
        )
        self._names: dict[str, SchemaKey] = {}
        self._replay = Replay(
            self._connection,
            domain,
            {key: self._stand_in(key) for key in domain.registry.schema_keys},
            decrypts=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def cost(self, model: ReadModel, segments: Iterable[Segment]) -> Cost:
        """Estimate the data that a replay of a read model reads.

        Args:
            model: the read model.
            segments: all live segments, as the manifest lists them.
        """
        live = list(segments)
        columns = self.columns_read(model)
        needed = [s for s in live if s.schema_key in columns]
        return Cost(
            events=sum(s.rows for s in needed),
            bytes_read=sum(
                n for s in needed for c, n in s.column_bytes.items() if s.untyped or c in columns[s.schema_key]
            ),
            bytes_stored=sum(s.bytes for s in live),
        )

    def columns_read(self, model: ReadModel) -> dict[SchemaKey, frozenset[str]]:
        """Return the stored columns that a read model reads of each stored schema, according to DuckDB's query plan."""
        compiled = compile_model(model, self._domain)
        source = contributions(compiled, self._replay.events)
        if source is None:
            return {}
        query = f"FROM ({source})" if is_fold(compiled) else partials(compiled, f"({source})")
        row = self._connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchone()
        assert row is not None
        found = {key: _upcast_columns(self._domain, key) for key in sources_of(self._domain, model.event_types)}
        for name, columns in _scans(json.loads(row[1])):
            if name in self._names:
                found[self._names[name]] |= columns
        return found

    def _stand_in(self, schema_key: SchemaKey) -> str:
        """Create an empty table for a stored schema."""
        name = f"_stand_in_{len(self._names)}"
        self._names[name] = schema_key
        schema = event_relation_schema(self._domain.registry.schema(*schema_key))
        typed = ", ".join(f"{quote(f.name)} {duckdb_type(f.type)}" for f in schema)
        self._connection.execute(f"CREATE TEMP TABLE {name} ({typed})")
        return f"(FROM {name})"


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
