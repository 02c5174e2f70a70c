"""Where the values of an event come from in the rows of a file: its envelope columns, and its payload."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import orjson

from refold.event_schemas import UsageError

REQUIRED = ("stream_id", "event_type", "occurred_at")
OPTIONAL = ("schema_version", "event_id", "correlation_id", "causation_id")
UNITS: Mapping[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Unit of a number since 1970, in microseconds; nanoseconds are divided instead."""

FLAT = "*"
"""The payload's fields are columns of the row itself."""

DEFAULT_PAYLOAD = "payload"
"""The column of the payload; in a table without it the payload's fields are columns."""

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
"""A column in a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSource:
    """Where the value of an envelope column comes from.

    Attributes:
        columns: the first of them that has a value is read. ``a.b`` is a field inside an object.
        template: text with ``{column}`` in it, instead of ``columns``.
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
        """The columns that it reads."""
        return (*self.columns, *PLACEHOLDER.findall(self.template))

    @property
    def is_column(self) -> bool:
        """Whether it is just one column."""
        return len(self.columns) == 1 and not self.pattern and self.unit == "iso"

    def parts(self) -> list[tuple[str, bool]]:
        """Return the texts and columns of the template; True marks a column."""
        return [(p, i % 2 == 1) for i, p in enumerate(PLACEHOLDER.split(self.template)) if p]


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
        payload: the column with the payload, as an object or as JSON text; ``"*"``: the row's own columns.
        payload_columns: event type to (field to the column, or key of the payload, that it is taken from); any other
            field is taken from the column of its own name.
        types: type name in the file to event type.
        unknown_fields: whether a payload with a key that its contract does not have is rejected, or the key dropped.
        zone: the time zone of times that have none.
        delimiter: between the cells of a CSV file.

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
    payload: str = DEFAULT_PAYLOAD
    payload_columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    types: Mapping[str, TypeName] = field(default_factory=dict)
    unknown_fields: Literal["reject", "drop"] = "reject"
    zone: str = "UTC"
    delimiter: str = ","

    def __post_init__(self) -> None:
        if missing := [name for name in REQUIRED if name not in self.envelope]:
            raise UsageError(f"The mapping does not set {missing[0]}: add it under [envelope].")

    def digest(self) -> str:
        """Return a text that is the same for equal mappings; it is part of an import's identity."""
        return orjson.dumps(dataclasses.asdict(self), option=orjson.OPT_SORT_KEYS).decode()


def path_of(name: str) -> tuple[str, ...]:
    """Return the path of a column inside objects: ``a.b``, or ``/a.b`` for one key with a dot in it.

    Example:
        >>> path_of("order.id"), path_of("/order.id")
        (('order', 'id'), ('order.id',))
    """
    return tuple(name[1:].split("/")) if name.startswith("/") else tuple(name.split("."))


OWN = ColumnMapping(envelope={name: ValueSource(columns=(name,)) for name in (*REQUIRED, *OPTIONAL)})
"""Columns with the names of the envelope: the mapping by default."""

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
"""Attributes of CloudEvents 1.0: the mapping of files of CloudEvents by default."""
