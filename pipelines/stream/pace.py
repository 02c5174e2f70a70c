"""The pace of a stream: how long it waits for the next commit or for a store, and when it writes a heartbeat."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from refold.event_schemas import StoreUnavailableError
from refold.warehouse.read_models.generations.generations import Generations
from refold.warehouse.read_models.live.heartbeat import Heartbeat, forget_heartbeat, write_heartbeat
from refold.warehouse.read_models.live.live_database import LiveDatabase

_HEARTBEAT_EVERY = {True: 1.0, False: 3.0}
"""Seconds, on a local store and on a remote one, where each heartbeat costs some requests."""


class Wait:
    """Wait for the next commit: shortly after the last one, and longer the longer none comes.

    Args:
        local: a look at the log costs a system call, not a request.
    """

    def __init__(self, *, local: bool) -> None:
        self._shortest, self._longest = (0.002, 0.025) if local else (0.05, 1.0)  # seconds
        self._seconds = self._shortest

    def reset(self) -> None:
        """Take note that a commit came."""
        self._seconds = self._shortest

    def idle(self) -> None:
        """Wait, since none came."""
        time.sleep(self._seconds)
        self._seconds = min(self._seconds * 1.5, self._longest)


Result = TypeVar("Result")


class Outage:
    """Repeat what fails because a store is unavailable, at growing intervals of up to 15 seconds.

    Args:
        max_seconds: how long an outage may take; then its error is raised.
        stop: an outage also ends with its error if this returns True.
        report: called with a sentence when an outage begins, and when it is over.
    """

    def __init__(self, max_seconds: float, stop: Callable[[], bool], report: Callable[[str], None]) -> None:
        self._max_seconds = max_seconds
        self._stop = stop
        self._report = report

    def repeat(self, operation: Callable[[], Result]) -> Result:
        """Run an operation until the store responds.

        Raises:
            StoreUnavailableError: the outage takes too long, or the stream is to stop.
        """
        try:
            return operation()
        except StoreUnavailableError as error:
            if self._stop():
                raise
            self._report(f"{error} Trying again for up to {self._max_seconds:,.0f} s.")
        began, too_long = time.monotonic(), stop_after_delay(self._max_seconds)
        retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            wait=wait_random_exponential(multiplier=0.5, max=15),
            stop=lambda state: too_long(state) or self._stop(),
            sleep=self._sleep,
            reraise=True,
        )
        result = retrying(operation)
        self._report(f"The store responds again, after {time.monotonic() - began:.0f} s.")
        return result

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


class HeartbeatTimer:
    """Write a heartbeat every few seconds, so that others see that a stream is alive, and its position."""

    def __init__(self, generations: Generations) -> None:
        self._store = generations.store
        self._started = datetime.now(UTC).isoformat()
        self._written = 0.0
        self._events = 0

    def is_due(self) -> bool:
        """Check whether it is time for the next heartbeat."""
        return time.monotonic() - self._written >= _HEARTBEAT_EVERY[self._store.is_local]

    def write(self, live: LiveDatabase, events: int) -> None:
        """Write a heartbeat.

        Args:
            live: the database of the stream.
            events: how many events the stream has applied since its start.
        """
        now = time.monotonic()
        since = now - self._written
        rate = (events - self._events) / since if self._written else 0.0
        self._written, self._events = now, events
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
                commit_digest=live.at.commit_digest,
            ),
        )

    def stop(self) -> None:
        """Remove the heartbeat."""
        forget_heartbeat(self._store)
