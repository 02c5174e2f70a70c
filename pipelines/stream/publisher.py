"""Publishing beside a stream: when to publish, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from refold.event_schemas import GenerationError, StoreUnavailableError
from refold.warehouse.read_models.generations.generations import Generations
from refold.warehouse.read_models.live.live_database import LiveDatabase
from refold.warehouse.read_models.live.publisher_process import PublishingProcess

_MAX_FAILURES = 5
"""Publishes that may fail one after the other; the stream then ends with the error. An outage of the store does not
count: it also fails the stream's heartbeat, which is repeated for as long as an outage may take."""


class StreamPublisher:
    """Publish a live database every few seconds, in a process of its own.

    Args:
        process: does the work.
        generations: where it publishes.
        every: seconds between two publishes, if anything changed; the one before must have ended.
        report: called with a sentence and, if a generation was published, the seconds that it took.

    Attributes:
        lost_race: another publisher was first; its generation has to be taken over.
    """

    def __init__(
        self,
        process: PublishingProcess,
        generations: Generations,
        every: float,
        report: Callable[[str, float], None],
    ) -> None:
        self._process = process
        self._generations = generations
        self._every = every
        self._report = report
        self._published_position = self._requested_position = 0
        self._published_at = time.monotonic()
        self._failures = 0
        self.lost_race = False
        self.start, self.close = process.start, process.close

    @property
    def busy(self) -> bool:
        """Whether a publish is under way."""
        return self._process.busy

    def opened(self, live: LiveDatabase) -> None:
        """Take note of a live database that was opened: it shows what is published."""
        self._published_position = live.at.position
        self.lost_race = False

    def is_behind(self, live: LiveDatabase) -> bool:
        """Check whether the live database has changes that are not published."""
        return live.at.position > self._published_position or live.has_other_views

    def look(self, live: LiveDatabase) -> None:
        """Check how a publish is going, or request one if it is due."""
        if self.busy:
            self.end(live, block=False)
        elif self.is_behind(live) and time.monotonic() - self._published_at >= self._every:
            self.request(live)

    def request(self, live: LiveDatabase) -> bool:
        """Request a publish; False if a reader keeps the file from being complete now."""
        if not live.checkpoint():
            return False
        self._published_at = time.monotonic()
        self._requested_position = live.at.position
        self._process.ask(live.path, live.generation)
        return True

    def end(self, live: LiveDatabase, *, block: bool) -> None:
        """Take note of the end of a publish, if it ended.

        Args:
            live: what is being published.
            block: wait for the end.

        Raises:
            GenerationError: it failed, as did those before it.
            StoreUnavailableError: with ``block``, the store is unavailable.
        """
        try:
            ended = self._process.wait() if block else self._process.poll()
        except (GenerationError, StoreUnavailableError) as error:
            is_outage = isinstance(error, StoreUnavailableError)
            self._failures += not is_outage
            if self._failures >= _MAX_FAILURES or (is_outage and block):  # who waits for the end bounds the outage
                raise
            self._report(str(error), 0.0)
            return
        finally:
            if not self._process.copying:
                live.release()
        if ended is None:
            return
        self._failures = 0
        if ended.number is None:
            self.lost_race = True
            return
        live.generation = self._generations.get(ended.number)
        position = self._published_position = self._requested_position
        self._report(
            f"Published generation {ended.number} at position {position:,} in {ended.seconds:.1f} s.", ended.seconds
        )
