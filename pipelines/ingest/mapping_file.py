"""A mapping as a TOML file.

For example::

    payload = "data"                            # a column with an object, or with JSON text; "*": the row's own columns
    zone = "Europe/Berlin"                      # of times that have none; UTC by default

    [envelope]
    stream_id = "order-{order_id}"              # a template
    event_type = "kind"                         # a column
    schema_version = 1                          # a constant
    occurred_at = { column = "ts", unit = "ms" }

    [types]
    "order.placed" = { event_type = "OrderPlaced", schema_version = 1 }

    [payload_columns.OrderPlaced]
    customer_id = "customer"                    # field of the event = column of the file
"""

from __future__ import annotations

import codecs
import dataclasses
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refold.event_schemas import UsageError
from refold.pipelines.ingest.mapping import (
    OPTIONAL,
    PLACEHOLDER,
    REQUIRED,
    UNITS,
    ColumnMapping,
    TypeName,
    ValueSource,
)


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping from a TOML file.

    Args:
        path: of the file; ``docs/how-to/import-a-history.md`` shows an example.

    Raises:
        UsageError: it cannot be read, is no TOML, or has an unknown key or an invalid value; the message names the key.

    Example:
        >>> import tempfile
        >>> text = 'envelope = { stream_id = "order-{nr}", event_type = "kind", occurred_at = "ts" }'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "orders.toml"
        ...     _ = path.write_text(text)
        ...     mapping = read_mapping(path)
        >>> mapping.envelope["event_type"].columns
        ('kind',)
    """
    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The mapping {path} cannot be read: {error.strerror}. Correct --mapping.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"Mapping {path}: invalid TOML: {error}.") from error
    try:
        return _mapping(keys)
    except UsageError as error:
        raise UsageError(f"Mapping {path}: {error}") from error


def _mapping(keys: dict[str, Any]) -> ColumnMapping:
    _check_keys(keys, {"envelope", "types", "payload_columns", *_SETTINGS}, where="at the top")
    envelope = _table(keys, "envelope")
    _check_keys(envelope, {*REQUIRED, *OPTIONAL}, where="under [envelope]")
    columns = _table(keys, "payload_columns")
    settings = {_FIELDS.get(name, name): parse(name, keys[name]) for name, parse in _SETTINGS.items() if name in keys}
    mapping = ColumnMapping(
        envelope={name: _source(f"envelope.{name}", value) for name, value in envelope.items()},
        payload_columns={
            event_type: {
                f: _field_source(f"payload_columns.{event_type}.{f}", c) for f, c in _table(columns, event_type).items()
            }
            for event_type in columns
        },
        types={name: _type_name(name, value) for name, value in _table(keys, "types").items()},
        **settings,
    )
    _check_signs(mapping)
    return mapping


def _check_signs(mapping: ColumnMapping) -> None:
    if mapping.decimal == mapping.thousands:
        raise UsageError(f"decimal and thousands are both {mapping.decimal!r}; a number would have two meanings.")
    if not mapping.has_header and not mapping.column_names:
        raise UsageError("has_header is false, so columns must name the columns of the file, in their order.")


_SOURCE_KEYS = {"column", "constant", "pattern", "unit", "format", "optional"}
_FIELD_KEYS = {"column", "unit", "format", "optional"}


def _source(where: str, value: Any) -> ValueSource:
    if isinstance(value, str):
        return ValueSource(template=value) if PLACEHOLDER.search(value) else ValueSource(columns=(value,))
    if isinstance(value, int) and not isinstance(value, bool):
        return ValueSource(constant=value)
    if isinstance(value, list) and value:
        return ValueSource(columns=tuple(_text(where, v) for v in value))
    if not isinstance(value, dict):
        raise UsageError(f"{where} is {value!r}; expected a column, a template, a list of columns, or a table.")
    _check_keys(value, _SOURCE_KEYS, where=f"in {where}")
    if ("column" in value) == ("constant" in value):
        raise UsageError(f"{where}: it has both column and constant, or neither. Keep exactly one.")
    source = _source(where, value["column"]) if "column" in value else ValueSource(constant=value["constant"])
    source = dataclasses.replace(source, pattern=_pattern(value.get("pattern", ""), where=where))
    return _with_options(where, source, value)


def _field_source(where: str, value: Any) -> str | ValueSource:
    if not isinstance(value, dict):
        return _text(where, value)
    _check_keys(value, _FIELD_KEYS, where=f"in {where}")
    if "column" not in value:
        raise UsageError(f"{where}: it has no column.")
    return _with_options(where, ValueSource(columns=(_text(f"{where}.column", value["column"]),)), value)


def _with_options(where: str, source: ValueSource, value: dict[str, Any]) -> ValueSource:
    """Add what a column and a field of the payload have in common."""
    unit = value.get("unit", "iso")
    if unit not in ("iso", *UNITS):
        raise UsageError(f'{where}: unit is {unit!r}; expected "iso", "s", "ms", "us" or "ns".')
    return dataclasses.replace(
        source,
        unit=unit,
        format=_format(f"{where}.format", value.get("format", "")),
        optional=_flag(f"{where}.optional", value.get("optional", False)),
    )


def _format(where: str, value: Any) -> str:
    text = _text(where, value)
    if text and text != "rfc2822" and "%" not in text:
        raise UsageError(f'{where} is {text!r}; expected a pattern such as "%d/%m/%Y %H:%M", or "rfc2822".')
    return text


def _pattern(value: Any, *, where: str) -> str:
    text = _text(f"{where}.pattern", value)
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise UsageError(f"{where}: pattern {text!r} is an invalid regular expression: {error}.") from error
    if text and groups == 0:
        raise UsageError(f"{where}: pattern {text!r} has no group: put the part that is the value in parentheses.")
    return text


def _type_name(name: str, value: Any) -> TypeName:
    if isinstance(value, str):
        return TypeName(event_type=value)
    if not isinstance(value, dict) or not isinstance(value.get("event_type"), str):
        raise UsageError(f'types."{name}": expected an event type, or {{ event_type = …, schema_version = … }}.')
    _check_keys(value, {"event_type", "schema_version"}, where=f'in types."{name}"')
    version = value.get("schema_version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 1):
        raise UsageError(f'types."{name}": schema_version is {version!r}; expected a number from 1.')
    return TypeName(event_type=value["event_type"], schema_version=version)


def _table(owner: dict[str, Any], name: str) -> dict[str, Any]:
    value = owner.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{name} is {value!r}; expected a table.")
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}; expected text.")
    return value


def _texts(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where} is {value!r}; expected a list of texts.")
    return tuple(_text(where, v) for v in value)


def _payload(where: str, value: Any) -> str | tuple[str, ...]:
    return _texts(where, value) if isinstance(value, list) and value else _text(where, value)


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where} is {value!r}; expected true or false.")
    return value


def _lines(where: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"{where} is {value!r}; expected a number of lines from 0.")
    return value


def _sign(where: str, value: Any) -> str:
    if len(_text(where, value)) != 1 or value in "\r\n":
        raise UsageError(f"{where} is {value!r}; expected one character.")
    return str(value)


def _sign_or_none(where: str, value: Any) -> str:
    return "" if value == "" else _sign(where, value)


def _zone(where: str, value: Any) -> str:
    if _text(where, value) not in zoneinfo.available_timezones():
        raise UsageError(f'{where} is {value!r}; expected a time zone such as "Europe/Berlin".')
    return str(value)


def _encoding(where: str, value: Any) -> str:
    try:
        return codecs.lookup(_text(where, value)).name
    except LookupError as error:
        raise UsageError(f'{where} is {value!r}; expected an encoding such as "latin-1".') from error


def _one_of(*names: str) -> Callable[[str, Any], str]:
    listed = ", ".join(f'"{name}"' for name in names[:-1]) + f' or "{names[-1]}"'

    def parse(where: str, value: Any) -> str:
        if value not in names:
            raise UsageError(f"{where} is {value!r}; expected {listed}.")
        return str(value)

    return parse


_SETTINGS: Mapping[str, Callable[[str, Any], Any]] = {
    "payload": _payload,
    "unknown_fields": _one_of("reject", "drop"),
    "null_values": _texts,
    "decimal": _sign,
    "thousands": _sign_or_none,
    "zone": _zone,
    "ambiguous": _one_of("error", "earlier", "later"),
    "nonexistent": _one_of("error", "shift"),
    "subsecond": _one_of("error", "truncate"),
    "delimiter": _sign,
    "quote": _sign_or_none,
    "escape": _sign_or_none,
    "comment": _text,
    "skip_rows": _lines,
    "has_header": _flag,
    "columns": _texts,
    "encoding": _encoding,
    "rows": _text,
}
"""Keys at the top of the file, and how each is checked."""

_FIELDS = {"columns": "column_names"}
"""Keys whose attribute of the mapping has another name."""


def _check_keys(table: dict[str, Any], names: set[str], *, where: str) -> None:
    if unknown := sorted(set(table) - names):
        raise UsageError(f"{unknown[0]!r} is not known {where}; known are {', '.join(sorted(names))}.")
