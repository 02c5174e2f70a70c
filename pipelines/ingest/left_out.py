"""The rows that a published import left out, kept in the log: whoever runs the import again gets the same answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import orjson

from refold.event_schemas import ObjectNotFoundError
from refold.pipelines.ingest.rejects import Reason
from refold.warehouse.event_log.log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The rejected rows of an import.

    Attributes:
        rows: how many rows the files have.
        rejected: how many of them could not become events.
        reasons: why, the most frequent reason first.
    """

    rows: int
    rejected: int
    reasons: tuple[Reason, ...]


def record_left_out(log: EventLog, import_id: str, left_out: LeftOut) -> None:
    """Keep what an import leaves out, before it is published; one without a valid row never is."""
    if 0 < left_out.rejected < left_out.rows:
        log.store.put(_key(import_id), orjson.dumps(asdict(left_out)))


def read_left_out(log: EventLog, import_id: str) -> LeftOut | None:
    """Return what a published import left out; None if all its rows became events."""
    try:
        found = orjson.loads(log.store.get(_key(import_id)))
    except ObjectNotFoundError:
        return None
    return LeftOut(
        rows=found["rows"], rejected=found["rejected"], reasons=tuple(Reason(**reason) for reason in found["reasons"])
    )


def _key(import_id: str) -> str:
    return f"imports/{import_id}.json"
