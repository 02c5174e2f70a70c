"""The end of the log, refreshed in the background, so that every response can report its lag."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from refold.warehouse.event_log.log import EventLog
from refold.warehouse.queries.read_source import ReadSource
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.lag import NEVER_BUILT, Lag, find_end, lag_of

_log = logging.getLogger("refold.serve")


class PeriodicTask:
    """Runs an action periodically in its own thread; an error is logged, and the action is retried.

    Args:
        seconds: between the end of one run and the start of the next.
        action: the action.
        name: of the thread.
    """

    def __init__(self, seconds: float, action: Callable[[], object], *, name: str) -> None:
        self._seconds = seconds
        self._action = action
        self._stopping = threading.Event()
        self._ran = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_for_first_run(self, seconds: float) -> None:
        """Wait until the first run has ended, but no longer than some seconds."""
        self._ran.wait(seconds)

    def stop(self) -> None:
        """Stop after the current run."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        last_error = ""  # an error that repeats is logged once
        while True:
            try:
                self._action()
                last_error = ""
            except Exception as error:
                if last_error != str(error):
                    last_error = str(error)
                    _log.error("%s: %s; retrying.", self._thread.name, error)
            self._ran.set()
            if self._stopping.wait(self._seconds):
                return


@dataclass(frozen=True, slots=True)
class ObservedEnd:
    """The end of the log at the last refresh.

    Attributes:
        position: of the last event.
        recorded_at: when that event was recorded, RFC 3339; empty for an empty log.
        unsealed: events that are not sealed yet.
        behind_since: when the oldest event that the reader did not show was appended, Unix time; None if it showed all,
            or if it is unknown because of a wrong clock.
        appended_at: when the last event was appended, RFC 3339; empty for an empty log, or if it is unknown.
    """

    position: int = 0
    recorded_at: str = ""
    unsealed: int = 0
    behind_since: float | None = None
    appended_at: str = ""


class LogTail:
    """Knows the end of the log as of the last refresh.

    Args:
        log: the log.
        source: the reader whose lag is reported.
    """

    def __init__(self, log: EventLog, source: ReadSource) -> None:
        self._log = log
        self._source = source
        self._end = ObservedEnd()
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Find the end of the log, with a few reads of files or objects."""
        shown = self._source.read_position()
        at = Checkpoint(shown.position, shown.commit_number, shown.recorded_at) if shown else NEVER_BUILT
        end = find_end(self._log)
        now = datetime.now(UTC)
        lag = lag_of(self._log, end, at, now=now)
        since = now.timestamp() - lag.seconds if lag.events and lag.seconds is not None else None
        with self._lock:
            if end.position >= self._end.position:
                self._end = ObservedEnd(end.position, end.recorded_at, end.unsealed, since, end.appended_at)

    def note_append(self, position: int) -> None:
        """Note an event that this process appended."""
        with self._lock:
            if (added := position - self._end.position) > 0:
                now = datetime.now(UTC)
                since = self._end.behind_since or now.timestamp()
                at = now.isoformat()
                self._end = ObservedEnd(position, at, self._end.unsealed + added, since, at)

    @property
    def end(self) -> ObservedEnd:
        """The end of the log."""
        return self._end

    def lag(self, position: int) -> Lag:
        """Return the lag of rows at a position; the seconds may be too high by the refresh interval."""
        end = self._end
        events = end.position - position
        if events <= 0:
            return Lag(0, 0.0)
        since = end.behind_since
        return Lag(events, None if since is None else round(max(time.time() - since, 0.0), 3))
