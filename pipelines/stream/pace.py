"""The pace of a stream: how long it waits for the next commit, and when it says that it is alive."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime

from refold.warehouse.read_models.generations.generations import Generations
from refold.warehouse.read_models.live.heartbeat import Heartbeat, forget_heartbeat, write_heartbeat
from refold.warehouse.read_models.live.live_database import LiveDatabase

_HEARTBEAT_EVERY = {True: 1.0, False: 3.0}
"""Seconds, on a local store and on a remote one, where each costs some requests."""


class Wait:
    """Waiting for the next commit: short after the last, longer the longer nothing comes.

    Args:
        local: whether a look costs a system call, and not a request.
    """

    def __init__(self, *, local: bool) -> None:
        self._shortest, self._longest = (0.002, 0.025) if local else (0.05, 1.0)
        self._seconds = self._shortest

    def reset(self) -> None:
        """A commit came."""
        self._seconds = self._shortest

    def idle(self) -> None:
        """None came."""
        time.sleep(self._seconds)
        self._seconds = min(self._seconds * 1.5, self._longest)


class HeartbeatTimer:
    """Tells others, every second or few, that a stream is alive and where it stands."""

    def __init__(self, generations: Generations) -> None:
        self._store = generations.store
        self._started = datetime.now(UTC).isoformat()
        self._beat = 0.0
        self._events = 0

    def is_due(self) -> bool:
        """Tell whether it is time."""
        return time.monotonic() - self._beat >= _HEARTBEAT_EVERY[self._store.is_local]

    def beat(self, live: LiveDatabase, events: int) -> None:
        """Write a heartbeat."""
        now = time.monotonic()
        since = now - self._beat
        rate = (events - self._events) / since if self._beat else 0.0
        self._beat, self._events = now, events
        write_heartbeat(
            self._store,
            Heartbeat(
                position=live.at.position,
                commit_number=live.at.commit_number,
                recorded_at=live.at.recorded_at,
                updated_at=datetime.now(UTC).isoformat(),
                started_at=self._started,
                host=socket.gethostname(),
                pid=os.getpid(),
                events=events,
                events_per_second=round(rate, 1),
            ),
        )

    def stop(self) -> None:
        """Take the heartbeat away."""
        forget_heartbeat(self._store)
