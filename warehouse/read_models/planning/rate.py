"""How long a replay will take: by what the last rebuild took, or by a default before there was one.

With ``s`` the share of a rebuild that no further worker makes shorter (loading, catching up, publishing) and ``w0`` the
workers that it was measured with, Amdahl's law gives for ``w`` workers::

    seconds(events, w) = startup + events / events_per_second * (s + (1 - s) * w0 / w)
"""

from __future__ import annotations

from dataclasses import dataclass

from refold.event_schemas import UsageError
from refold.warehouse.read_models.generations.generations import Generation

DEFAULT_EVENTS_PER_SECOND = 500_000
"""Of one worker, each event counted once a read model that reads it: the order of docs/measurements.md."""

DEFAULT_SERIAL_SHARE = 0.2
DEFAULT_STARTUP_SECONDS = 1.0
DEFAULT_WORKERS = 2

TELLING_SECONDS = 10.0
"""A rebuild that took less is mostly start-up: it tells how long that takes, and not the speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast rebuilds are.

    Attributes:
        events_per_second: with ``workers`` workers, each event counted once a read model that reads it.
        startup_seconds: what a rebuild takes however few its events are.
        workers: how many the speed is of.
        serial_share: which share of the time further workers do not make shorter, from 0 to 1.
        measured: whether the speed was measured; else it is a default.
        serial_measured: whether the serial share was measured.
    """

    events_per_second: float
    startup_seconds: float
    workers: int
    serial_share: float
    measured: bool
    serial_measured: bool

    def seconds(self, events: int, workers: int | None = None) -> float:
        """Foresee the seconds that a rebuild takes.

        Args:
            events: to replay, each counted once a read model that reads it.
            workers: how many there will be; as many as were measured by default.

        Raises:
            UsageError: there is no worker.

        Example:
            >>> rate = Rate(events_per_second=1000.0, startup_seconds=0.0, workers=1, serial_share=0.5, measured=True,
            ...             serial_measured=True)
            >>> rate.seconds(10_000), rate.seconds(10_000, workers=5)
            (10.0, 6.0)
        """
        if workers is not None and workers < 1:
            raise UsageError(f"A rebuild with {workers} workers cannot be; give 1 or more.")
        shared = self.workers / (workers or self.workers)
        share = self.serial_share + (1 - self.serial_share) * shared
        return self.startup_seconds + events / self.events_per_second * share


def rate_of(newest: Generation | None) -> Rate:
    """Give the rate that a generation's rebuild was measured at, and defaults for what it does not tell."""
    measured = newest.measured if newest else None
    workers = measured.workers if measured else DEFAULT_WORKERS
    if measured is None or measured.seconds < TELLING_SECONDS:
        speed = float(DEFAULT_EVENTS_PER_SECOND * workers)
        startup = max(measured.seconds - measured.events / speed, 0.0) if measured else DEFAULT_STARTUP_SECONDS
        return Rate(
            events_per_second=speed,
            startup_seconds=startup,
            workers=workers,
            serial_share=DEFAULT_SERIAL_SHARE,
            measured=False,
            serial_measured=False,
        )
    serial = measured.serial_seconds
    return Rate(
        events_per_second=max(measured.events, 1) / (measured.seconds - DEFAULT_STARTUP_SECONDS),
        startup_seconds=DEFAULT_STARTUP_SECONDS,
        workers=workers,
        serial_share=DEFAULT_SERIAL_SHARE if serial is None else min(serial / measured.seconds, 1.0),
        measured=True,
        serial_measured=serial is not None,
    )
