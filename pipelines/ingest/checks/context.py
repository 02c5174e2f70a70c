"""What checking works with: a database, the contracts, the mapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from refold.event_schemas import ContractError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.envelope_columns import NEWEST, selected
from refold.pipelines.ingest.mapping import ColumnMapping, TypeName
from refold.warehouse.engine.sql import literal
from refold.warehouse.event_log.bulk_import.spool import SPOOLED

BROUGHT = SPOOLED[1:]
"""What rows bring of the envelope; positions are given when it is known which rows are wrong."""

Found = dict[SchemaKey, pa.Table]
"""Shape to its events: ``_row``, ``_bucket``, what rows bring of the envelope, and the payload; sorted by bucket."""


@dataclass(frozen=True, slots=True)
class Told:
    """A type and a version as the file tells them, and the structure of the payload if it is a document."""

    type: str
    version: int
    structure: str = ""


def same(told: Iterable[Told]) -> str:
    """Write the condition that a row tells one of these types and versions."""
    pairs = dict.fromkeys((t.type, t.version) for t in told)
    return "(" + " OR ".join(f"(_type = {literal(t)} AND _version = {v})" for t, v in pairs) + ")"


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a worker has before it.

    Attributes:
        connection: a database for its own use; temporary tables are made in it.
        registry: the contracts.
        mapping: of the file's columns.
        bucket_count: of the log.
    """

    connection: duckdb.DuckDBPyConnection
    registry: Registry
    mapping: ColumnMapping
    bucket_count: int

    def run(self, statement: str) -> None:
        """Run a statement for what it does."""
        self.connection.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Give the rows of a small result."""
        return self.connection.execute(query).fetchall()

    def register(self, name: str, columns: pa.Table | Mapping[str, Any]) -> None:
        """Make a table known to the database."""
        self.connection.register(name, columns if isinstance(columns, pa.Table) else pa.table(dict(columns)))

    def select(self, relation: str, expressions: Mapping[str, str]) -> pa.Table:
        """Compute columns of a relation, row by row in its order."""
        return self.query(f"SELECT {selected(expressions)} FROM {relation}").combine_chunks()

    def query(self, query: str) -> pa.Table:
        """Give a result as a table."""
        return self.connection.sql(query).to_arrow_table()

    def schema_key(self, told: Told) -> tuple[SchemaKey, str]:
        """Tell what a type and a version mean here, and why they mean nothing, if so."""
        named = self.mapping.types.get(told.type, TypeName(event_type=told.type))
        version = told.version if named.schema_version is None else named.schema_version
        newest = self.registry.newest(named.event_type) if version == NEWEST else None
        schema_key = newest or (named.event_type, version)
        try:
            self.registry.schema(*schema_key)
        except ContractError as error:
            return schema_key, str(error).split(". ")[0]
        return schema_key, ""

    def buckets(self, streams: pa.Array) -> np.ndarray[Any, Any]:
        """Tell the bucket of each stream of a column; hashed once a stream, not once a row."""
        encoded = streams.dictionary_encode()
        self.register("_streams", {"stream_id": encoded.dictionary})
        query = f"SELECT (md5_number_lower(stream_id) % {self.bucket_count})::USMALLINT AS _bucket FROM _streams"
        by_stream = self.query(query)["_bucket"].to_numpy()
        return np.asarray(by_stream[encoded.indices.to_numpy()])


def good(table: pa.Table, why: pa.ChunkedArray, wrong: dict[int, str]) -> pa.Table:
    """Take out the rows that something is wrong with, and note why."""
    if why.null_count == len(table):
        return table
    told = zip(table["_row"].to_pylist(), why.to_pylist(), strict=True)
    wrong |= {row: reason for row, reason in told if reason is not None}
    return table.filter(why.is_null())


def by_bucket(table: pa.Table) -> pa.Table:
    """Sort rows by their buckets; rows of a bucket stay in order."""
    return table.take(pa.array(np.argsort(table["_bucket"].to_numpy(), kind="stable")))
