"""Upcasters: steps that convert events of an old schema version, or of a retired event type, to a newer one.

There are three forms:

- a function without arguments returns **SQL** over the relation ``event`` (one event type's columns): rename, add,
  drop or retype a field, drop events with ``WHERE``. It is vectorised, and reads only the columns that are used.
- a function of one event returns a **list of events**: split, drop or rename an event with any logic.
- a ``@merger`` takes a run of consecutive events of one stream from one commit, and returns a list of events.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyarrow as pa

from refold.event_schemas.envelope import RecordedEvent
from refold.event_schemas.errors import ContractError
from refold.event_schemas.event import check_field_names, event_type_of, is_event
from refold.event_schemas.field_types import check_event_type, check_fields
from refold.event_schemas.personal import check_personal


class Form(Enum):
    """The forms of upcasters."""

    SQL = "sql"
    PYTHON = "python"
    MERGE = "merge"


@dataclass(frozen=True, slots=True)
class SourceSchema:
    """One stored schema that an upcaster reads: an event type in one schema version."""

    event_type: str
    schema_version: int
    schema: pa.Schema

    @property
    def key(self) -> tuple[str, int]:
        """The event type and the schema version."""
        return (self.event_type, self.schema_version)


@dataclass(frozen=True, slots=True, eq=False)
class Upcaster:
    """One step from stored schemas towards the newest.

    Attributes:
        form: SQL, Python or merge.
        sources: the schemas that it reads; only a merger has more than one.
        into: the event classes that it yields, in their newest version; empty for the next version of its own type.
        function: the decorated function.
        version: stands for what the function depends on and refold cannot see; None if there is nothing such.
    """

    form: Form
    sources: tuple[SourceSchema, ...]
    into: tuple[type, ...]
    function: Callable[..., Any]
    version: str | None = None

    @property
    def name(self) -> str:
        """Its name in an error message."""
        sources = ", ".join(f"{s.event_type} v{s.schema_version}" for s in self.sources)
        return f"upcaster {self.function.__name__} (from {sources})"

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the event types that it may yield."""
        if self.into:
            return tuple(event_type_of(c) for c in self.into)
        return (self.sources[0].event_type,)

    def sql(self) -> str:
        """Return the SQL text of an upcaster written in SQL."""
        return str(self.function())

    def apply(self, given: Any) -> Sequence[Any]:
        """Run an upcaster written in Python on one event, or a merger on a run of events.

        Raises:
            ContractError: the function did not return a list.
        """
        events = self.function(given)
        if not isinstance(events, list | tuple):
            raise ContractError(f"{self.name} returned {type(events).__name__}; expected a list of events.")
        return events


def upcaster(
    event_type: type | str,
    *,
    from_version: int,
    schema: pa.Schema,
    into: type | Iterable[type] = (),
    version: str | None = None,
) -> Callable[[Callable[..., Any]], Upcaster]:
    """Declare the upcaster of one old schema version.

    The decorated function takes no argument and returns SQL, or takes a
    :class:`~refold.event_schemas.envelope.RecordedEvent` and returns a list of event instances, or of mappings that
    are payloads of the next schema version.

    Args:
        event_type: the event class, or the name of a retired event type.
        from_version: the schema version that the upcaster reads.
        schema: the Arrow schema of that version's payload.
        into: the event classes that it yields, in their newest version; by default the same event type's next
            schema version.
        version: stands for what a function of one event depends on and refold cannot see, such as a file; change it
            with every change of that.

    Raises:
        ContractError: the function takes more than one argument, or the declaration contradicts itself.

    Example:
        >>> @upcaster("OrderPlaced", from_version=1, schema=pa.schema([("order_id", pa.string())]))
        ... def add_currency():
        ...     return "SELECT *, 'EUR' AS currency FROM event"
        >>> add_currency.form
        <Form.SQL: 'sql'>
    """
    source = SourceSchema(_type_name(event_type), from_version, schema)

    def decorate(function: Callable[..., Any]) -> Upcaster:
        count = len(inspect.signature(function).parameters)
        if count > 1:
            raise ContractError(
                f"Upcaster {function.__name__} takes {count} arguments; expected none (it returns SQL) or one "
                "(the event)."
            )
        form = Form.PYTHON if count else Form.SQL
        return _checked(form, (source,), into, function, version)

    return decorate


def merger(
    sources: Iterable[tuple[type | str, int, pa.Schema]], *, into: type | Iterable[type], version: str | None = None
) -> Callable[[Callable[[list[RecordedEvent]], Any]], Upcaster]:
    """Declare an upcaster that joins consecutive events of one stream which one commit appended.

    A commit is never split between increments, so the result does not depend on where increments start and end.

    Args:
        sources: the schemas to join, as (event class or event type, schema version, payload schema). A run is a
            longest series of such events with no other event of the stream between them.
        into: the event classes that it yields. Their events have the position of the run's last event.
        version: as in :func:`upcaster`.

    Raises:
        ContractError: the declaration contradicts itself.
    """
    schemas = tuple(SourceSchema(_type_name(t), v, s) for t, v, s in sources)

    def decorate(function: Callable[[list[RecordedEvent]], Any]) -> Upcaster:
        return _checked(Form.MERGE, schemas, into, function, version)

    return decorate


def _type_name(event_type: type | str) -> str:
    return event_type if isinstance(event_type, str) else event_type_of(event_type)


def _checked(
    form: Form,
    sources: tuple[SourceSchema, ...],
    into: type | Iterable[type],
    function: Callable[..., Any],
    version: str | None,
) -> Upcaster:
    classes = (into,) if isinstance(into, type) else tuple(into)
    result = Upcaster(form, sources, classes, function, version)
    if not sources:
        raise ContractError(f"{result.name}: there are no sources. Name at least one.")
    for source in sources:
        if source.schema_version < 1:
            raise ContractError(f"{result.name}: the schema version is {source.schema_version}; versions start at 1.")
        check_event_type(source.event_type, where=result.name)
        check_field_names(source.schema, where=result.name)
        check_fields(source.schema, where=result.name)
        check_personal(source.schema, where=result.name)
    if bad := [c for c in classes if not is_event(c)]:
        raise ContractError(f"{result.name}: into={bad[0]!r} is not an event class.")
    if form is Form.SQL and len(classes) > 1:
        raise ContractError(f"{result.name}: SQL yields one event type. Write the upcaster in Python to split events.")
    if form is Form.MERGE and not classes:
        raise ContractError(f"{result.name}: a merger needs into=. Name the event class that it yields.")
    return result
