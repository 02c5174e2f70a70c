"""The envelope: the columns that every recorded event has beside its payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

ENVELOPE = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("commit_number", pa.int64(), nullable=False),
        pa.field("stream_id", pa.string(), nullable=False),
        pa.field("stream_version", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("occurred_at", UTC_MICROSECONDS, nullable=False),
        pa.field("recorded_at", UTC_MICROSECONDS, nullable=False),
        pa.field("correlation_id", pa.string()),
        pa.field("causation_id", pa.string()),
    ]
)
"""The columns of a recorded event. A commit holds all of them, a segment all but the two that its path names."""

ENVELOPE_NAMES: frozenset[str] = frozenset(ENVELOPE.names)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as the log holds it: the envelope, and the payload in the schema version that was stored.

    Attributes:
        position: its place in the log, from 1, without gaps.
        commit_number: the commit that appended it.
        stream_id: its stream, by convention ``category-identity``.
        stream_version: its place in the stream, from 1, without gaps.
        event_id: its identity, chosen by the writer.
        event_type: the name of its contract.
        schema_version: the version of the contract that the payload has.
        occurred_at: when it happened, by the writer's clock.
        recorded_at: when the log recorded it.
        correlation_id: the process or request that it belongs to, across streams.
        causation_id: the command or event that caused it.
        payload: field name to value; decimals, timestamps and UUIDs as Python types.
    """

    position: int
    commit_number: int
    stream_id: str
    stream_version: int
    event_id: str
    event_type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    correlation_id: str | None
    causation_id: str | None
    payload: Mapping[str, Any]
