"""Where the values of an event come from in the rows of a file: its envelope columns, and its payload."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from refold.event_schemas import UsageError

REQUIRED = ("stream_id", "event_type", "occurred_at")
OPTIONAL = ("schema_version", "event_id", "correlation_id", "causation_id")
UNITS: Mapping[str, int] = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Unit of a number since 1970, as the power of ten of its parts of a second."""

FLAT = "*"
"""The payload's fields are columns of the row itself."""

DEFAULT_PAYLOAD = "payload"
"""The column of the payload; in a table without it the payload's fields are columns."""

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
"""A column in a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSource:
    """Where the value of an envelope column, or of a field of the payload, comes from.

    Attributes:
        columns: the first of them that has a value is read: a column, a path such as ``a.b``, or a template.
        template: text with ``{column}`` in it, instead of ``columns``.
        constant: a value for all rows; for ``occurred_at`` also ``"now"``, the time at which the import began.
        pattern: a regular expression; its first group is the value.
        unit: of a time: ``iso``, or ``s``, ``ms``, ``us``, ``ns`` since 1970.
        format: of a time or a date as text: a pattern such as ``%d/%m/%Y``, or ``rfc2822``; empty: ISO 8601.
        optional: whether a file may lack all of its columns.
    """

    columns: tuple[str, ...] = ()
    template: str = ""
    constant: str | int | None = None
    pattern: str = ""
    unit: str = "iso"
    format: str = ""
    optional: bool = False

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The columns and templates, of which the first that has a value is read."""
        return self.columns or ((self.template,) if self.template else ())

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return tuple(name for text in self.alternatives for name in columns_in(text))

    @property
    def is_column(self) -> bool:
        """Whether it is just one column."""
        plain = not self.pattern and self.unit == "iso" and not self.format
        return plain and len(self.columns) == 1 and not PLACEHOLDER.search(self.columns[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeName:
    """The event type that a type name of a file stands for.

    Attributes:
        event_type: the event type.
        schema_version: its schema version; None: the row has it.
    """

    event_type: str
    schema_version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMapping:
    """How the rows of a file become events.

    Attributes:
        envelope: envelope column to where its value comes from. Without ``schema_version`` an event has version 1;
            without ``event_id`` it gets one from the identity of the file and its row.
        payload: the column with the payload, as an object or as JSON text; ``"*"``: the row's own columns. Of several
            columns the first that has a value.
        payload_columns: event type to (field to the column, or key of the payload, that it is taken from); any other
            field is taken from the column of its own name.
        types: type name in the file to event type.
        unknown_fields: whether a payload with a key that its contract does not have is rejected, or the key dropped.
        null_values: texts that stand for no value, such as ``NA``.
        decimal: the decimal sign of numbers in text.
        thousands: the sign between groups of three digits; empty: there is none.
        zone: the time zone of times that have none.
        ambiguous: what a local time means that the clocks show twice.
        nonexistent: what a local time means that the clocks skip.
        subsecond: whether a time finer than microseconds is refused, or its digits cut.
        delimiter: between the cells of a CSV file; empty: a tab in ``.tsv`` files, a comma in others.
        quote: around cells of a CSV file; empty: there are no quotes.
        escape: before a quote inside a cell; empty: a quote is doubled.
        comment: what a line begins with that is no row; empty: every line is one.
        skip_rows: lines before the header.
        has_header: whether the first row names the columns.
        column_names: the columns of a CSV file; replaces those of the header.
        encoding: of a text file.
        rows: path of the array that has the rows, in a file of one JSON object.

    Example:
        >>> mapping = ColumnMapping(
        ...     envelope={
        ...         "stream_id": ValueSource(template="order-{nr}"),
        ...         "event_type": ValueSource(constant="OrderPlaced"),
        ...         "occurred_at": ValueSource(columns=("ms",), unit="ms"),
        ...     },
        ...     payload=FLAT,
        ... )
        >>> mapping.envelope["stream_id"].reads
        ('nr',)
    """

    envelope: Mapping[str, ValueSource]
    payload: str | tuple[str, ...] = DEFAULT_PAYLOAD
    payload_columns: Mapping[str, Mapping[str, str | ValueSource]] = field(default_factory=dict)
    types: Mapping[str, TypeName] = field(default_factory=dict)
    unknown_fields: Literal["reject", "drop"] = "reject"
    null_values: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    zone: str = "UTC"
    ambiguous: Literal["error", "earlier", "later"] = "error"
    nonexistent: Literal["error", "shift"] = "error"
    subsecond: Literal["error", "truncate"] = "error"
    delimiter: str = ""
    quote: str = '"'
    escape: str = ""
    comment: str = ""
    skip_rows: int = 0
    has_header: bool = True
    column_names: tuple[str, ...] = ()
    encoding: str = "utf-8"
    rows: str = ""

    def __post_init__(self) -> None:
        if missing := [name for name in REQUIRED if name not in self.envelope]:
            raise UsageError(f"The mapping does not set {missing[0]}: add it under [envelope].")

    @property
    def payloads(self) -> tuple[str, ...]:
        """The columns of the payload; none if its fields are columns of the row."""
        if self.payload == FLAT:
            return ()
        return (self.payload,) if isinstance(self.payload, str) else self.payload

    def source_of(self, event_type: str, name: str) -> ValueSource:
        """Return where a field of the payload comes from."""
        given = self.payload_columns.get(event_type, {}).get(name, name)
        return ValueSource(columns=(given,)) if isinstance(given, str) else given

    def column_of(self, event_type: str, name: str) -> str:
        """Return the column, or the path in the payload, that a field comes from."""
        return self.source_of(event_type, name).columns[0]

    def digest(self) -> str:
        """Return a text that is the same for equal mappings; it is part of an import's identity.

        A setting that has its default is left out unless the first version of refold wrote it, so that a new setting
        does not make another import of an old one.
        """
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        kept = {n: v for n, v in settings.items() if n in _DIGESTED or v != defaults[n]}
        return orjson.dumps(_plain(kept | {"delimiter": self.delimiter or ","}), option=orjson.OPT_SORT_KEYS).decode()


_DIGESTED = frozenset({"envelope", "payload", "payload_columns", "types", "unknown_fields", "zone", "delimiter"})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, ValueSource):
        given = dataclasses.asdict(value)
        del given["optional"]  # it changes no event
        return given if given["format"] else {n: v for n, v in given.items() if n != "format"}
    return value


def columns_in(text: str) -> list[str]:
    """Return the columns of a template, or the text itself if it is a column.

    Example:
        >>> columns_in("{a}-{b.c}"), columns_in("b.c")
        (['a', 'b.c'], ['b.c'])
    """
    return PLACEHOLDER.findall(text) or [text]


def parts_of(template: str) -> list[tuple[str, bool]]:
    """Return the texts and columns of a template; True marks a column."""
    if not PLACEHOLDER.search(template):
        return [(template, True)]
    return [(part, i % 2 == 1) for i, part in enumerate(PLACEHOLDER.split(template)) if part]


def path_of(name: str) -> tuple[str, ...]:
    """Return the path of a column inside objects: ``a.b``, or ``/a.b`` for one key with a dot in it.

    Example:
        >>> path_of("order.id"), path_of("/order.id")
        (('order', 'id'), ('order.id',))
    """
    return tuple(name[1:].split("/")) if name.startswith("/") else tuple(name.split("."))


def pointer(path: tuple[str, ...]) -> str:
    """Return a path as a JSON pointer (RFC 6901).

    Example:
        >>> pointer(("a", "b/c"))
        '/a/b~1c'
    """
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


OWN = ColumnMapping(
    envelope={name: ValueSource(columns=(name,), optional=name in OPTIONAL) for name in (*REQUIRED, *OPTIONAL)}
)
"""Columns with the names of the envelope: the mapping by default."""

CLOUDEVENTS = ColumnMapping(
    envelope={
        "stream_id": ValueSource(columns=("subject", "source")),
        "event_type": ValueSource(columns=("type",)),
        "occurred_at": ValueSource(columns=("time",)),
        "schema_version": ValueSource(columns=("schemaversion", "dataschema"), pattern=r"(\d+)/?$", optional=True),
        "event_id": ValueSource(template="{source} {id}", optional=True),
        "correlation_id": ValueSource(columns=("correlationid",), optional=True),
        "causation_id": ValueSource(columns=("causationid",), optional=True),
    },
    payload="data",
)
"""Attributes of CloudEvents 1.0: the mapping of files of CloudEvents by default.

An event's identity is its source and its id together, with a space between them, which no source has.
"""
