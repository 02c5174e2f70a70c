"""The end of the event log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.clocks import NEVER
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log: the newest manifest, and the commits after it.

    Attributes:
        sealed: the newest manifest.
        tail: footers of the unsealed commits, in order.
    """

    sealed: Manifest
    tail: tuple[CommitInfo, ...]

    @property
    def commit(self) -> int:
        """Number of the last commit; 0 for an empty log."""
        return self.tail[-1].number if self.tail else self.sealed.sealed_commit

    @property
    def position(self) -> int:
        """Position of the last event; 0 for an empty log."""
        return self.tail[-1].last_position if self.tail else self.sealed.sealed_position

    @property
    def end(self) -> Link:
        """The place after the last commit."""
        return self.tail[-1].end if self.tail else self.sealed.end

    @property
    def recorded_at(self) -> str:
        """Time at which the last commit was recorded, RFC 3339; empty for an empty log."""
        return self.tail[-1].recorded_at.isoformat() if self.tail else self.sealed.recorded_at

    @property
    def last_recorded_at(self) -> datetime:
        """The same as a time; ``NEVER`` for an empty log."""
        return datetime.fromisoformat(self.recorded_at) if self.recorded_at else NEVER
