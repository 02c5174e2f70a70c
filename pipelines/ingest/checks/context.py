"""What the checks of a worker share: a database, the contracts, the mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import ContractError, Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.column import select_list
from refold.pipelines.ingest.checks.envelope import NEWEST
from refold.pipelines.ingest.mapping import ColumnMapping, TypeName
from refold.warehouse.event_log.layout import bucket_sql

PART = "_part"
"""The rows of one schema in the database."""

Indices = np.ndarray[Any, Any]
"""Indices of rows in a chunk."""


@dataclass(frozen=True, slots=True)
class PayloadFields:
    """The fields of some rows.

    Attributes:
        columns: field to its values, a row each.
        reasons: why a row is invalid, NULL if it is valid.
        local: how many times without a zone they have.
    """

    columns: dict[str, pa.ChunkedArray]
    reasons: pa.ChunkedArray
    local: int = 0

    def replaced(self, rows: Indices, others: PayloadFields) -> PayloadFields:
        """Return the fields with some rows replaced."""
        columns = {name: replace_rows(column, rows, others.columns[name]) for name, column in self.columns.items()}
        return PayloadFields(columns, replace_rows(self.reasons, rows, others.reasons), self.local + others.local)


def replace_rows(column: pa.ChunkedArray, rows: Indices, others: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """Return a column with the values of some rows replaced."""
    order = np.arange(len(column))
    order[rows] = len(column) + np.arange(len(rows))
    before, after = _chunks(column), _chunks(others)
    dtype = before[0].type if before else after[0].type
    return pa.chunked_array([*before, *(c.cast(dtype) for c in after)], dtype).take(pa.array(order))


def _chunks(column: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    """Return the chunks of a column, with plain booleans in place of the database's ``arrow.bool8``."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [c.cast(pa.bool_()) if isinstance(c.type, pa.Bool8Type) else c for c in chunks]


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What the checks of a worker share.

    Attributes:
        connection: a database for its own use; relations are registered in it.
        registry: the contracts.
        mapping: of the file's columns.
        bucket_count: of the log.
    """

    connection: duckdb.DuckDBPyConnection
    registry: Registry
    mapping: ColumnMapping
    bucket_count: int

    def register(self, name: str, columns: pa.Table | Mapping[str, Any]) -> None:
        """Make a table known to the database."""
        self.connection.register(name, columns if isinstance(columns, pa.Table) else pa.table(dict(columns)))

    def select(self, relation: str, expressions: Mapping[str, str]) -> pa.Table:
        """Compute columns of a relation, row by row in its order."""
        query = f"SELECT {select_list(expressions)} FROM {relation}"
        return self.connection.sql(query).to_arrow_table().combine_chunks()

    def has_row(self, relation: str, condition: str) -> bool:
        """Check whether a row of a relation meets a condition; the first that does ends the search."""
        query = f"SELECT 1 FROM {relation} WHERE {condition} LIMIT 1"
        return bool(self.connection.sql(query).fetchall())

    def resolve(self, type_name: str, version: int) -> tuple[SchemaKey, str]:
        """Return the schema that a type and a version of the file name, and why there is none, if so."""
        named = self.mapping.types.get(type_name, TypeName(event_type=type_name))
        version = version if named.schema_version is None else named.schema_version
        newest = self.registry.newest(named.event_type) if version == NEWEST else None
        schema_key = newest or (named.event_type, version)
        try:
            self.registry.schema(*schema_key)
        except ContractError as error:
            return schema_key, str(error).split(". ")[0]
        return schema_key, ""

    def buckets(self, streams: pa.Array) -> Indices:
        """Return the bucket of each stream of a column; a stream is hashed once, not once a row."""
        encoded = streams.dictionary_encode()
        self.register("_streams", {"stream_id": encoded.dictionary})
        bucket = f"{bucket_sql(self.bucket_count)}::USMALLINT"
        by_stream = self.select("_streams", {"_bucket": bucket})["_bucket"].to_numpy()
        return np.asarray(by_stream[encoded.indices.to_numpy()])


def nullable_type(dtype: pa.DataType) -> pa.DataType:
    """Let elements and fields be NULL: they were checked, and a cast would check them again, or refuse."""
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(nullable_type(dtype.value_type)).with_nullable(True))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(nullable_type(f.type)).with_nullable(True) for f in dtype.fields])
    return dtype
