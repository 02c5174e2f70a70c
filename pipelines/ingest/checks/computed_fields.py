"""The fields of rows, computed by the database; a text that it does not read is read by ``exact_values.py``.

A text is read once, however many rows have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refold.event_schemas import PayloadError
from refold.pipelines.ingest.checks.context import CheckContext, PayloadFields, replace_rows
from refold.pipelines.ingest.checks.exact_values import ExactReader
from refold.pipelines.ingest.checks.payload_plan import PayloadPlan
from refold.pipelines.ingest.mapping import ColumnMapping, ValueSource
from refold.warehouse.engine.arrow_values import array_of


@dataclass(frozen=True, slots=True)
class ReadTexts:
    """What the texts of a column mean.

    Attributes:
        rows: indices of the rows that have a text.
        values: their values, a row each; NULL if the text is no value of the field.
        reasons: why it is none; else NULL.
        local: how many of them are times without a zone.
    """

    rows: np.ndarray[Any, Any]
    values: pa.Array
    reasons: pa.Array
    local: int = 0


def compute_fields(
    context: CheckContext, plan: PayloadPlan, schema: pa.Schema, relation: str, *, event_type: str, reason: str = ""
) -> PayloadFields:
    """Compute the fields of a plan that are not unchanged columns.

    Args:
        context: the rows are registered in its database.
        plan: of the payload.
        schema: of the payload.
        relation: of the rows.
        event_type: of the rows.
        reason: an expression for why a row is invalid; empty: no row is.
    """
    aliases = {name: f"_f{i}" for i, name in enumerate(plan.values) if name not in plan.unchanged}
    unread = {name: f"_u{i}" for i, name in enumerate(plan.unread)}
    expressions = {alias: plan.values[name] for name, alias in aliases.items()}
    expressions |= {alias: plan.unread[name] for name, alias in unread.items()}
    expressions["_reason"] = reason or "NULL::VARCHAR"
    computed = context.select(relation, expressions)
    columns = {name: computed[alias] for name, alias in aliases.items()}
    fields = PayloadFields(columns, computed["_reason"], _local_rows(context, plan, relation))
    for name, alias in unread.items():
        if computed[alias].null_count < len(computed):
            source = context.mapping.source_of(event_type, name)
            fields = _with_texts(fields, name, read_texts(computed[alias], schema.field(name), context.mapping, source))
    return fields


def read_texts(texts: pa.ChunkedArray, field: pa.Field, mapping: ColumnMapping, source: ValueSource) -> ReadTexts:
    """Read the texts of a column, each distinct one once; rows without a text are left out."""
    rows = np.flatnonzero(texts.is_valid().to_numpy())
    encoded = pc.dictionary_encode(texts.take(pa.array(rows))).combine_chunks()
    distinct = encoded.dictionary.to_pylist()
    values: list[Any] = []
    reasons: list[str | None] = []
    local: list[int] = []
    for text in distinct:
        reader = ExactReader(mapping)
        try:
            values.append(reader.typed_text(text, field, source))
            reasons.append(None)
        except PayloadError as error:
            values.append(None)
            reasons.append(str(error))
        local.append(reader.local.count)
    return ReadTexts(
        rows=rows,
        values=array_of(values, field.type).take(encoded.indices),
        reasons=pa.array(reasons, pa.string()).take(encoded.indices),
        local=int(np.array(local, np.int64)[encoded.indices.to_numpy()].sum()),
    )


def _local_rows(context: CheckContext, plan: PayloadPlan, relation: str) -> int:
    if not plan.local:
        return 0
    counts = context.select(
        relation, {f"_n{i}": f"count_if({sql})::BIGINT" for i, sql in enumerate(plan.local.values())}
    )
    return sum(sum(column.to_pylist()) for column in counts.columns)


def _with_texts(fields: PayloadFields, name: str, read: ReadTexts) -> PayloadFields:
    columns: Mapping[str, pa.ChunkedArray] = {
        **fields.columns,
        name: replace_rows(fields.columns[name], read.rows, read.values),
    }
    before = fields.reasons.take(pa.array(read.rows)).combine_chunks()
    reasons = replace_rows(fields.reasons, read.rows, pc.coalesce(before, read.reasons))
    return PayloadFields(dict(columns), reasons, fields.local + read.local)
