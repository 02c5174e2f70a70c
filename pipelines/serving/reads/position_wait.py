"""Waiting for a position: how a client reads what it wrote."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from refold.warehouse.queries.readers import ReadSource


class Waiting:
    """Requests that wait until the read models show a position; made in the event loop that they run in.

    Args:
        source: the reader that answers them.
    """

    def __init__(self, source: ReadSource) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._waiting: set[tuple[int, asyncio.Future[None]]] = set()

    def moved(self) -> None:
        """Take note, from any thread, that the reader shows more than before."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake)

    async def until(self, position: int, seconds: float) -> None:
        """Wait until a position is shown, at most so long."""
        if self._shown() >= position or not seconds:
            return
        entry = (position, self._loop.create_future())
        self._waiting.add(entry)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await entry[1]
        finally:
            self._waiting.discard(entry)

    def _shown(self) -> int:
        standing = self._source.standing()
        return standing.position if standing else 0

    def _wake(self) -> None:
        shown = self._shown()
        for position, future in self._waiting:
            if position <= shown and not future.done():
                future.set_result(None)
