"""Payloads as JSON documents to typed columns, exactly: nothing is rounded, cut, or left out in silence.

DuckDB's ``json_transform`` is fast and lenient: it rounds 12.7 for an integer, takes a number for a text, and passes
over keys that it was not asked for. So every document's *structure* is looked at first (``json_structure``: key to
type). There are few different ones in a file; each is judged once. Documents whose structure fits are transformed, a
vector at a time. All others, and those with a value that does not fit after all, go through ``canonical_json`` one by
one, which either makes them fit or says which field does not.
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
from refold.pipelines.ingest.envelope_columns import DATES, TIMES, in_range
from refold.warehouse.engine.sql import (
    duckdb_type,
    json_structure,
    literal,
    null_in_required,
    quote,
)

_EXTRA_SCALE = 6
_INTEGERS = ("BIGINT", "UBIGINT")
_NUMBERS = (*_INTEGERS, "DOUBLE")
_MAX_FIELDS = 62
"""One bit a field in a BIGINT says whether a document has it."""


@dataclass(frozen=True, slots=True)
class JsonShape:
    """How documents of one shape are read.

    Attributes:
        schema: of the payload.
        keys: field to the key that it is taken from.
        drop_unknown: whether keys that the schema does not have are passed over.
        zone: of times that tell none.
    """

    schema: pa.Schema
    keys: Mapping[str, str]
    drop_unknown: bool
    zone: str

    def key(self, field: pa.Field) -> str:
        """Name the key of a field."""
        return self.keys.get(field.name, field.name)

    def judge(self, structure: Any) -> int | None:
        """Judge a structure: which fields it has a value for, as bits; None if each document must be looked at.

        Args:
            structure: what ``json_structure`` says of a document, parsed.
        """
        if structure == "JSON":  # what DuckDB says of an empty object
            return 0 if all(f.nullable for f in self.schema) else None
        if not isinstance(structure, dict) or len(self.schema) > _MAX_FIELDS or self._needs_a_look:
            return None
        known = {self.key(f) for f in self.schema}
        if not self.drop_unknown and not known.issuperset(structure):
            return None
        bits = 0
        for i, field in enumerate(self.schema):
            found = structure.get(self.key(field), "NULL")
            if found == "NULL":
                if not field.nullable:
                    return None
            elif not _fits(found, field.type, drop_unknown=self.drop_unknown):
                return None
            else:
                bits |= 1 << i
        return bits

    @property
    def _needs_a_look(self) -> bool:
        """Tell whether a value may be lost inside an object or a list, where no bit says that there was one."""
        return any(_hides(f.type) for f in self.schema if pt.is_nested(f.type))

    def transform(self, document: str, prefix: tuple[str, ...] = ()) -> str:
        """Write the expression that makes a struct of a document.

        Args:
            document: an expression of JSON text.
            prefix: where the payload is in it.
        """
        if not len(self.schema):
            return "NULL"
        fields = [pa.field(self.key(f), _read_as(f.type)) for f in self.schema]
        structure: Any = json_structure(pa.struct(fields))
        for name in reversed(prefix):
            structure = {name: structure}
        inner = "".join(f".{quote(name)}" for name in prefix)
        return f"(json_transform({document}, {literal(json.dumps(structure))})){inner}"

    def fields(self, struct: str) -> dict[str, str]:
        """Write an expression of its type for every field of a transformed document."""
        return {f.name: self._value(struct, f) for f in self.schema}

    def fits(self, struct: str, bits: str | None) -> str:
        """Write the condition under which a transformed document lost nothing.

        Args:
            struct: the transformed document.
            bits: which fields the document has a value for; None: it is canonical.
        """
        conditions = []
        for i, field in enumerate(self.schema):
            raw, value = f"{struct}.{quote(self.key(field))}", self._value(struct, field)
            if field.nullable and bits is not None:
                conditions.append(f"({value} IS NULL) = (({bits} >> {i}) & 1 = 0)")
            conditions += [f"NOT coalesce({c}, false)" for c in null_in_required(value, field)]
            if pt.is_decimal(field.type) or pt.is_nested(field.type):
                wide = duckdb_type(_read_as(field.type))
                conditions.append(f"{raw} IS NOT DISTINCT FROM CAST({value} AS {wide})")
            if pt.is_date(field.type):
                conditions.append(f"coalesce(length({raw}) = 10 AND {in_range(value, DATES)}, true)")
            if pt.is_timestamp(field.type):
                conditions.append(f"coalesce({in_range(value, TIMES)}, true)")
            if pt.is_floating(field.type):
                conditions.append(f"coalesce(isfinite({value}), true)")
        return " AND ".join(f"coalesce({c}, false)" for c in conditions) or "true"

    def mend(self, text: str, prefix: tuple[str, ...] = ()) -> str:
        """Make canonical JSON of a document, whatever it takes.

        Raises:
            PayloadError: it does not fit; the message names the field.
        """
        try:
            found = _loads(text)
        except ValueError as error:
            raise PayloadError(f"this is no JSON: {error}") from None
        for name in prefix:
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, str):
            found = _loads(found)
        given = {} if found is None else found
        if not isinstance(given, Mapping):
            raise PayloadError(f"expected an object as payload, found {str(given)[:80]!r}")
        names = {self.key(f): f.name for f in self.schema}
        unknown = [k for k in given if k not in names]
        if unknown and not self.drop_unknown:
            raise PayloadError(f"unknown field {unknown[0]}; the schema has {sorted(names)}")
        renamed = {name: given[key] for key, name in names.items() if key in given}
        return canonical_json(_zoned(renamed, pa.struct(list(self.schema)), self.zone, self.drop_unknown), self.schema)

    def _value(self, struct: str, field: pa.Field) -> str:
        return f"TRY_CAST({struct}.{quote(self.key(field))} AS {duckdb_type(field.type)})"


def _fits(found: Any, wanted: pa.DataType, *, drop_unknown: bool) -> bool:
    """Tell whether a value of a JSON type can be transformed without a look at the value itself."""
    if pt.is_struct(wanted):
        fields = {f.name: f for f in (wanted.field(i) for i in range(wanted.num_fields))}
        return (
            isinstance(found, dict)
            and (drop_unknown or fields.keys() >= found.keys())
            and all(
                found.get(name, "NULL") == "NULL" or _fits(found[name], f.type, drop_unknown=drop_unknown)
                for name, f in fields.items()
            )
        )
    if pt.is_list(wanted):
        return isinstance(found, list) and (
            found == ["NULL"] or _fits(found[0], wanted.value_type, drop_unknown=drop_unknown)
        )
    if pt.is_integer(wanted):
        return found in _INTEGERS
    if pt.is_decimal(wanted):
        return found in (*_NUMBERS, "VARCHAR")
    if pt.is_floating(wanted):
        return found in _NUMBERS
    return bool(found == ("BOOLEAN" if pt.is_boolean(wanted) else "VARCHAR"))


def _read_as(dtype: pa.DataType) -> pa.DataType:
    """Choose the type to read as: with room for surplus digits, so that they are seen and refused; dates as text."""
    if pt.is_decimal(dtype):
        return pa.decimal128(38, min(dtype.scale + _EXTRA_SCALE, 38 - (dtype.precision - dtype.scale)))
    if pt.is_date(dtype):
        return pa.string()
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_read_as(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_read_as(f.type)) for f in (dtype.field(i) for i in range(dtype.num_fields))])
    return dtype


def _hides(dtype: pa.DataType) -> bool:
    """Tell whether a nested type has an optional value that may fail to be read, or a date that may be cut."""
    if pt.is_list(dtype):
        inner = [dtype.value_field]
    elif pt.is_struct(dtype):
        inner = [dtype.field(i) for i in range(dtype.num_fields)]
    else:
        return False
    safe = (pt.is_string, pt.is_boolean, pt.is_floating)
    return any(
        pt.is_date(f.type)
        or pt.is_floating(f.type)
        or (f.nullable and not pt.is_nested(f.type) and not any(is_safe(f.type) for is_safe in safe))
        or _hides(f.type)
        for f in inner
    )


class _Literal(float):
    """A number that remembers how it was written, so that a decimal can be made of it digit by digit."""

    __slots__ = ("text",)
    text: str

    def __repr__(self) -> str:
        return self.text


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=_number)


def _number(text: str) -> _Literal:
    made = _Literal(text)
    made.text = text
    return made


def _zoned(value: Any, dtype: pa.DataType, zone: str, drop_unknown: bool) -> Any:
    """Give the zone to times that tell none, and pass over keys that are not known, inside objects too."""
    if pt.is_struct(dtype) and isinstance(value, Mapping):
        types = {f.name: f.type for f in (dtype.field(i) for i in range(dtype.num_fields))}
        return {
            name: _zoned(inner, types[name], zone, drop_unknown) if name in types else inner
            for name, inner in value.items()
            if name in types or not drop_unknown
        }
    if pt.is_list(dtype) and isinstance(value, list):
        return [_zoned(inner, dtype.value_type, zone, drop_unknown) for inner in value]
    if pt.is_timestamp(dtype) and isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return value
        return value if found.tzinfo else found.replace(tzinfo=ZoneInfo(zone)).isoformat()
    return value
