"""Payloads as JSON: checked against their Arrow schema when they are written, converted to Python types when read.

A commit stores payloads as canonical JSON text: every declared field in declared order, decimals as text, timestamps
as RFC 3339 in UTC with microseconds. The same event always has the same text, and no decimal passes through a binary
float. ``scalar_values`` has the rule of each scalar type. Whoever reads a payload either finds it in canonical form or
converts it here, so that a value is the same on every way.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas.errors import PayloadError
from refold.event_schemas.scalar_values import JsonNumber, Unfit, rule_of

Converter = Callable[[Any, str], Any]
"""Converts a value, which is at a path, to what JSON stores."""

_MAX_DIGITS = 400
"""Digits of an integer in JSON: more than any field holds, and few enough to be converted fast."""


def canonical_json(payload: Mapping[str, Any] | object, schema: pa.Schema) -> str:
    """Return a payload as canonical JSON text.

    Args:
        payload: an event (a dataclass) or a mapping; values as Python types or as JSON types.
        schema: the payload's Arrow schema.

    Raises:
        PayloadError: a field is missing or unknown, or its value does not fit; the message names the field.

    Example:
        >>> from decimal import Decimal
        >>> canonical_json({"amount": Decimal("2.5")}, pa.schema([pa.field("amount", pa.decimal128(9, 2))]))
        '{"amount":"2.50"}'
    """
    return orjson.dumps(to_json(payload, schema)).decode()


def to_json(payload: Mapping[str, Any] | object, schema: pa.Schema) -> dict[str, Any]:
    """Return a payload as the JSON object that ``canonical_json`` writes."""
    return _codec(schema).dump(payload, "")  # type: ignore[no-any-return]


def from_json(payload: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Convert a canonical JSON object to Python values: Decimal, datetime, date, UUID.

    Args:
        payload: the parsed JSON object; a missing optional field becomes None.
        schema: the payload's Arrow schema.
    """
    return _codec(schema).load(payload)  # type: ignore[no-any-return]


def read_stored(text: str, schema: pa.Schema) -> dict[str, Any]:
    """Return the canonical JSON object of a stored payload, which any program may have written.

    Raises:
        PayloadError: the text is not JSON, or does not match the schema.
    """
    try:
        found = to_json(orjson.loads(text), schema)
        if orjson.dumps(found).decode() == text:
            return found
    except (orjson.JSONDecodeError, PayloadError):
        pass  # orjson reads numbers as binary floats, and the last of two equal keys; the slower parser decides
    try:
        return to_json(parse_json(text), schema)
    except ValueError as error:
        raise PayloadError(f"the payload is not JSON: {error}") from error


def parse_json(text: str) -> Any:
    """Parse JSON without a loss: a number keeps all its digits, and a key that is given twice is an error.

    Raises:
        ValueError: the text is not JSON, or not one value for each key.

    Example:
        >>> parse_json('{"amount": 12345678901234567.89}')["amount"]
        Decimal('12345678901234567.89')
    """
    try:
        return json.loads(
            text,
            parse_float=JsonNumber,
            parse_int=_json_integer,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ArithmeticError:
        raise ValueError("a number has an exponent that is too large") from None


def _json_integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is given twice")
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """The two conversions of a type."""

    dump: Converter
    load: Callable[[Any], Any]


_codecs: dict[int, tuple[pa.Schema, _Codec]] = {}
_MAX_CODECS = 1000  # a domain has fewer schemas; a program that makes new ones for ever must not fill the memory


def _codec(schema: pa.Schema) -> _Codec:
    """Return the conversions of a schema, made once: to hash a schema takes longer than to convert a payload."""
    found = _codecs.get(id(schema))
    if found is None or found[0] is not schema:
        if len(_codecs) >= _MAX_CODECS:
            _codecs.clear()
        found = _codecs[id(schema)] = (schema, _struct_codec(list(schema), ""))
    return found[1]


def _struct_codec(fields: list[pa.Field], path: str) -> _Codec:
    known = frozenset(f.name for f in fields)
    codecs = [(f, f.name, _type_codec(f.type, _join(path, f.name))) for f in fields]

    def dump(value: Any, where: str) -> dict[str, Any]:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        if not isinstance(value, Mapping):
            raise _unfit(where or "the payload", "an object", value)
        if not value.keys() <= known:
            unknown = next(name for name in value if name not in known)
            raise PayloadError(f"unknown field {_join(where, str(unknown))}; the schema has {sorted(known)}")
        return {
            name: _dump_field(value.get(name, _MISSING), field, codec, _join(where, name))
            for field, name, codec in codecs
        }

    def load(value: Any) -> dict[str, Any]:
        return {name: None if (found := value.get(name)) is None else codec.load(found) for _, name, codec in codecs}

    return _Codec(dump, load)


_MISSING = object()


def _dump_field(value: Any, field: pa.Field, codec: _Codec, where: str) -> Any:
    if value is not None and value is not _MISSING:
        return codec.dump(value, where)
    if field.nullable:
        return None
    state = "is null" if value is None else "is missing"
    raise PayloadError(f"required field {where} {state}; expected {field.type}")


def _type_codec(dtype: pa.DataType, path: str) -> _Codec:
    if pt.is_struct(dtype):
        return _struct_codec([dtype.field(i) for i in range(dtype.num_fields)], path)
    if pt.is_list(dtype):
        return _list_codec(dtype, path)
    rule = rule_of(dtype)
    if rule is None:
        raise PayloadError(f"{path}: a payload cannot hold the type {dtype}")
    convert, load = rule

    def dump(value: Any, where: str) -> Any:
        try:
            return convert(value)
        except Unfit as error:
            raise _unfit(where, dtype, value, f" ({error})") from None
        except (ValueError, TypeError, ArithmeticError, AttributeError):
            raise _unfit(where, dtype, value) from None

    return _Codec(dump, load)


def _list_codec(dtype: pa.DataType, path: str) -> _Codec:
    element = dtype.value_field
    codec = _type_codec(element.type, f"{path}[]")

    def dump(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise _unfit(where, dtype, value)
        return [_dump_field(v, element, codec, f"{where}[{i}]") for i, v in enumerate(value)]

    return _Codec(dump, lambda value: [None if v is None else codec.load(v) for v in value])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unfit(where: str, expected: object, value: Any, reason: str = "") -> PayloadError:
    found = str(value) if isinstance(value, JsonNumber) else repr(value)
    found = found if len(found) <= 80 else found[:77] + "..."  # a whole document would hide the message
    return PayloadError(f"{where}: expected {expected}, found {found}{reason}")
