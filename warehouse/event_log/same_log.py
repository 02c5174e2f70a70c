"""Whether a log is still the one that a process opened: its folder may be gone, replaced, or mounted elsewhere."""

from __future__ import annotations

import os
import time

from refold.event_schemas import DamagedLogError, LogError
from refold.warehouse.event_log.layout import CONFIG_KEY
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import open_log

_READ_EVERY = 1.0
"""Seconds between two reads of a remote log's description: a bucket is replaced less easily than a folder."""


class SameLog:
    """Notices that a log was replaced.

    Args:
        log: the log, as it was opened.

    Attributes:
        is_replaced: whether the last check found that it is gone, or another; false if it could not find out.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._seen: object = None
        self._read_at = -_READ_EVERY
        self.is_replaced = False

    def check(self) -> None:
        """Check that the log's description is the one that was read when the log was opened.

        Raises:
            StoreError: the log is gone.
            DamagedLogError: another log is in its place.
        """
        if self._log.store.is_local:
            seen = self._identity()
            if seen == self._seen:
                return
        elif time.monotonic() - self._read_at < _READ_EVERY:
            return
        else:
            seen = None
        self._compare()
        self._seen, self._read_at = seen, time.monotonic()

    def _identity(self) -> object:
        try:
            found = os.stat(os.path.join(self._log.url, CONFIG_KEY))
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _compare(self) -> None:
        self.is_replaced = False
        try:
            found = open_log(self._log.url)
        except DamagedLogError:
            raise
        except LogError:
            self.is_replaced = True
            self._log.check_there()
            raise
        if (found.log_id, found.start) != (self._log.log_id, self._log.start):
            self.is_replaced = True
            raise DamagedLogError(
                f"Another log is at {self._log.url}: its identity is {found.log_id}, but this process opened "
                f"{self._log.log_id}. Nothing was appended. Restart the process if the new log is meant."
            )
