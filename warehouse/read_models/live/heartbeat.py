"""The heartbeat of a stream: a small object with its position, updated about once a second.

A stream that stops deletes it. A killed stream leaves it, and its age shows that the stream is gone.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from refold.event_schemas import GenerationError, ObjectNotFoundError
from refold.warehouse.event_log.clocks import credible
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import RecordError, check_times, decode_json

_KEY = "live/stream.json"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The state of a running stream.

    Attributes:
        position: position of the last event that it applied, published or not.
        commit_number: number of that event's commit.
        recorded_at: time at which that commit was recorded, RFC 3339; empty before the first.
        updated_at: time of this heartbeat, RFC 3339.
        started_at: time at which the stream started, RFC 3339.
        host: name of its machine.
        pid: its process id.
        events: number of events that it has applied since it started.
        events_per_second: its recent speed.
        commit_digest: digest of that commit.
    """

    position: int
    commit_number: int
    recorded_at: str
    updated_at: str
    started_at: str
    host: str
    pid: int
    events: int
    events_per_second: float
    commit_digest: str = ""

    def __post_init__(self) -> None:
        """Check the times."""
        check_times(self.updated_at, self.started_at, optional=(self.recorded_at,))


def write_heartbeat(store: ObjectStore, heartbeat: Heartbeat) -> None:
    """Replace the stream's heartbeat.

    Args:
        store: store of the domain's read models (``Generations.store``).
        heartbeat: the new heartbeat.
    """
    store.put(_KEY, orjson.dumps(dataclasses.asdict(heartbeat)))


def read_heartbeat(store: ObjectStore) -> Heartbeat | None:
    """Read the stream's last heartbeat; None if no stream runs.

    Raises:
        GenerationError: the object is not a heartbeat.
    """
    try:
        return decode_json(store.get(_KEY), Heartbeat)
    except ObjectNotFoundError:
        return None
    except RecordError as error:
        raise GenerationError(
            f"{store.url}/{_KEY} is not the heartbeat of a stream ({error}). Delete it: a running stream writes "
            "a new one."
        ) from error


def silent_seconds(store: ObjectStore, heartbeat: Heartbeat, *, now: datetime | None = None) -> float | None:
    """Return the age of a heartbeat, by its stream's clock or by the store's, whichever shows it younger.

    Args:
        store: store of the domain's read models.
        heartbeat: the stream's last heartbeat.
        now: the reader's time; that of its clock by default.

    Returns:
        The age; None if both clocks are ahead of the reader's.
    """
    now = now or datetime.now(UTC)
    times = [datetime.fromisoformat(heartbeat.updated_at)]
    with suppress(ObjectNotFoundError):
        times.append(store.modified(_KEY))
    written = credible(sorted(times, reverse=True), now=now)
    return None if written is None else round(max((now - written).total_seconds(), 0.0), 3)


def forget_heartbeat(store: ObjectStore) -> None:
    """Delete the heartbeat, when the stream stops."""
    store.delete(_KEY)
