"""One value of a file as a value of a contract's field: the rule for all that the database may read otherwise.

The database reads the texts that it provably reads as this module does (``value_rules.py``); everything else comes
here, whatever the format of the file: a text with a decimal comma, a local time, ``1e3``, ``7.0`` for an integer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import PayloadError
from refold.event_schemas.scalar_values import FromJson, JsonNumber, ToJson, Unfit, rule_of
from refold.pipelines.ingest.checks.times import LocalTimes, TimeRefusedError, read_date, read_time
from refold.pipelines.ingest.mapping import ColumnMapping, ValueSource

PLAIN = ValueSource()
"""A value that is read as it is."""

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.A)
_MAX_DIGITS = 77
"""More digits before the decimal sign than any type has; a number such as ``1e9999`` is not written out."""


@dataclass(frozen=True, slots=True)
class ExactReader:
    """Reads values one by one.

    Attributes:
        mapping: how values are written.
        local: counts the times that have no zone.
    """

    mapping: ColumnMapping
    local: LocalTimes = field(default_factory=LocalTimes)

    def typed_text(self, text: str, wanted: pa.Field, source: ValueSource) -> Any:
        """Return a text as a Python value of a field.

        Raises:
            PayloadError: it is no value of the field; the message has the text.
        """
        stored = self._stored(text, text, wanted.type, wanted.name, source)
        return scalar_rule(wanted.type)[1](stored)

    def json_value(self, value: Any, dtype: pa.DataType, where: str, source: ValueSource = PLAIN) -> Any:
        """Return a JSON value as one that ``to_json`` takes for a value of a type, or refuses.

        Args:
            value: as ``parse_json`` returns it.
            dtype: of the field.
            where: name of the field, for errors.
            source: of the field; of a nested value the plain one.

        Raises:
            PayloadError: it is a text that is no value of the type.
        """
        if isinstance(value, Mapping) and pt.is_struct(dtype):
            return self._struct(value, dtype, where)
        if isinstance(value, list) and pt.is_list(dtype):
            return [self.json_value(v, dtype.value_type, f"{where}[{i}]") for i, v in enumerate(value)]
        if isinstance(value, str) and not pt.is_string(dtype) and not pt.is_nested(dtype):
            return self._stored(value, value, dtype, where, source)
        if isinstance(value, int | JsonNumber) and not isinstance(value, bool):
            if source.unit != "iso" and pt.is_timestamp(dtype):
                return self._stored(str(value), value, dtype, where, source)
            if isinstance(value, JsonNumber) and pt.is_integer(dtype):
                return _integer_if_exact(value)
        return value

    def _struct(self, value: Mapping[str, Any], dtype: pa.DataType, where: str) -> dict[str, Any]:
        types = {f.name: f.type for f in dtype.fields}
        drop = self.mapping.unknown_fields == "drop"
        return {
            name: self.json_value(inner, types[name], f"{where}.{name}") if name in types else inner
            for name, inner in value.items()
            if name in types or not drop
        }

    def _stored(self, text: str, found: object, dtype: pa.DataType, where: str, source: ValueSource) -> Any:
        """Return a text as what is stored of it."""
        try:
            return scalar_rule(dtype)[0](self._text(text, dtype, source))
        except (TimeRefusedError, Unfit) as error:
            raise refused(where, dtype, repr(found), str(error)) from error
        except (ValueError, TypeError, ArithmeticError):
            raise refused(where, dtype, repr(found)) from None

    def _text(self, text: str, dtype: pa.DataType, source: ValueSource) -> Any:
        """Return a text as a value that ``to_json`` takes for one of a type, or refuses."""
        if pt.is_timestamp(dtype):
            return read_time(text, self.mapping, source, self.local)
        if pt.is_date(dtype):
            return read_date(text, source)
        if pt.is_boolean(dtype):
            return _boolean(text)
        if pt.is_integer(dtype):
            return _integer(_number(text, self.mapping))
        if pt.is_decimal(dtype):
            return _number(text, self.mapping)
        if pt.is_floating(dtype):
            number = _number(text, self.mapping)
            return int(number) if number.as_tuple().exponent == 0 else float(number)
        return text.strip() if dtype == pa.uuid() else text


def scalar_rule(dtype: pa.DataType) -> tuple[ToJson, FromJson]:
    """Return the rule of a scalar type that a contract may have."""
    rule = rule_of(dtype)
    if rule is None:
        raise TypeError(f"a payload cannot hold the type {dtype}")
    return rule


def refused(where: str, expected: object, found: object, why: str = "") -> PayloadError:
    """Return the error for a value that is none of its field."""
    text = str(found)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return PayloadError(f"{where}: expected {expected}, found {text}{f' ({why})' if why else ''}")


def _integer_if_exact(number: JsonNumber) -> int | JsonNumber:
    try:
        return _integer(number)
    except ValueError:
        return number


def _boolean(text: str) -> bool:
    sign = text.strip().lower()
    if sign not in _TRUE | _FALSE:
        raise ValueError
    return sign in _TRUE


def _number(text: str, mapping: ColumnMapping) -> Decimal:
    plain = text.strip()
    if mapping.thousands and mapping.thousands in plain:
        plain = _without_thousands(plain, mapping)
    if mapping.decimal != ".":
        if "." in plain:
            raise ValueError
        plain = plain.replace(mapping.decimal, ".")
    if _NUMBER.fullmatch(plain) is None:
        raise ValueError
    return Decimal(plain)


def _without_thousands(text: str, mapping: ColumnMapping) -> str:
    """Remove the signs between groups of three digits; any other group would be another number."""
    whole, point, rest = text.partition(mapping.decimal)
    groups = whole.lstrip("+-").split(mapping.thousands)
    if not 1 <= len(groups[0]) <= 3 or any(len(group) != 3 for group in groups[1:]) or mapping.thousands in rest:
        raise ValueError
    return whole.replace(mapping.thousands, "") + point + rest


def _integer(number: Decimal) -> int:
    if number.adjusted() > _MAX_DIGITS or number != number.to_integral_value():
        raise ValueError
    return int(number)
