"""Payloads in columns: a column that has the type of its field is moved, never computed.

The database computes only the columns that need a cast, and the checks that need more than the number of NULLs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.column import FindColumn
from refold.pipelines.ingest.checks.computed_fields import compute_fields
from refold.pipelines.ingest.checks.context import PART, CheckContext, Indices, PayloadFields
from refold.pipelines.ingest.checks.payload_plan import plan_payload


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPayload:
    """Payloads whose fields are columns of a table, or fields of one of its columns.

    Attributes:
        table: the columns of the file, under its aliases.
        find: the columns of the payload by their names.
        empty_is_null: whether an empty text stands for no value.
    """

    table: pa.Table
    find: FindColumn
    empty_is_null: bool

    def read(self, context: CheckContext, schema_key: SchemaKey, picked: Indices) -> PayloadFields:
        """Return the fields of some rows, which all have one schema."""
        schema = context.registry.schema(*schema_key)
        source_of = partial(context.mapping.source_of, schema_key[0])
        plan = plan_payload(schema, self.find, source_of, context.mapping, empty_is_null=self.empty_is_null)
        names = [n for n in self.table.schema.names if n in plan.not_null or n in plan.unchanged.values()]
        moved = self.table.select(names).take(pa.array(picked))
        checked = plan.checks_values or any(moved[name].null_count for name in plan.not_null)
        if checked or len(plan.unchanged) < len(plan.values):
            context.register(PART, self.table.take(pa.array(picked)))
            reason = plan.reason if checked else ""
            computed = compute_fields(context, plan, schema, PART, event_type=schema_key[0], reason=reason)
        else:
            computed = PayloadFields({}, pa.chunked_array([pa.nulls(len(picked), pa.string())]))
        fields = {
            name: moved[plan.unchanged[name]] if name in plan.unchanged else computed.columns[name]
            for name in plan.values
        }
        return PayloadFields(fields, computed.reasons, computed.local)

    def has(self, context: CheckContext, path: str, picked: Indices) -> bool:
        """Check whether any of some rows has a column of the payload."""
        column = self.find(path)
        if column is None or not column.by_row:
            return column is not None
        context.register(PART, self.table.take(pa.array(picked)))
        return bool(context.select(PART, {"_has": f"count({column.sql}) > 0"})["_has"][0].as_py())
