"""Payloads that are typed columns: what is of the contract's types already is only moved, never computed.

The rows of each shape are gathered, sorted by bucket. Columns that need a cast, and conditions that need more than a
look at whether there are NULLs, are computed by the database over those rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from refold.event_schemas.envelope import UTC_MICROSECONDS
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.context import (
    BROUGHT,
    CheckContext,
    Found,
    Told,
    good,
)
from refold.pipelines.ingest.chunk import CHUNK, Columns
from refold.pipelines.ingest.payload_typed import TypedShape, typed_shape

_PART = "_part"
_NEEDED = ("stream_id", "_type", "_version", "occurred_at")
_MICROSECONDS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""From the year 1 to the year 9999, counted from 1970."""

_MAX_CODES = 1 << 20

Integers = np.ndarray[Any, Any]


def read_typed(desk: CheckContext, chunk: Columns, wrong: dict[int, str]) -> Found:
    """Read the events of a chunk; rows that are none are noted as wrong."""
    envelope = _envelope(desk, chunk)
    fit = np.ones(len(envelope), bool)
    if any(envelope[name].null_count for name in _NEEDED):
        why = f"(SELECT _row, {chunk.envelope['_wrong']} AS _wrong FROM {CHUNK})"
        told = desk.rows(f"SELECT _row, _wrong FROM {why} WHERE _wrong IS NOT NULL")
        wrong |= dict(told)
        fit &= ~np.isin(envelope["_row"].to_numpy(), [row for row, _ in told])
    schema_keys, number = _shapes(desk, envelope, fit, wrong)
    buckets = desk.buckets(envelope["stream_id"].combine_chunks().fill_null(""))
    found = {}
    for i, schema_key in enumerate(schema_keys):
        mine = np.flatnonzero(number == i)
        mine = mine[np.argsort(buckets[mine], kind="stable")]
        part = envelope.select(["_row", *BROUGHT]).take(pa.array(mine))
        part = part.append_column("_bucket", pa.array(buckets[mine]))
        found[schema_key] = _with_payload(desk, chunk, schema_key, part, mine, wrong)
    return found


def _with_payload(
    desk: CheckContext, chunk: Columns, schema_key: SchemaKey, part: pa.Table, picked: Integers, wrong: dict[int, str]
) -> pa.Table:
    """Add the payload to rows of one shape, and take out those that do not fit."""
    plan = _plan(desk, chunk, schema_key)
    computed = {f"_f{i}": sql for i, (name, sql) in enumerate(plan.fields.items()) if name not in plan.plain}
    names = [n for n in chunk.table.schema.names if n in plan.required or n in plan.plain.values()]
    columns = chunk.table.select(names).take(pa.array(picked))
    look = plan.look or any(columns[name].null_count for name in plan.required)
    if look or computed:
        desk.register(_PART, chunk.table.take(pa.array(picked)))
        made = desk.select(_PART, computed | ({"_why": plan.wrong} if look else {}))
    for i, name in enumerate(plan.fields):
        part = part.append_column(f"_f{i}", columns[plan.plain[name]] if name in plan.plain else made[f"_f{i}"])
    part = part.rename_columns([*part.schema.names[: -len(plan.fields) or None], *plan.fields])
    return good(part, made["_why"], wrong) if look else part


def _plan(desk: CheckContext, chunk: Columns, schema_key: SchemaKey) -> TypedShape:
    return typed_shape(
        desk.registry.schema(*schema_key),
        chunk.find,
        desk.mapping.payload_columns.get(schema_key[0], {}),
        empty_is_null=chunk.empty_is_null,
        prefix=chunk.prefix,
    )


def _envelope(desk: CheckContext, chunk: Columns) -> pa.Table:
    """Give the envelope of every row; columns that are what the envelope wants are taken as they are."""
    names = ["_row", *BROUGHT, "_type", "_version"]
    found = {"_row": chunk.table["_row"]}
    for name, column in chunk.plain.items():
        if _is_as_wanted(name, chunk.table[column]):
            found[name] = chunk.table[column]
    rest = {name: chunk.envelope[name] for name in names if name not in found}
    if rest:
        made = desk.select(CHUNK, rest)
        found |= {name: made[name] for name in rest}
    return pa.table({name: found[name] for name in names})


def _is_as_wanted(name: str, column: pa.ChunkedArray) -> bool:
    """Tell whether a column of the file is a column of the envelope without any more ado."""
    if name == "_version":
        return bool(pt.is_int32(column.type) and not column.null_count and pc.min(column).as_py() >= 1)
    if name == "occurred_at":
        if column.type != UTC_MICROSECONDS:
            return False
        edges = pc.min_max(column.cast(pa.int64()))
        first, last = edges["min"].as_py(), edges["max"].as_py()
        return first is None or bool(_MICROSECONDS[0] <= first and last <= _MICROSECONDS[1])
    if not pt.is_string(column.type) or (name == "event_id" and column.null_count):
        return False
    return bool(pc.min(pc.binary_length(column)).as_py() != 0)


def _shapes(
    desk: CheckContext, envelope: pa.Table, fit: Integers, wrong: dict[int, str]
) -> tuple[list[SchemaKey], Integers]:
    """Find which shapes there are, and tell the number of each row's; -1 for a row that is wrong."""
    types = envelope["_type"].combine_chunks().fill_null("").dictionary_encode()
    version = envelope["_version"].combine_chunks().fill_null(0).to_numpy().astype(np.int64)
    span = int(version.max(initial=0)) + 1
    code = types.indices.to_numpy().astype(np.int64) * span + version
    if len(types.dictionary) * span <= _MAX_CODES:
        present = np.flatnonzero(np.bincount(code[fit]))
    else:
        present = np.unique(code[fit])
    schema_keys: dict[SchemaKey, int] = {}
    number = np.full(len(code), -1)
    for one in present.tolist():
        schema_key, unknown = desk.schema_key(Told(types.dictionary[one // span].as_py(), one % span))
        mine = (code == one) & fit
        if unknown:
            wrong |= dict.fromkeys(envelope["_row"].to_numpy()[mine].tolist(), unknown)
        else:
            number[mine] = schema_keys.setdefault(schema_key, len(schema_keys))
    return list(schema_keys), number
