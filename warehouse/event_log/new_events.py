"""Events to append: what callers pass to an appender, and how it becomes the rows of a commit."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from refold.event_schemas import PayloadError, Registry, UsageError, event_type_of, schema_version_of
from refold.event_schemas.payload import to_json
from refold.event_schemas.scalar_values import Unfit, utc
from refold.warehouse.personal.personal_data import PersonalData

Row = tuple[str, str, int, datetime, str | None, str | None, str]
"""Event id, event type, schema version, occurred_at, correlation id, causation id, payload as JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to append.

    Attributes:
        payload: an event instance; or a mapping, which needs ``event_type`` and ``schema_version``.
        event_type: event type of a mapping.
        schema_version: schema version of a mapping.
        event_id: identity of the event; a random UUID by default.
        occurred_at: time at which it happened; now by default.
        correlation_id: identity that it shares with related events of other streams.
        causation_id: identity of the command or event that caused it.
    """

    payload: Any
    event_type: str | None = None
    schema_version: int | None = None
    event_id: str | None = None
    occurred_at: datetime | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True)
class StreamAppend:
    """Events for one stream, among others of the same commit.

    Attributes:
        stream_id: the stream.
        events: event instances, or :class:`NewEvent`.
        expected_version: the version that the stream must have (0: it must be new); None: any.
    """

    stream_id: str
    events: Sequence[object]
    expected_version: int | None = None


def encode_rows(append: StreamAppend, registry: Registry, personal: PersonalData) -> list[Row]:
    """Check events against their contracts, and encode them; personal fields are encrypted.

    Raises:
        UsageError: the stream id, the list of events or text in the envelope is invalid.
        PayloadError: a payload or ``occurred_at`` does not match its contract.
        UnknownEventTypeError: the domain does not have an event's type.
        KeyStoreError: a key cannot be had.
    """
    if not append.stream_id:
        raise UsageError("stream_id is empty; name the stream, such as 'order-1001'.")
    _check_text("stream_id", append.stream_id)
    rows = [_row(e if isinstance(e, NewEvent) else NewEvent(payload=e), registry, personal) for e in append.events]
    if not rows:
        raise UsageError(f"Nothing to append to stream {append.stream_id!r}: the list of events is empty.")
    return rows


def _row(event: NewEvent, registry: Registry, personal: PersonalData) -> Row:
    if not isinstance(event.payload, Mapping):
        event_type, schema_version = event_type_of(type(event.payload)), schema_version_of(type(event.payload))
    elif event.event_type is not None and event.schema_version is not None:
        event_type, schema_version = event.event_type, event.schema_version
    else:
        raise UsageError(
            "A payload given as a dict needs its type: write NewEvent(payload=..., event_type=..., "
            "schema_version=...). Nothing was appended."
        )
    described = f"Event {event_type} v{schema_version}"
    try:
        payload = to_json(event.payload, registry.schema(event_type, schema_version))
    except PayloadError as error:
        raise PayloadError(f"{described}: {error}. Nothing was appended.") from error
    event_id = event.event_id or str(uuid.uuid4())
    _check_text("event_id", event_id)
    _check_text("correlation_id", event.correlation_id or "")
    _check_text("causation_id", event.causation_id or "")
    occurred_at = event.occurred_at or datetime.now(UTC)
    if not isinstance(occurred_at, datetime):
        raise PayloadError(f"{described}: occurred_at is {occurred_at!r}, expected a datetime. Nothing was appended.")
    try:
        occurred_at = utc(occurred_at)
    except Unfit as error:
        raise PayloadError(
            f"{described}: occurred_at is {occurred_at}, and {error}; write a time such as datetime(..., tzinfo=UTC). "
            "Nothing was appended."
        ) from None
    if fields := registry.personal((event_type, schema_version)):
        payload = personal.encrypted(payload, fields, event_type=event_type, event_id=event_id)
    text = orjson.dumps(payload).decode()
    return event_id, event_type, schema_version, occurred_at, event.correlation_id, event.causation_id, text


def _check_text(name: str, text: str) -> None:
    """Reject text that would make the write of a commit fail, and with it the appends of other callers."""
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        raise UsageError(f"{name} is {text!r}; expected text that is valid Unicode. Nothing was appended.") from None
