"""Wait for a position: how a client reads its own writes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from refold.warehouse.queries.read_source import ReadSource


class PositionWait:
    """Requests that wait until the read models show a position; create it in the event loop of the requests.

    Args:
        source: the reader that answers them.
    """

    def __init__(self, source: ReadSource) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._waiters: set[tuple[int, asyncio.Future[None]]] = set()

    def notify(self) -> None:
        """Wake the requests whose position is shown; any thread may call this after the reader advanced."""
        with suppress(RuntimeError):  # the loop is closed, so no request waits
            self._loop.call_soon_threadsafe(self._wake)

    async def until(self, position: int, seconds: float) -> None:
        """Wait until a position is shown, or until the time is up."""
        if self._shown() >= position or not seconds:
            return
        waiter = (position, self._loop.create_future())
        self._waiters.add(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter[1]
        finally:
            self._waiters.discard(waiter)

    def _shown(self) -> int:
        shown = self._source.read_position()
        return shown.position if shown else 0

    def _wake(self) -> None:
        shown = self._shown()
        for position, future in self._waiters:
            if position <= shown and not future.done():
                future.set_result(None)
