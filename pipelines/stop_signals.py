"""SIGINT and SIGTERM as requests to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from time import monotonic

_SAME_REQUEST_SECONDS = 1.0
"""Longer than signals of one request are apart, shorter than people take to press Ctrl-C again."""


class StopRequests:
    """Handles signals: the first stops in order, a later one at once.

    Signals that come together are one request: a supervisor may signal a process and then its whole group, and so do
    ``timeout`` and a terminal whose command has a wrapper.

    A signal handler can interrupt any code, so it takes no lock.

    Args:
        first: called with the first request.
        again: called with every later one.
    """

    def __init__(self, first: Callable[[], object], again: Callable[[], object]) -> None:
        self._first = first
        self._again = again
        self._since: float | None = None

    @property
    def received(self) -> bool:
        """Whether a request came."""
        return self._since is not None

    def install(self) -> None:
        """Take both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, *_: object) -> None:
        """Take a signal."""
        now = monotonic()
        if self._since is None:
            self._since = now
            self._first()
        elif now - self._since > _SAME_REQUEST_SECONDS:
            self._again()
