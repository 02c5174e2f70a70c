"""What checking works with: a database, the contracts, the mapping."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from event_schemas import Registry
from pipelines.ingesting.mapping import ColumnMapping
from warehouse.event_log.spool import SPOOLED
from warehouse.sql import literal

KEPT = "_kept"
"""The table that holds a chunk's documents while they are looked at."""

BROUGHT = SPOOLED[1:]
"""What rows bring of the envelope; positions are given when it is known which rows are wrong."""


@dataclass(frozen=True, slots=True)
class Told:
    """A type and a version as the file tells them, and the structure of the payload if it is a document."""

    type: str
    version: int
    structure: str


def same(told: Iterable[Told]) -> str:
    """Write the condition that a row tells one of these types and versions."""
    pairs = dict.fromkeys((t.type, t.version) for t in told)
    return "(" + " OR ".join(f"(_type = {literal(t)} AND _version = {v})" for t, v in pairs) + ")"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a worker has before it.

    Attributes:
        connection: a database for its own use; temporary tables are made in it.
        registry: the contracts.
        mapping: of the file's columns.
    """

    connection: duckdb.DuckDBPyConnection
    registry: Registry
    mapping: ColumnMapping

    def run(self, statement: str) -> None:
        """Run a statement for what it does."""
        self.connection.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Give the rows of a small result."""
        return self.connection.execute(query).fetchall()

    def by_bucket(self, relation: str, selected: Sequence[str], where: str, *, order: str = "_bucket") -> pa.Table:
        """Select rows with their buckets, which order them."""
        names = ", ".join(("_row", *BROUGHT, "_bucket", *selected))
        query = f"SELECT {names} FROM {relation} r JOIN _buckets ON _stream = stream_id WHERE {where} ORDER BY {order}"
        return _in_utc(self.connection.sql(query).to_arrow_table())


def good(table: pa.Table, wrong: dict[int, str]) -> pa.Table:
    """Take out the rows that the column ``_why`` says something of, and note it; the column goes too."""
    if table["_why"].null_count < len(table):
        told = zip(table["_row"].to_pylist(), table["_why"].to_pylist(), strict=True)
        wrong |= {row: why for row, why in told if why is not None}
        table = table.filter(pa.array(np.array(table["_why"].is_null())))
    return table.drop_columns(["_why"])


def _in_utc(table: pa.Table) -> pa.Table:
    """Name UTC as the zone of all times, in place of the connection's, which reads those that tell none."""
    schema = pa.schema([f.with_type(_utc(f.type)) for f in table.schema])
    return table if schema == table.schema else table.cast(schema)


def _utc(dtype: pa.DataType) -> pa.DataType:
    if pt.is_timestamp(dtype) and dtype.tz:
        return pa.timestamp(dtype.unit, "UTC")
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_utc(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_utc(f.type)) for f in (dtype.field(i) for i in range(dtype.num_fields))])
    return dtype
