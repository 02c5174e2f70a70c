"""Snapshots: the state of a stream at one of its versions, so that a load reads only the events after it.

A snapshot is an object beside the log, one for each stream and all that its state depends on: code, contracts and
upcasters. Snapshots are a cache: if one is missing, damaged or of other code, the stream is read from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refold.event_schemas import ObjectNotFoundError, RefoldError
from refold.event_schemas.decider import Decider, StateCodec
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import state_digest
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store.records import RecordError, decode_record, encode_record

SNAPSHOTS = "snapshots"
SNAPSHOT_FORMAT = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """The effect of one command on a stream.

    Attributes:
        position: the position of its last event.
        stream_version: the stream's version after it.
        events: the number of its events.
        digest: the digest of the command; None in a log that was created before events kept it.
    """

    position: int
    stream_version: int
    events: int
    digest: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream up to the last event that was read.

    Attributes:
        state: the state after that event.
        stream_version: the version of that event; 0 for a stream without events.
        position: the position of that event.
        applied: command id to the command's effect.
    """

    state: Any
    stream_version: int
    position: int
    applied: dict[str, Applied]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A snapshot as it is stored: :class:`Loaded`, what it belongs to, and the log's erasures before it."""

    format: int
    log_id: str
    stream_id: str
    stream_version: int
    position: int
    state: Any
    applied: dict[str, Applied]
    erasures: int = 0


def outdated_snapshots(log: EventLog, *, erasures: int) -> Iterator[str]:
    """Yield the keys of snapshots that may hold data which was erased since; one that cannot be read may hold any.

    Args:
        log: the log that they are beside.
        erasures: number of the log's erasures, or up to some subject's.
    """
    for key in log.store.list_from(SNAPSHOTS):
        try:
            if decode_record(log.store.get(key), _Kept).erasures < erasures:
                yield key
        except ObjectNotFoundError:
            continue
        except RecordError:
            yield key


class Snapshots:
    """The snapshots of one decider's streams.

    Args:
        log: the log that the snapshots are beside.
        decider: the decider; without a codec of its state it has no snapshots.
        domain: the domain, with the contracts and upcasters of the events.
    """

    def __init__(self, log: EventLog, decider: Decider[Any], domain: Domain) -> None:
        self._log = log
        self._codec: StateCodec[Any] | None = decider.snapshot
        if self._codec is not None:
            self._digest = state_digest(decider, domain)[:16]

    def key(self, stream_id: str) -> str:
        """Return the object key of a stream's snapshot."""
        bucket = bucket_of(stream_id, self._log.bucket_count)
        name = hashlib.md5(stream_id.encode(), usedforsecurity=False).hexdigest()
        return f"{SNAPSHOTS}/bucket={bucket:02d}/{name}-{self._digest}.json"

    def load(self, stream_id: str, *, up_to: int, erasures: int = 0) -> Loaded | None:
        """Return a stream's snapshot; None if there is none that can be used.

        Args:
            stream_id: the stream.
            up_to: its version; a snapshot of a later version has events that the log no longer has.
            erasures: number of the log's erasures; a snapshot from before the last one may hold what was erased.
        """
        if self._codec is None:
            return None
        try:
            kept = decode_record(self._log.store.get(self.key(stream_id)), _Kept)
            if (kept.format, kept.stream_id, kept.log_id) != (SNAPSHOT_FORMAT, stream_id, self._log.log_id):
                return None
            if kept.erasures < erasures:
                return None
            found = Loaded(self._codec.load(kept.state), kept.stream_version, kept.position, kept.applied)
        except ObjectNotFoundError:
            return None
        except Exception as error:  # a snapshot may hold anything, and the log has the same state
            _log.warning("The snapshot of stream %r cannot be read (%s); it will be replaced.", stream_id, error)
            return None
        return found if found.stream_version <= up_to else None

    def save(self, stream_id: str, loaded: Loaded, *, erasures: int = 0) -> None:
        """Write a stream's snapshot. A failure is only logged, because nothing depends on a snapshot.

        Args:
            stream_id: the stream.
            loaded: its state.
            erasures: number of the log's erasures before the state was loaded.
        """
        if self._codec is None:
            return
        try:
            kept = _Kept(
                format=SNAPSHOT_FORMAT,
                log_id=self._log.log_id,
                stream_id=stream_id,
                stream_version=loaded.stream_version,
                position=loaded.position,
                state=self._codec.dump(loaded.state),
                applied=loaded.applied,
                erasures=erasures,
            )
            self._log.store.put(self.key(stream_id), encode_record(kept))
        except (RefoldError, OSError, TypeError, ValueError) as error:
            _log.warning("The snapshot of stream %r was not written (%s); nothing depends on it.", stream_id, error)
