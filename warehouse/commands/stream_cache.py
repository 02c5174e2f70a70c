"""The streams that were used last, kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from refold.warehouse.commands.snapshots import Loaded


class StreamCache:
    """The streams that were used last; threads may share it.

    Args:
        max_streams: the number of streams to keep; beyond it, the least recently used one is dropped.
    """

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._kept: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, stream_id: str) -> Loaded | None:
        """Return a stream; None if it is not in the cache."""
        with self._lock:
            if (found := self._kept.get(stream_id)) is not None:
                self._kept.move_to_end(stream_id)
            return found

    def clear(self) -> None:
        """Drop all streams."""
        with self._lock:
            self._kept.clear()

    def put(self, stream_id: str, loaded: Loaded) -> None:
        """Keep a stream."""
        with self._lock:
            self._kept[stream_id] = loaded
            self._kept.move_to_end(stream_id)
            while len(self._kept) > self._max_streams:
                self._kept.popitem(last=False)
