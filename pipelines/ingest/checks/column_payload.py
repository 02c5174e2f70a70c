"""Payloads in columns: a column that has the type of its field is moved, never computed.

The database computes only the columns that need a cast, and the checks that need more than the number of NULLs.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.checks.column import FindColumn
from refold.pipelines.ingest.checks.context import PART, CheckContext, Indices, PayloadFields
from refold.pipelines.ingest.checks.payload_plan import plan_payload


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPayload:
    """Payloads whose fields are columns of a table.

    Attributes:
        table: the columns of the file, under its aliases.
        find: the columns by the names that the file gives them.
        prefix: of the names of the payload's columns, such as ``"payload."``.
        empty_is_null: whether an empty text stands for no value.
    """

    table: pa.Table
    find: FindColumn
    prefix: str
    empty_is_null: bool

    def read(self, context: CheckContext, schema_key: SchemaKey, picked: Indices) -> PayloadFields:
        """Return the fields of some rows, which all have one schema."""
        plan = plan_payload(
            context.registry.schema(*schema_key),
            self.find,
            context.mapping.payload_columns.get(schema_key[0], {}),
            prefix=self.prefix,
            empty_is_null=self.empty_is_null,
        )
        names = [n for n in self.table.schema.names if n in plan.not_null or n in plan.unchanged.values()]
        moved = self.table.select(names).take(pa.array(picked))
        aliases = {name: f"_f{i}" for i, name in enumerate(plan.values)}
        expressions = {aliases[name]: sql for name, sql in plan.values.items() if name not in plan.unchanged}
        checked = plan.checks_values or any(moved[name].null_count for name in plan.not_null)
        if checked:
            expressions["_reason"] = plan.reason
        if expressions:
            context.register(PART, self.table.take(pa.array(picked)))
            computed = context.select(PART, expressions)
        fields = {
            name: moved[plan.unchanged[name]] if name in plan.unchanged else computed[aliases[name]]
            for name in plan.values
        }
        no_reasons = pa.chunked_array([pa.nulls(len(picked), pa.string())])
        return PayloadFields(fields, computed["_reason"] if checked else no_reasons)
