"""The versions of all streams, and the end of the log, as an appender last read them."""

from __future__ import annotations

import time
from datetime import datetime

from refold.warehouse.event_log.chain import Link, check_next
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.heads import SealedHeads
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Manifest

_PRUNE_TAIL_ABOVE = 100_000
"""Streams in memory beyond which the index reads the newest manifest, to drop those that a seal has covered."""

_PRUNE_EVERY = 1_000
"""Commits after which the index does so too, so that its memory depends on the unsealed commits alone."""

IDLE = 60.0
"""Seconds after which an index no longer relies on what it knows; far less than sealed commits are kept."""


def clock() -> float:
    """Return seconds since the machine was started, those in which it was suspended included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class StreamIndex:
    """Maps streams to versions: those of unsealed commits in memory, those of sealed ones by lookup in their files.

    One thread at a time may change it; :meth:`version` may be called beside it.

    Args:
        log: the log; it is read at the first use.

    Attributes:
        is_loaded: whether the log was read.
        synced_at: when the end was last known to be the end, by :func:`clock`.
        end: the place after the last commit read.
        recorded_at: time at which that commit was recorded.
    """

    end: Link
    recorded_at: datetime

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.is_loaded = False
        self._sealed: SealedHeads
        self._bucket_count = 0
        self._tail: dict[str, tuple[int, int]] = {}
        self._commits_of: dict[str, list[CommitInfo]] = {}
        self._imports: list[CommitInfo] = []
        self._prune_above = _PRUNE_TAIL_ABOVE
        self._added = 0
        self.synced_at = 0.0

    def load(self) -> None:
        """Read the end of the log, unless that was done.

        Raises:
            DamagedLogError: a commit is missing.
        """
        if self.is_loaded:
            return
        head = self._log.head()
        self._log.check_writable()
        self._log.check_end(head)
        self._sealed = SealedHeads(self._log, head.sealed)
        self._bucket_count = head.sealed.bucket_count
        self.end = head.sealed.end
        self.recorded_at = Head(head.sealed, ()).last_recorded_at
        self._tail.clear()
        self._commits_of.clear()
        self._imports.clear()
        for info in head.tail:
            self.add(info)
        self.is_loaded, self.synced_at = True, clock()

    def catch_up(self) -> None:
        """Read the commits that are new.

        Sealed commits may be removed after a while. So if nothing was read for :data:`IDLE` seconds, the manifest says
        whether the next numbers were used and removed meanwhile; the log is then read again.
        """
        self.load()
        now = clock()
        if now - self.synced_at > IDLE and self.was_passed(self.end.commit_number):
            self.is_loaded = False
            self.load()
        for info in self._log.commits_after(self.end):
            if not self._log.has_bucket_count(info, self._bucket_count):  # the log was rebucketed
                self.is_loaded = False
                return self.load()
            self.add(info)
        self.synced_at = now

    def was_passed(self, number: int) -> bool:
        """Check whether the log was sealed beyond a commit, so that the commits after it may have been removed."""
        return self._log.manifest().sealed_commit > number

    def add(self, info: CommitInfo) -> None:
        """Add the next commit. Its end comes last, so that a commit is read again if an earlier step fails.

        Raises:
            DamagedLogError: it does not follow the one before it.
        """
        where = f"{self._log.url}/{commit_key(info.number)}"
        check_next(self.end, info.number, info.first_position, info.previous, where=where)
        self._added += 1
        if info.import_id is not None or len(self._tail) > self._prune_above or self._added > _PRUNE_EVERY:
            self._prune([*self._imports, info] if info.import_id is not None else self._imports)
        for stream_id, version in info.heads.items():
            self._tail[stream_id] = (version, info.number)
            self._commits_of.setdefault(stream_id, []).append(info)
        self.end, self.recorded_at = info.end, info.recorded_at

    def version(self, stream_id: str) -> int:
        """Return a stream's last version; 0 if it has no events."""
        known = self._tail.get(stream_id)
        return known[0] if known else self._sealed.version(stream_id)

    def head_of(self, stream_id: str) -> Head:
        """Return the end of the log with only those unsealed commits that may hold events of a stream."""
        sealed = self._log.manifest()
        tail = [*self._imports, *self._commits_of.get(stream_id, ())]
        return Head(sealed, tuple(sorted((i for i in tail if i.number > sealed.sealed_commit), key=lambda i: i.number)))

    def _prune(self, imports: list[CommitInfo]) -> None:
        """Drop what a newer manifest covers; heads of unsealed bulk imports are looked up like sealed ones."""
        manifest = self._log.manifest()
        sealed = manifest.sealed_commit
        self._imports = [info for info in imports if info.number > sealed]
        for info in self._imports:
            self._log.check_bucket_count(info, manifest.bucket_count)
        runs = (*manifest.heads, *(run for info in self._imports for run in info.heads_runs))
        self._sealed = SealedHeads(self._log, Manifest(heads=runs, bucket_count=manifest.bucket_count))
        self._bucket_count = manifest.bucket_count
        self._tail = {s: (v, n) for s, (v, n) in self._tail.items() if n > sealed}
        kept = {s: [info for info in infos if info.number > sealed] for s, infos in self._commits_of.items()}
        self._commits_of = {s: infos for s, infos in kept.items() if infos}
        self._prune_above = max(_PRUNE_TAIL_ABOVE, 2 * len(self._tail))
        self._added = 0
