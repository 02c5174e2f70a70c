"""The estimated time of a rebuild, from the measurement of the last one, or from defaults if there is none.

With ``s`` the serial share of a rebuild (loading, catching up, publishing) and ``w0`` the number of workers of the
measurement, Amdahl's law gives for ``w`` workers::

    seconds(events, w) = startup + events / events_per_second * (s + (1 - s) * w0 / w)
"""

from __future__ import annotations

from dataclasses import dataclass

from refold.event_schemas import UsageError
from refold.warehouse.read_models.generations.generations import Generation

DEFAULT_EVENTS_PER_SECOND = 500_000
"""Speed of one worker, with events counted once for each read model; see docs/measurements.md."""

DEFAULT_SERIAL_SHARE = 0.2
DEFAULT_STARTUP_SECONDS = 1.0
DEFAULT_WORKERS = 2

MIN_MEASURED_SECONDS = 10.0
"""A shorter rebuild is mostly start-up: it measures the start-up time, and not the speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The speed of rebuilds.

    Attributes:
        events_per_second: speed with ``workers`` workers, with events counted once for each read model that reads them.
        startup_seconds: time of a rebuild without events.
        workers: number of workers of that speed.
        serial_share: share of the time that does not depend on the number of workers, from 0 to 1.
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
        """Estimate the time of a rebuild in seconds.

        Args:
            events: number of events to replay, counted once for each read model that reads them.
            workers: number of workers; by default that of the measurement.

        Raises:
            UsageError: ``workers`` is less than 1.

        Example:
            >>> rate = Rate(events_per_second=1000.0, startup_seconds=0.0, workers=1, serial_share=0.5, measured=True,
            ...             serial_measured=True)
            >>> rate.seconds(10_000), rate.seconds(10_000, workers=5)
            (10.0, 6.0)
        """
        if workers is not None and workers < 1:
            raise UsageError(f"A rebuild cannot have {workers} workers; give 1 or more.")
        ratio = self.workers / (workers or self.workers)
        factor = self.serial_share + (1 - self.serial_share) * ratio
        return self.startup_seconds + events / self.events_per_second * factor


def rate_of(newest: Generation | None) -> Rate:
    """Return the rate measured by a generation's rebuild, with defaults for what it did not measure."""
    measured = newest.measured if newest else None
    workers = measured.workers if measured else DEFAULT_WORKERS
    if measured is None or measured.seconds < MIN_MEASURED_SECONDS:
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
