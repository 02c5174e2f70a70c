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

import dataclasses
import re
import tomllib
import zoneinfo
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"Mapping {path}: invalid TOML: {error}.") from error
    try:
        return _mapping(keys)
    except UsageError as error:
        raise UsageError(f"Mapping {path}: {error}") from error


def _mapping(keys: dict[str, Any]) -> ColumnMapping:
    _check_keys(keys, {f.name for f in dataclasses.fields(ColumnMapping)}, where="at the top")
    envelope = _table(keys, "envelope")
    _check_keys(envelope, {*REQUIRED, *OPTIONAL}, where="under [envelope]")
    columns = _table(keys, "payload_columns")
    simple = {
        name: _text(keys[name], where=name)
        for name in ("payload", "unknown_fields", "zone", "delimiter")
        if name in keys
    }
    if simple.get("unknown_fields", "drop") not in ("reject", "drop"):
        raise UsageError(f'unknown_fields is {simple["unknown_fields"]!r}; expected "reject" or "drop".')
    if simple.get("zone", "UTC") not in zoneinfo.available_timezones():
        raise UsageError(f'zone is {simple["zone"]!r}; expected a time zone such as "Europe/Berlin".')
    if len(simple.get("delimiter", ",")) != 1:
        raise UsageError(f"delimiter is {simple['delimiter']!r}; expected one character.")
    return ColumnMapping(
        envelope={name: _source(name, value) for name, value in envelope.items()},
        payload_columns={
            event_type: {
                f: _text(c, where=f"payload_columns.{event_type}.{f}") for f, c in _table(columns, event_type).items()
            }
            for event_type in columns
        },
        types={name: _type_name(name, value) for name, value in _table(keys, "types").items()},
        **simple,  # type: ignore[arg-type]
    )


def _source(name: str, value: Any) -> ValueSource:
    where = f"envelope.{name}"
    if isinstance(value, str):
        return ValueSource(template=value) if PLACEHOLDER.search(value) else ValueSource(columns=(value,))
    if isinstance(value, int) and not isinstance(value, bool):
        return ValueSource(constant=value)
    if isinstance(value, list):
        return ValueSource(columns=tuple(_text(v, where=where) for v in value))
    if not isinstance(value, dict):
        raise UsageError(f"{where} is {value!r}; expected a column, a template, a list of columns, or a table.")
    _check_keys(value, {"column", "constant", "pattern", "unit"}, where=f"in {where}")
    if ("column" in value) == ("constant" in value):
        raise UsageError(f"{where}: it has both column and constant, or neither. Keep exactly one.")
    source = _source(name, value["column"]) if "column" in value else ValueSource(constant=value["constant"])
    unit = value.get("unit", "iso")
    if unit not in ("iso", "ns", *UNITS):
        raise UsageError(f'{where}: unit is {unit!r}; expected "iso", "s", "ms", "us" or "ns".')
    return dataclasses.replace(source, unit=unit, pattern=_pattern(value.get("pattern", ""), where=where))


def _pattern(value: Any, *, where: str) -> str:
    text = _text(value, where=f"{where}.pattern")
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
    if version is not None and (not isinstance(version, int) or version < 1):
        raise UsageError(f'types."{name}": schema_version is {version!r}; expected a number from 1.')
    return TypeName(event_type=value["event_type"], schema_version=version)


def _table(owner: dict[str, Any], name: str) -> dict[str, Any]:
    value = owner.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{name} is {value!r}; expected a table.")
    return value


def _text(value: Any, *, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}; expected text.")
    return value


def _check_keys(table: dict[str, Any], names: set[str], *, where: str) -> None:
    if unknown := sorted(set(table) - names):
        raise UsageError(f"{unknown[0]!r} is not known {where}; known are {', '.join(sorted(names))}.")
