"""Watching: how far the log has come, so that every answer can tell its lag; and what to do now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from refold.warehouse.event_log.log import EventLog
from refold.warehouse.queries.readers import ReadSource
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.lag import NOTHING_SHOWN, Lag, find_end

_log = logging.getLogger("refold.serve")


class Repeating:
    """Does something again and again, in a thread of its own; an error is logged, and it is tried again.

    Args:
        seconds: between the end of one time and the next.
        action: what to do.
        name: of the thread.
    """

    def __init__(self, seconds: float, action: Callable[[], object], *, name: str) -> None:
        self._seconds = seconds
        self._action = action
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after what is being done."""
        self._told.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        failing = ""
        while True:
            try:
                self._action()
                failing = ""
            except Exception as error:
                if failing != str(error):
                    failing = str(error)
                    _log.error("%s: %s; trying again.", self._thread.name, error)
            if self._told.wait(self._seconds):
                return


@dataclass(frozen=True, slots=True)
class Seen:
    """The end of the log as it was seen last.

    Attributes:
        position: of its last event.
        recorded_at: when that was recorded, RFC 3339; empty for an empty log.
        unsealed: events that are not sealed yet.
        unseen_since: since when the reader had not shown all of it, Unix time.
    """

    position: int = 0
    recorded_at: str = ""
    unsealed: int = 0
    unseen_since: float | None = None


class LogWatch:
    """Knows where the log ends, as of the last look.

    Args:
        log: the log.
        source: the reader whose lag is told.
    """

    def __init__(self, log: EventLog, source: ReadSource) -> None:
        self._log = log
        self._source = source
        self._seen = Seen()
        self._lock = threading.Lock()

    def look(self) -> None:
        """Look for the end of the log; some looks at files or objects."""
        standing = self._source.standing()
        at = Checkpoint(standing.position, standing.commit_number, standing.recorded_at) if standing else NOTHING_SHOWN
        end = find_end(self._log)
        since = None
        if end.position > at.position:
            first = self._log.commit_info(at.commit_number + 1)
            since = first.recorded_at.timestamp() if first else _unix(at.recorded_at)
        with self._lock:
            if end.position >= self._seen.position:
                self._seen = Seen(end.position, end.recorded_at, end.unsealed, since)

    def saw(self, position: int) -> None:
        """Take note of an event that this process appended."""
        with self._lock:
            if (more := position - self._seen.position) > 0:
                now = datetime.now(UTC)
                since = self._seen.unseen_since or now.timestamp()
                self._seen = Seen(position, now.isoformat(), self._seen.unsealed + more, since)

    @property
    def end(self) -> Seen:
        """Where the log ends."""
        return self._seen

    def lag(self, position: int) -> Lag:
        """Tell how far rows that stand somewhere are behind; the seconds may be too many, by the time of a look."""
        seen = self._seen
        events = seen.position - position
        if events <= 0:
            return Lag(0, 0.0)
        since = seen.unseen_since
        return Lag(events, None if since is None else round(max(time.time() - since, 0.0), 3))


def _unix(moment: str) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None
