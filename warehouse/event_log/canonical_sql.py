"""Canonical JSON text in SQL: what ``canonical_json`` writes in Python, from typed columns.

A stored payload whose typed columns have exactly its text again was read without a change. So DuckDB's parser, which
rounds, trims and reinterprets, cannot put another value in the place of the stored one.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from refold.warehouse.engine.sql import literal, quote

_LARGE = "1e16"
"""DuckDB's JSON writes a float from here on with all digits; its text, like canonical JSON, has an exponent."""


def canonical_text(schema: pa.Schema, struct: str) -> str:
    """Return SQL for the canonical text of a payload, from a struct with its columns.

    Floats from 1e-6 to 1e-5 get another text than in Python; no value gets the text of another one.

    Args:
        schema: of the payload; it has at least one field.
        struct: an SQL expression.
    """
    return f"CAST(to_json({_pack(schema, struct)}) AS VARCHAR)"


def _pack(fields: pa.Schema | pa.StructType, struct: str) -> str:
    parts = (f"{literal(f.name)}: {_value(f.type, f'{struct}.{quote(f.name)}')}" for f in fields)
    return f"{{{', '.join(parts)}}}"


def _value(dtype: pa.DataType, value: str) -> str:
    if not _is_rewritten(dtype):
        return value
    if pt.is_struct(dtype):
        return f"CASE WHEN {value} IS NOT NULL THEN {_pack(dtype, value)} END"
    if pt.is_list(dtype):
        return f"list_transform({value}, lambda _item: {_value(dtype.value_type, '_item')})"
    if pt.is_floating(dtype):
        return (
            f"CASE WHEN abs({value}) >= {_LARGE} THEN CAST(CAST({value} AS VARCHAR) AS JSON) ELSE to_json({value}) END"
        )
    if pt.is_timestamp(dtype):  # as a time without a zone, which takes half the time of one with a zone
        return f"strftime(make_timestamp(epoch_us({value})), '%Y-%m-%dT%H:%M:%S.%fZ')"
    return f"CAST({value} AS VARCHAR)"


def _is_rewritten(dtype: pa.DataType) -> bool:
    """Check whether DuckDB's own JSON of a value differs from the canonical one."""
    if pt.is_struct(dtype):
        return any(_is_rewritten(f.type) for f in dtype)
    if pt.is_list(dtype):
        return _is_rewritten(dtype.value_type)
    return not (pt.is_string(dtype) or pt.is_integer(dtype) or pt.is_boolean(dtype))
