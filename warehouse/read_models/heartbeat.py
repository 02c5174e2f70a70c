"""The heartbeat of a live stream: where it stands, told about once a second, since its database is its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import orjson

from event_schemas import GenerationError, ObjectNotFoundError
from warehouse.object_store import ObjectStore

_KEY = "live/stream.json"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a stream last said of itself.

    Attributes:
        position: of the last event that its tables show.
        commit_number: of the commit that brought it.
        recorded_at: when that commit was recorded, RFC 3339.
        updated_at: when this was said, RFC 3339.
        started_at: when the stream began, RFC 3339.
        host: the machine that it runs on.
        pid: its process there.
        events: how many events it has applied.
        events_per_second: how many of late.
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


def write_heartbeat(store: ObjectStore, heartbeat: Heartbeat) -> None:
    """Say where a stream stands, in the store of its generations."""
    store.put(_KEY, orjson.dumps(dataclasses.asdict(heartbeat)))


def read_heartbeat(store: ObjectStore) -> Heartbeat | None:
    """Give what a stream said last; None if none runs, or it ended as it should.

    Raises:
        GenerationError: what is there is no heartbeat.
    """
    try:
        return Heartbeat(**orjson.loads(store.get(_KEY)))
    except ObjectNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise GenerationError(f"{store.url}/{_KEY} is no heartbeat ({error}). Delete it.") from error


def forget_heartbeat(store: ObjectStore) -> None:
    """Take the heartbeat away, at the end of a stream."""
    store.delete(_KEY)
