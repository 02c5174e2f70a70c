"""JSON documents as columns, exactly: nothing is rounded, cut, or left out without an error.

DuckDB's ``json_transform`` is fast and lenient: it rounds 12.7 for an integer, accepts a number for a text, and ignores
keys that it was not asked for. So the *structure* of a document (``json_structure``: key to JSON type) decides first
whether the transformation keeps every value. A file has few different structures; each is checked once.
``canonical_json`` reads all other documents, one by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import PayloadError
from refold.event_schemas.payload import canonical_json
from refold.pipelines.ingest.checks.column import Column, FindColumn, field_of
from refold.pipelines.ingest.checks.value_rules import extracted_as, extracts_exactly
from refold.warehouse.engine.sql import json_structure, literal

_MAX_FIELDS = 62
"""The fields that a document has are bits of a BIGINT; ``canonical_json`` reads documents of wider schemas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonDocuments:
    """How the documents of one schema are read.

    Attributes:
        schema: of the payload.
        keys: field to the key that it is taken from.
        drop_unknown: whether keys that the schema does not have are ignored.
        zone: time zone of times that have none.
    """

    schema: pa.Schema
    keys: Mapping[str, str]
    drop_unknown: bool
    zone: str

    def key(self, field: pa.Field) -> str:
        """Return the key of a field."""
        return self.keys.get(field.name, field.name)

    def present_fields(self, structure: Any) -> int | None:
        """Return the fields that a document has a value for, as bits; None if it cannot be transformed exactly.

        Args:
            structure: what ``json_structure`` returns for the document, parsed.
        """
        extracted = {(self.key(f), extracted_as(f.type)) for f in self.schema}
        if len({key for key, _ in extracted}) < len(extracted):  # a key is extracted as one type only
            return None
        if structure == "JSON":  # an empty object
            return 0 if all(f.nullable for f in self.schema) else None
        if not isinstance(structure, dict) or len(self.schema) > _MAX_FIELDS or any(map(_may_hide_loss, self.schema)):
            return None
        if not self.drop_unknown and not {self.key(f) for f in self.schema}.issuperset(structure):
            return None
        bits = 0
        for i, field in enumerate(self.schema):
            inner = structure.get(self.key(field), "NULL")
            if inner == "NULL":
                if not field.nullable:
                    return None
            elif not extracts_exactly(inner, field.type, drop_unknown=self.drop_unknown):
                return None
            else:
                bits |= 1 << i
        return bits

    def transform(self, document: str, prefix: tuple[str, ...] = ()) -> str:
        """Write the expression that turns a document into a struct.

        Args:
            document: an expression of JSON text.
            prefix: path of the payload in it.
        """
        if not len(self.schema):
            return "NULL"
        structure: Any = json_structure(pa.struct([pa.field(self.key(f), extracted_as(f.type)) for f in self.schema]))
        for name in reversed(prefix):
            structure = {name: structure}
        return field_of(f"(json_transform({document}, {literal(json.dumps(structure))}))", prefix)

    def find_column(self, struct: str) -> FindColumn:
        """Return a function that finds the column of a key in a transformed document."""
        types = {self.key(f): extracted_as(f.type) for f in self.schema}
        return lambda key: Column(field_of(struct, (key,)), types[key], top_level=False)

    def lost_value(self, struct: str, bits: str) -> str:
        """Write the condition that an optional field had a value that was not extracted, or the reverse.

        Args:
            struct: the transformed document.
            bits: which fields the document has a value for.
        """
        fields = [(1 << i, field_of(struct, (self.key(f),))) for i, f in enumerate(self.schema) if f.nullable]
        return " OR ".join(f"({value} IS NULL) <> ({bits} & {bit} = 0)" for bit, value in fields) or "false"

    def canonical(self, text: str, prefix: tuple[str, ...] = ()) -> str:
        """Return a document as canonical JSON.

        Raises:
            PayloadError: it does not fit the schema; the message names the field.
        """
        payload = _loads(text)
        for name in prefix:
            payload = payload.get(name) if isinstance(payload, Mapping) else None
        if isinstance(payload, str):
            payload = _loads(payload)
        given = {} if payload is None else payload
        if not isinstance(given, Mapping):
            raise PayloadError(f"expected an object as payload, found {str(given)[:80]!r}")
        keys = {f.name: self.key(f) for f in self.schema}
        unknown = [k for k in given if k not in keys.values()]
        if unknown and not self.drop_unknown:
            raise PayloadError(f"unknown field {unknown[0]}; the schema has {sorted(set(keys.values()))}")
        renamed = {name: given[key] for name, key in keys.items() if key in given}
        prepared = _prepared(renamed, pa.struct(list(self.schema)), self.zone, self.drop_unknown)
        return canonical_json(prepared, self.schema)


def explain_malformed(text: str) -> str:
    """Return why a row is no JSON object; empty for a blank line."""
    if not text.strip():
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"this is no JSON: {error}"
    return "expected a JSON object" if not isinstance(value, dict) else "this JSON cannot be read"


def _may_hide_loss(field: pa.Field) -> bool:
    """Check whether a nested field has a value inside whose loss neither its bit nor a comparison shows."""
    dtype = field.type
    if not pt.is_nested(dtype):
        return False
    inner_fields = [dtype.value_field] if pt.is_list(dtype) else dtype.fields
    return any(
        pt.is_date(inner.type)
        or pt.is_floating(inner.type)
        or (inner.nullable and not (pt.is_nested(inner.type) or pt.is_string(inner.type) or pt.is_boolean(inner.type)))
        or _may_hide_loss(inner)
        for inner in inner_fields
    )


class _Number(float):
    """A number that keeps its text, so that a decimal is made of it digit by digit."""

    __slots__ = ("text",)
    text: str

    def __repr__(self) -> str:
        return self.text


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"this is no JSON: {error}") from None


def _number(text: str) -> _Number:
    number = _Number(text)
    number.text = text
    return number


def _prepared(value: Any, dtype: pa.DataType, zone: str, drop_unknown: bool) -> Any:
    """Add the zone to times that have none, and drop unknown keys, inside objects too."""
    if pt.is_struct(dtype) and isinstance(value, Mapping):
        types = {f.name: f.type for f in dtype.fields}
        return {
            name: _prepared(inner, types[name], zone, drop_unknown) if name in types else inner
            for name, inner in value.items()
            if name in types or not drop_unknown
        }
    if pt.is_list(dtype) and isinstance(value, list):
        return [_prepared(inner, dtype.value_type, zone, drop_unknown) for inner in value]
    if pt.is_timestamp(dtype) and isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            return value
        return value if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone)).isoformat()
    return value
