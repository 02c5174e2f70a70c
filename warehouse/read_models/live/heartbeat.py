"""The heartbeat of the live stream: a small object in which it says, about once a second, where it stands.

A stream that ends in order forgets it; one that was killed leaves it behind, and its age tells.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import orjson

from refold.event_schemas import GenerationError, ObjectNotFoundError
from refold.warehouse.object_store import ObjectStore

_KEY = "live/stream.json"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the live stream says of itself.

    Attributes:
        position: of the last event that it applied, published or not.
        commit_number: of the commit that brought it.
        recorded_at: when that commit was recorded, RFC 3339; empty before the first.
        updated_at: when the stream said this, RFC 3339.
        started_at: when the stream was started, RFC 3339.
        host: the machine that it runs on.
        pid: its process there.
        events: how many events it applied since it was started.
        events_per_second: how fast it went lately.
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
    """Say where the stream stands.

    Args:
        store: of the domain's read models (``Generations.store``).
        heartbeat: what to say; it replaces what was said before.
    """
    store.put(_KEY, orjson.dumps(dataclasses.asdict(heartbeat)))


def read_heartbeat(store: ObjectStore) -> Heartbeat | None:
    """Read what the stream said last; None if none runs, or none ever did.

    Raises:
        GenerationError: the object is no heartbeat.
    """
    try:
        values = orjson.loads(store.get(_KEY))
        return Heartbeat(**{field.name: values[field.name] for field in dataclasses.fields(Heartbeat)})
    except ObjectNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise GenerationError(
            f"{store.url}/{_KEY} is no heartbeat of a live stream ({error!r}). Delete it: a stream that runs writes it "
            "anew."
        ) from error


def forget_heartbeat(store: ObjectStore) -> None:
    """Take the heartbeat away, when the stream ends in order."""
    store.delete(_KEY)
