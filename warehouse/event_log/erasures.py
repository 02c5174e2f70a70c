"""The erasures of a log: how many there were, and which subjects they concern."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from refold.event_schemas import Registry
from refold.event_schemas.erasure import ERASURES
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.reads.read import read_stream
from refold.warehouse.event_log.stream_index import StreamIndex
from refold.warehouse.personal.key_store import Subject


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure.

    Attributes:
        number: how many erasures the log had with it.
        position: position of its event.
        event_id: identity of that event.
        recorded_at: when it was recorded.
        subject: whose data was erased.
        key_ids: the keys that were destroyed by then.
    """

    number: int
    position: int
    event_id: str
    recorded_at: datetime
    subject: Subject
    key_ids: tuple[str, ...]


def count_erasures(log: EventLog, registry: Registry) -> int:
    """Return how many erasures a log has; 0 without a look at it if the contracts have no personal fields."""
    if not registry.personal_keys:
        return 0
    index = StreamIndex(log)
    index.load()
    return index.version(ERASURES)


def erasures_of(log: EventLog, registry: Registry, subject: Subject) -> Iterator[Erasure]:
    """Yield the erasures of a subject, in order."""
    for event in read_stream(log, registry, ERASURES):
        found = Subject(event.payload["subject_field"], event.payload["subject"])
        if found == subject:
            key_ids = tuple(event.payload["key_ids"])
            yield Erasure(event.stream_version, event.position, event.event_id, event.recorded_at, found, key_ids)
