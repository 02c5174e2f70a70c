"""One chunk of foreign rows becomes typed events, sorted by bucket, and the rows that could not.

Every worker has a checker of its own, with a database in memory. A chunk is looked at in three steps: the envelope of
every row; which shapes there are; then a query a shape, which casts, checks and sorts. Rows with JSON documents are
kept in a table meanwhile; typed columns are read straight from where they are, as often as there are shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from event_schemas import ContractError, PayloadError, RefoldError, Registry
from event_schemas.registry import Shape
from pipelines.ingesting.chunk import Chunk
from pipelines.ingesting.envelope import NEWEST
from pipelines.ingesting.mapping import FLAT, ColumnMapping, TypeName
from pipelines.ingesting.payload_json import JsonShape
from pipelines.ingesting.payload_typed import typed_shape
from warehouse.event_log.spool import SPOOLED, Partitioned
from warehouse.sql import columns, literal

_JUDGED = 100_000
"""Structures remembered; more of them means that keys are data."""

_BROUGHT = SPOOLED[1:]
"""What a query a shape yields of the envelope; positions are given when all shapes are through."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a chunk.

    Attributes:
        parts: shape to its events; positions count from 1 within the chunk.
        events: how many events.
        wrong: row to why it could not become an event.
    """

    parts: dict[Shape, Partitioned]
    events: int
    wrong: dict[int, str]


@dataclass(frozen=True, slots=True)
class _Told:
    """A type and a version as the file tells them, and the structure of the payload if it is a document."""

    type: str
    version: int
    structure: str


class Checker:
    """Checks chunks, one after the other.

    Args:
        connection: a database for its own use.
        registry: the contracts.
        mapping: of the file's columns.
        bucket_count: of the log.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, registry: Registry, mapping: ColumnMapping, *, bucket_count: int
    ) -> None:
        self._connection = connection
        self._registry = registry
        self._mapping = mapping
        self._bucket_count = bucket_count
        self._judged: dict[tuple[Shape, str], int | None] = {}

    def check(self, chunk: Chunk, explain: Callable[[int], str]) -> Checked:
        """Make events of a chunk.

        Args:
            chunk: as :func:`~pipelines.ingesting.chunk.load_chunk` made it on the same connection.
            explain: why a row that cannot be read is no event; empty for a blank one.
        """
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE _keys AS {chunk.keys}")
        wrong = dict(chunk.broken)
        for row, reason in self._rows("SELECT _row, _wrong FROM _keys WHERE _wrong IS NOT NULL"):
            wrong[row] = reason or explain(row)
        shapes, unknown = self._shapes()
        for told, reason in unknown:
            query = f"SELECT _row FROM _keys WHERE _wrong IS NULL AND {_same([told])}"
            wrong |= {row: reason for (row,) in self._rows(query)}
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE _buckets AS SELECT stream_id AS _stream, "
            f"(md5_number_lower(stream_id) % {self._bucket_count})::USMALLINT AS _bucket "
            "FROM (SELECT DISTINCT stream_id FROM _keys WHERE _wrong IS NULL)"
        )
        read = self._documents if chunk.documents else self._typed
        tables = {shape: read(chunk, shape, told, wrong) for shape, told in shapes.items()}
        self._connection.execute("DROP TABLE _keys; DROP TABLE _buckets")
        return _positioned(tables, chunk.count, wrong)

    def _shapes(self) -> tuple[dict[Shape, list[_Told]], list[tuple[_Told, str]]]:
        """Find which shapes there are, and what is no shape that the domain knows."""
        found = self._rows(
            "SELECT _type, _version, _structure FROM _keys WHERE _wrong IS NULL GROUP BY ALL ORDER BY ALL"
        )
        shapes: dict[Shape, list[_Told]] = {}
        unknown = {}
        for told in (_Told(*row) for row in found):
            shape = self._shape(told)
            try:
                self._registry.schema(*shape)
            except ContractError as error:
                unknown[told.type, told.version] = (told, _without_advice(error))
            else:
                shapes.setdefault(shape, []).append(told)
        return shapes, list(unknown.values())

    def _shape(self, told: _Told) -> Shape:
        named = self._mapping.types.get(told.type, TypeName(event_type=told.type))
        version = told.version if named.schema_version is None else named.schema_version
        newest = self._registry.newest(named.event_type) if version == NEWEST else None
        return newest or (named.event_type, version)

    def _typed(self, chunk: Chunk, shape: Shape, told: list[_Told], wrong: dict[int, str]) -> pa.Table:
        """Read the events of one shape from typed columns."""
        schema = self._registry.schema(*shape)
        plan = typed_shape(
            schema,
            chunk.find,
            self._mapping.payload_columns.get(shape[0], {}),
            empty_is_null=chunk.empty_is_null,
            prefix="" if chunk.flat else f"{self._mapping.payload}.",
        )
        conditions = [_same(told), *(["_wrong IS NULL"] if wrong else [])]
        if chunk.type_column:
            conditions.append(f"{chunk.type_column} = {literal(told[0].type)}")
        table = self._sorted(chunk.rows, [*plan.fields, f"{plan.wrong} AS _why"], " AND ".join(conditions))
        return _good(table, _reasons(table), wrong)

    def _documents(self, chunk: Chunk, shape: Shape, told: list[_Told], wrong: dict[int, str]) -> pa.Table:
        """Read the events of one shape from JSON documents."""
        plan = self._json_shape(shape)
        judged = {t.structure: self._judge(plan, shape, t.structure) for t in told}
        self._connection.register(
            "_judged", pa.table({"_structure": list(judged), "_bits": pa.array(judged.values(), pa.int64())})
        )
        relation = f"""(
            SELECT k.*, j._bits, CASE
                WHEN j._bits IS NULL THEN NULL
                WHEN k._inner IS NOT NULL THEN {plan.transform("k._inner")}
                ELSE {plan.transform("k._document", chunk.prefix)}
            END AS _p
            FROM _keys k JOIN _judged j USING (_structure)
        )"""
        fits = f"(_bits IS NOT NULL AND {plan.fits('_p', '_bits')})::TINYINT AS _fits"
        table = self._sorted(relation, [*plan.fields("_p"), fits], f"_wrong IS NULL AND {_same(told)}")
        doubtful = table["_row"].to_numpy()[table["_fits"].to_numpy() == 0]
        if not len(doubtful):
            return table.drop_columns(["_fits"])
        mended = self._mended(chunk, plan, doubtful, wrong)
        whole = pa.concat_tables([table.filter(pa.array(table["_fits"].to_numpy() == 1)), mended])
        whole = whole.take(pa.array(np.argsort(whole["_bucket"].to_numpy(), kind="stable")))
        return whole.drop_columns(["_fits"])

    def _mended(self, chunk: Chunk, plan: JsonShape, rows: np.ndarray[Any, Any], wrong: dict[int, str]) -> pa.Table:
        """Read documents one by one, by way of canonical JSON."""
        self._connection.register("_doubtful", pa.table({"_row": rows}))
        canonical: dict[int, str] = {}
        for row, document, inner in self._rows("SELECT _row, _document, _inner FROM _keys JOIN _doubtful USING (_row)"):
            try:
                canonical[row] = plan.mend(document or "{}", chunk.prefix) if inner is None else plan.mend(inner)
            except PayloadError as error:
                wrong[row] = str(error)
        self._connection.register(
            "_mended",
            pa.table(
                {"_row": pa.array(canonical, pa.int64()), "_canonical": pa.array(canonical.values(), pa.string())}
            ),
        )
        own = JsonShape(schema=plan.schema, keys={}, drop_unknown=False, zone=plan.zone)
        relation = f"(SELECT k.*, {own.transform('_canonical')} AS _p FROM _keys k JOIN _mended USING (_row))"
        fits = f"({own.fits('_p', None)})::TINYINT AS _fits"
        table = self._sorted(relation, [*own.fields("_p"), fits], "true")
        return _good(table, dict.fromkeys(_rows_where(table, "_fits", 0), "the payload does not fit"), wrong)

    def _json_shape(self, shape: Shape) -> JsonShape:
        mapping = self._mapping
        return JsonShape(
            schema=self._registry.schema(*shape),
            keys=mapping.payload_columns.get(shape[0], {}),
            drop_unknown=mapping.unknown_fields == "drop" or mapping.payload == FLAT,
            zone=mapping.zone,
        )

    def _judge(self, plan: JsonShape, shape: Shape, structure: str) -> int | None:
        key = (shape, structure)
        if key not in self._judged:
            if len(self._judged) >= _JUDGED:
                self._judged.clear()
            self._judged[key] = plan.judge(json.loads(structure)) if structure else None
        return self._judged[key]

    def _sorted(self, relation: str, selected: Sequence[str], where: str) -> pa.Table:
        names = columns(["_row", *_BROUGHT])
        query = (
            f"SELECT {names}, _bucket, {', '.join(selected)} FROM {relation} r JOIN _buckets ON _stream = stream_id "
            f"WHERE {where} ORDER BY _bucket"
        )
        return _in_utc(self._connection.sql(query).to_arrow_table())

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()


def _same(told: Iterable[_Told]) -> str:
    pairs = dict.fromkeys((t.type, t.version) for t in told)
    return "(" + " OR ".join(f"(_type = {literal(t)} AND _version = {v})" for t, v in pairs) + ")"


def _without_advice(error: Exception) -> str:
    return str(error).split(". ")[0]


def _reasons(table: pa.Table) -> dict[int, str]:
    if table["_why"].null_count == len(table):
        return {}
    rows, reasons = table["_row"].to_pylist(), table["_why"].to_pylist()
    return {row: reason for row, reason in zip(rows, reasons, strict=True) if reason is not None}


def _rows_where(table: pa.Table, column: str, value: int) -> list[int]:
    return list(table["_row"].to_numpy()[table[column].to_numpy() == value].tolist())


def _good(table: pa.Table, reasons: dict[int, str], wrong: dict[int, str]) -> pa.Table:
    """Take out the rows that are wrong, and note why."""
    wrong |= reasons
    if reasons:
        table = table.filter(pa.array(~np.isin(table["_row"].to_numpy(), list(reasons))))
    return table.drop_columns(["_why"]) if "_why" in table.schema.names else table


def _positioned(tables: dict[Shape, pa.Table], count: int, wrong: dict[int, str]) -> Checked:
    gone = np.sort(np.fromiter(wrong, np.int64, len(wrong)))
    parts = {}
    for shape, table in tables.items():
        row = table["_row"].to_numpy()
        rows = table.drop_columns(["_row", "_bucket"]).add_column(
            0, "position", pa.array(row + 1 - np.searchsorted(gone, row), pa.int64())
        )
        parts[shape] = Partitioned(rows, table["_bucket"].to_numpy())
    events = sum(len(p.buckets) for p in parts.values())
    if events + len(wrong) != count:
        raise RefoldError(
            f"Of {count} rows, {events} became events and {len(wrong)} were found wrong: a mistake in refold."
        )
    return Checked(parts, events, {row: reason for row, reason in wrong.items() if reason})


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
