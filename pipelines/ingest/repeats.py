"""The repeats of an import are left out; a conflict is an error that names both places."""

from __future__ import annotations

import numpy as np

from refold.event_schemas import EventConflictError
from refold.pipelines.ingest.file_reader import ReadPlan
from refold.warehouse.event_log.bulk_import.repeated_events import EventConflict, KnownEvents, find_repeats
from refold.warehouse.event_log.bulk_import.spool import Spooled


def leave_out_repeats(plan: ReadPlan, spooled: Spooled, known: KnownEvents | None) -> Spooled:
    """Leave the events out that their streams have already.

    Args:
        plan: of the import.
        spooled: all of its events.
        known: the log's events; None if all streams are new to it.

    Raises:
        EventConflictError: an event has the identity of another one.
    """
    everything = spooled.leave_out(np.empty(0, np.int64))
    compares_times = all(mapping.envelope["occurred_at"].constant != "now" for _, mapping in plan.sources)
    found = find_repeats(everything, plan.registry, known, compares_times=compares_times, workers=plan.workers)
    if found.first is not None:
        raise EventConflictError(_message(plan, everything, found.first, found.conflicts))
    return everything.leave_out(found.positions)


def _message(plan: ReadPlan, spooled: Spooled, first: EventConflict, count: int) -> str:
    earlier = f"at position {first.other} of the log" if first.in_log else _place(plan, spooled, first.other)
    others = f" {count - 1:,} more events are in conflict." if count > 1 else ""
    return (
        f"Two events of stream {first.stream_id!r} have the event_id {first.event_id!r}, but are not the same: one is "
        f"{earlier}, the other {_place(plan, spooled, first.position)}.{others} Nothing was imported: correct the row, "
        "or map event_id to what tells the events apart."
    )


def _place(plan: ReadPlan, spooled: Spooled, position: int) -> str:
    chunk, line = spooled.line_of(position)
    source, _ = plan.sources[int(spooled.journal.chunks[chunk].source["file"])]
    return f"in {source.name}, line {line}"
