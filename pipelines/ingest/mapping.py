"""Which column of a foreign file becomes which column of the envelope, and where the payload is.

A mapping is a value, or a TOML file::

    payload = "data"                            # a column with an object, or with JSON text; "*": the row's own columns
    zone = "Europe/Berlin"                      # of times that tell none; UTC by default

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from refold.event_schemas import UsageError

REQUIRED = ("stream_id", "event_type", "occurred_at")
OPTIONAL = ("schema_version", "event_id", "correlation_id", "causation_id")
UNITS: Mapping[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Unit of a number since 1970 to microseconds; nanoseconds are divided."""

FLAT = "*"
"""The payload's fields are columns of the row itself."""

DEFAULT_PAYLOAD = "payload"
"""The payload's column; a table that has none is taken to be flat."""

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSource:
    """Where the value of an envelope column comes from.

    Attributes:
        columns: the first of them that has a value gives it. ``a.b`` is a field inside an object.
        template: text with ``{column}`` in it, in place of ``columns``.
        constant: a value for all rows; for ``occurred_at`` also ``"now"``, the time at which the import began.
        pattern: a regular expression; its first group is the value.
        unit: of a time: ``iso``, or ``s``, ``ms``, ``us``, ``ns`` since 1970.
    """

    columns: tuple[str, ...] = ()
    template: str = ""
    constant: str | int | None = None
    pattern: str = ""
    unit: str = "iso"

    @property
    def reads(self) -> tuple[str, ...]:
        """Name the columns that it reads."""
        return (*self.columns, *_PLACEHOLDER.findall(self.template))

    @property
    def is_column(self) -> bool:
        """Tell whether it is nothing but a column."""
        return len(self.columns) == 1 and not self.pattern and self.unit == "iso"

    def parts(self) -> list[tuple[str, bool]]:
        """Split the template into texts and columns; True marks a column."""
        return [(p, i % 2 == 1) for i, p in enumerate(_PLACEHOLDER.split(self.template)) if p]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeName:
    """What a foreign type name means here.

    Attributes:
        event_type: the event type.
        schema_version: its schema version; None: what the row says.
    """

    event_type: str
    schema_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMapping:
    """How rows of a foreign file become events.

    Attributes:
        envelope: envelope column to where its value comes from. Without ``schema_version`` an event has version 1;
            without ``event_id`` it gets one from the import's identity and its place in the file.
        payload: the column with the payload, as an object or as JSON text; ``"*"``: the row's own columns.
        payload_columns: event type to (field to the column, or key of the payload, that it is taken from); a field that
            is not named is taken from its own name.
        types: foreign type name to event type.
        unknown_fields: what to do about a key in a payload that its contract does not have.
        zone: the time zone of times that do not tell theirs.
        delimiter: between the cells of a CSV file.
    """

    envelope: Mapping[str, ValueSource]
    payload: str = DEFAULT_PAYLOAD
    payload_columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    types: Mapping[str, TypeName] = field(default_factory=dict)
    unknown_fields: Literal["reject", "drop"] = "reject"
    zone: str = "UTC"
    delimiter: str = ","

    def __post_init__(self) -> None:
        if missing := [name for name in REQUIRED if name not in self.envelope]:
            raise UsageError(f"The mapping does not say where {missing[0]} comes from: set it under [envelope].")

    def digest(self) -> str:
        """Write all that it says as text that is the same for the same mapping."""
        return orjson.dumps(dataclasses.asdict(self), option=orjson.OPT_SORT_KEYS).decode()


OWN = ColumnMapping(envelope={name: ValueSource(columns=(name,)) for name in (*REQUIRED, *OPTIONAL)})
"""Columns named as the envelope names them: the mapping when none is given."""

CLOUDEVENTS = ColumnMapping(
    envelope={
        "stream_id": ValueSource(columns=("subject", "source")),
        "event_type": ValueSource(columns=("type",)),
        "occurred_at": ValueSource(columns=("time",)),
        "schema_version": ValueSource(columns=("schemaversion", "dataschema"), pattern=r"(\d+)/?$"),
        "event_id": ValueSource(columns=("id",)),
        "correlation_id": ValueSource(columns=("correlationid",)),
        "causation_id": ValueSource(columns=("causationid",)),
    },
    payload="data",
)
"""Attributes of CloudEvents 1.0: the mapping when none is given and the file holds CloudEvents."""


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping from a TOML file.

    Args:
        path: of the file; ``docs/how-to/import-a-history.md`` shows all that it may say.

    Raises:
        UsageError: it cannot be read, is no TOML, or says something that is not known; the message names the key.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Mapping {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"Mapping {path}: this is no TOML: {error}.") from error
    try:
        return _mapping(told)
    except UsageError as error:
        raise UsageError(f"Mapping {path}: {error}") from error


def _mapping(told: dict[str, Any]) -> ColumnMapping:
    _known(told, {f.name for f in dataclasses.fields(ColumnMapping)}, where="at the top")
    envelope = _table(told, "envelope")
    _known(envelope, {*REQUIRED, *OPTIONAL}, where="under [envelope]")
    columns = _table(told, "payload_columns")
    simple = {
        name: _text(told[name], where=name)
        for name in ("payload", "unknown_fields", "zone", "delimiter")
        if name in told
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
        types={name: _type_name(name, value) for name, value in _table(told, "types").items()},
        **simple,  # type: ignore[arg-type]
    )


def _source(name: str, value: Any) -> ValueSource:
    where = f"envelope.{name}"
    if isinstance(value, str):
        return ValueSource(template=value) if _PLACEHOLDER.search(value) else ValueSource(columns=(value,))
    if isinstance(value, int) and not isinstance(value, bool):
        return ValueSource(constant=value)
    if isinstance(value, list):
        return ValueSource(columns=tuple(_text(v, where=where) for v in value))
    if not isinstance(value, dict):
        raise UsageError(f"{where} is {value!r}; expected a column, a template, a list of columns, or a table.")
    _known(value, {"column", "constant", "pattern", "unit"}, where=f"in {where}")
    if ("column" in value) == ("constant" in value):
        raise UsageError(f"{where}: give either column or constant.")
    made = _source(name, value["column"]) if "column" in value else ValueSource(constant=value["constant"])
    unit = value.get("unit", "iso")
    if unit not in ("iso", "ns", *UNITS):
        raise UsageError(f'{where}: unit is {unit!r}; expected "iso", "s", "ms", "us" or "ns".')
    return dataclasses.replace(made, unit=unit, pattern=_pattern(value.get("pattern", ""), where=where))


def _pattern(value: Any, *, where: str) -> str:
    text = _text(value, where=f"{where}.pattern")
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise UsageError(f"{where}: pattern {text!r} is no regular expression: {error}.") from error
    if text and groups == 0:
        raise UsageError(f"{where}: pattern {text!r} has no group; put the wanted part in parentheses.")
    return text


def _type_name(name: str, value: Any) -> TypeName:
    if isinstance(value, str):
        return TypeName(event_type=value)
    if not isinstance(value, dict) or not isinstance(value.get("event_type"), str):
        raise UsageError(f'types."{name}": expected an event type, or {{ event_type = …, schema_version = … }}.')
    _known(value, {"event_type", "schema_version"}, where=f'in types."{name}"')
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


def _known(table: dict[str, Any], names: set[str], *, where: str) -> None:
    if unknown := sorted(set(table) - names):
        raise UsageError(f"{unknown[0]!r} is not known {where}; known are {', '.join(sorted(names))}.")
