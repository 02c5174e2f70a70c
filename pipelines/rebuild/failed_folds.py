"""Events on which a fold fails while groups of keys are merged.

The worker that merges a group leaves such events out and reports them. But an event may contribute to keys of other
groups too, and must be left out of all: so the driver collects the reports, and has every group of that read model
merged again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.payload_parsing import InvalidEvent
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import decode_record, encode_record
from refold.warehouse.replay.event_ranges import typed_segments
from refold.warehouse.replay.invalid_events import events_at

Reasons = dict[int, str]
"""Position to why the fold failed there."""

_FAILED = "staged/failed"
_LEFT_OUT = "staged/left_out"


@dataclass(frozen=True, slots=True)
class _Report:
    """The events that one group, or a read model, leaves out."""

    reasons: Reasons


def report(staging: ObjectStore, name: str, part: str, failed: Reasons) -> None:
    """Report the events that were left out when one group was merged."""
    staging.put(f"{_FAILED}/{name}/{part}", _encoded(failed))


def left_out(staging: ObjectStore, name: str) -> Reasons:
    """Return the events that all groups of a read model must leave out."""
    key = f"{_LEFT_OUT}/{name}"
    return _decoded(staging.get(key)) if staging.exists(key) else {}


def collect(staging: ObjectStore) -> set[str]:
    """Collect what workers reported, and return the read models whose groups must be merged again."""
    names = set()
    for key in staging.list_from(_FAILED):
        name = key.split("/")[-2]
        staging.put(f"{_LEFT_OUT}/{name}", _encoded(left_out(staging, name) | _decoded(staging.get(key))))
        names.add(name)
    return names


def clear_reports(staging: ObjectStore) -> None:
    """Delete the reports, after the groups that they concern: so a run that resumes still finds them."""
    staging.delete_prefix(_FAILED)


def invalid_events(log: EventLog, domain: Domain, segments: Sequence[Segment], failed: Reasons) -> list[InvalidEvent]:
    """Look the events up in the log."""
    touched = [s for s in segments if any(_first(s) <= p <= _last(s) for p in failed)]
    found: list[InvalidEvent] = []
    with connect(threads=1) as connection:
        typed = typed_segments(connection, log, domain.registry, touched)
        for position, reason in failed.items():
            found += events_at(connection, typed.relations, [(position,)], reason)
    return found


def _first(segment: Segment) -> int:
    return segment.first_position + segment.position_base


def _last(segment: Segment) -> int:
    return segment.last_position + segment.position_base


def _encoded(reasons: Reasons) -> bytes:
    return encode_record(_Report(reasons))


def _decoded(data: bytes) -> Reasons:
    return decode_record(data, _Report).reasons
