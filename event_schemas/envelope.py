"""The envelope: the columns that every recorded event carries beside its payload."""

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
"""Columns of an event as recorded; a commit holds them all, a segment all but the two its path names."""

ENVELOPE_NAMES: frozenset[str] = frozenset(ENVELOPE.names)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as the log holds it: the envelope, and the payload in the version it was stored in.

    Attributes:
        position: place in the whole log, from 1, without gaps.
        commit_number: the commit that appended it.
        stream_id: the stream it belongs to, by habit ``category-identity``.
        stream_version: place in its stream, from 1, without gaps.
        event_id: its own identity, given by who recorded it.
        event_type: the name of its contract.
        schema_version: the version of its contract that the payload fits.
        occurred_at: when it happened, by the clock of whoever tells.
        recorded_at: when the log took it.
        correlation_id: what it belongs to, across streams.
        causation_id: the command or event that led to it.
        payload: field name to value; decimals, timestamps and UUIDs as their Python types.
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
