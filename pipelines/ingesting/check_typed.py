"""Payloads that are typed columns: one query casts, checks and sorts the events of all shapes of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from event_schemas.registry import Shape
from pipelines.ingesting.chunk import Chunk
from pipelines.ingesting.desk import BROUGHT, Desk, Told, good, same
from pipelines.ingesting.payload_typed import TypedShape, typed_shape

_ENVELOPE = ("_row", *BROUGHT, "_bucket")
_BUCKETS = 1 << 16
"""More than a log can have."""


def read_typed(
    desk: Desk, chunk: Chunk, shapes: Mapping[Shape, Sequence[Told]], wrong: dict[int, str]
) -> dict[Shape, pa.Table]:
    """Read the events of a chunk, sorted by bucket; rows that do not fit are noted as wrong.

    A chunk is scanned and sorted once, however many shapes it has: columns of other shapes are NULL and cost little.
    """
    if not shapes:
        return {}
    plans = [_plan(desk, chunk, shape) for shape in shapes]
    columns: dict[str, str] = {}
    fields = [_fields(plan, i, columns, alone=len(plans) == 1) for i, plan in enumerate(plans)]
    numbers = " ".join(f"WHEN {same(told)} THEN {i}" for i, told in enumerate(shapes.values()))
    why = " ".join(f"WHEN {i} THEN {plan.wrong}" for i, plan in enumerate(plans))
    table = desk.by_bucket(
        f"(SELECT *, (CASE {numbers} END)::UINTEGER AS _shape FROM {chunk.rows})",
        ["_shape", *(f"{sql} AS {name}" for sql, name in columns.items()), f"CASE _shape {why} END AS _why"],
        "_wrong IS NULL AND _shape IS NOT NULL" if wrong else "true",
        order=f"_shape * {_BUCKETS} + _bucket",
    )
    edges = np.searchsorted(table["_shape"].to_numpy(), np.arange(len(plans) + 1)).tolist()
    found = {}
    for i, shape in enumerate(shapes):
        part = table.slice(edges[i], edges[i + 1] - edges[i]).select([*_ENVELOPE, *fields[i].values(), "_why"])
        found[shape] = good(part.rename_columns([*_ENVELOPE, *fields[i], "_why"]), wrong)
    return found


def _plan(desk: Desk, chunk: Chunk, shape: Shape) -> TypedShape:
    return typed_shape(
        desk.registry.schema(*shape),
        chunk.find,
        desk.mapping.payload_columns.get(shape[0], {}),
        empty_is_null=chunk.empty_is_null,
        prefix="" if chunk.flat else f"{desk.mapping.payload}.",
    )


def _fields(plan: TypedShape, number: int, columns: dict[str, str], *, alone: bool) -> dict[str, str]:
    """Name the column of the query that holds each field: shapes share what is a mere column of the file."""
    found = {}
    for name, sql in plan.fields.items():
        told = sql if alone or sql in plan.plain else f"CASE WHEN _shape = {number} THEN {sql} END"
        found[name] = columns.setdefault(told, f"_f{len(columns)}")
    return found
