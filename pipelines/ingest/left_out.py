"""The rows that a published import left out, kept in the log: whoever runs the import again gets the same answer."""

from __future__ import annotations

from dataclasses import dataclass

from refold.event_schemas import DamagedLogError, ObjectNotFoundError
from refold.pipelines.ingest.rejects import Reason
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store.records import RecordError, decode_json, decode_record, encode_record, is_record


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
        log.store.put(_key(import_id), encode_record(left_out))


def read_left_out(log: EventLog, import_id: str) -> LeftOut | None:
    """Return what a published import left out; None if all its rows became events.

    Raises:
        DamagedLogError: the object that says so is damaged.
    """
    try:
        data = log.store.get(_key(import_id))
        return decode_record(data, LeftOut) if is_record(data) else decode_json(data, LeftOut)  # of log format 1
    except ObjectNotFoundError:
        return None
    except RecordError as error:
        raise DamagedLogError(
            f"{log.url}/{_key(import_id)} is damaged ({error}): it says which rows an import left out, and no event "
            "depends on it. Restore it from a backup, or delete it."
        ) from error


def _key(import_id: str) -> str:
    return f"imports/{import_id}.json"
