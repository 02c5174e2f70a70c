"""Payloads of scanned events: typed columns to JSON text in SQL, and JSON text to Python values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import PayloadError, Registry
from refold.event_schemas.payload import from_json, parse_json, read_stored
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.parquet_files import parquet_schema
from refold.warehouse.engine.sql import duckdb_type, literal, quote
from refold.warehouse.event_log.segments import SEGMENT_ENVELOPE
from refold.warehouse.personal.personal_data import PersonalData


class StoredSchemas:
    """The Arrow schema of every event type and schema version; for an undeclared one, that of its segments."""

    def __init__(self, registry: Registry, personal: PersonalData) -> None:
        self._registry = registry
        self._personal = personal
        self._from_files: dict[SchemaKey, pa.Schema] = {}

    def of_segments(self, schema_key: SchemaKey, path: Path) -> pa.Schema:
        """Return the schema of typed segments, of which ``path`` is one."""
        if self._registry.knows(schema_key):
            return self._registry.stored_schema(*schema_key)
        if schema_key not in self._from_files:
            self._from_files[schema_key] = pa.schema(f for f in parquet_schema(path) if f.name not in SEGMENT_ENVELOPE)
        return self._from_files[schema_key]

    def payload(self, schema_key: SchemaKey, text: str, *, typed: bool) -> dict[str, Any]:
        """Convert a payload's JSON text to Python values; one that matches no contract is returned as it is.

        Raises:
            KeyStoreError: the key of personal data is lost.
        """
        if typed:
            schema = self._from_files.get(schema_key) or self._registry.stored_schema(*schema_key)
            return self._readable(schema_key, from_json(orjson.loads(text), schema))
        if self._registry.knows(schema_key):
            schema = self._registry.stored_schema(*schema_key)
            try:
                return self._readable(schema_key, from_json(read_stored(text, schema), schema))
            except PayloadError:
                pass
        value = _parsed(text)
        return value if isinstance(value, dict) else {"payload": value}

    def _readable(self, schema_key: SchemaKey, payload: dict[str, Any]) -> dict[str, Any]:
        fields = self._registry.personal(schema_key)
        return self._personal.decrypted(payload, fields, schema_key[0]) if fields else payload


def _parsed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text


def payload_text(schema: pa.Schema) -> str:
    """Return SQL for the payload's columns as JSON text for ``from_json``: decimals and times as text."""
    fields = [f"{literal(f.name)}: {_text(quote(f.name), f.type)}" for f in schema]
    return f"to_json({{{', '.join(fields)}}})::VARCHAR" if fields else "'{}'"


def _text(expression: str, dtype: pa.DataType) -> str:
    zoned = _sql_type(dtype, lambda t: "TIMESTAMPTZ" if pt.is_timestamp(t) else duckdb_type(t))
    plain = _sql_type(
        dtype, lambda t: duckdb_type(t) if pt.is_integer(t) or pt.is_floating(t) or pt.is_boolean(t) else "VARCHAR"
    )
    # Times are written in UTC with their offset, also those of columns without a time zone, as in a commit.
    zone_first = f"CAST({expression} AS {zoned})" if _has_naive_time(dtype) else expression
    return f"CAST({zone_first} AS {plain})"


def _sql_type(dtype: pa.DataType, scalar: Callable[[pa.DataType], str]) -> str:
    if pt.is_list(dtype):
        return f"{_sql_type(dtype.value_type, scalar)}[]"
    if pt.is_struct(dtype):
        inner = ", ".join(f"{quote(f.name)} {_sql_type(f.type, scalar)}" for f in dtype)
        return f"STRUCT({inner})"
    return scalar(dtype)


def _has_naive_time(dtype: pa.DataType) -> bool:
    if pt.is_list(dtype):
        return _has_naive_time(dtype.value_type)
    if pt.is_struct(dtype):
        return any(_has_naive_time(f.type) for f in dtype)
    return bool(pt.is_timestamp(dtype)) and dtype.tz is None
