"""Capacity estimation with the standard formulas of event sourcing: what a design will need, before there is a log.

A forecast from a log that is there is in ``warehouse/capacity/forecast.py``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from refold.event_schemas import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What is assumed of a system; the defaults are the textbook's example of an order system.

    Args:
        entities: how many there will be, such as orders.
        events_per_entity: on average, over an entity's whole life.
        payload_bytes: of one event's payload.
        envelope_bytes: of one event's metadata.
        duplication_factor: what the store takes above the raw events, for snapshots and copies.
        seconds_per_event: what one worker needs to replay an event.
        workers: how many replay side by side.
        row_bytes: of one entity in the read models.

    Raises:
        UsageError: a value is not above 0, or not a number of workers.
    """

    entities: int = 10_000_000
    events_per_entity: float = 20.0
    payload_bytes: int = 500
    envelope_bytes: int = 100
    duplication_factor: float = 1.3
    seconds_per_event: float = 0.001
    workers: int = 10
    row_bytes: int = 2000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise UsageError(f"{field.name} is {value}; expected a number above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a system of some sizing needs; bytes, with 1 GB being 10^9 of them, and seconds.

    Attributes:
        events: in all.
        raw_bytes: of the events alone.
        stored_bytes: of the event store.
        rebuild_seconds: of replaying all events.
        read_model_bytes: of the read models.
    """

    events: int
    raw_bytes: int
    stored_bytes: int
    rebuild_seconds: float
    read_model_bytes: int


def estimate(sizing: Sizing) -> Estimate:
    """Work out what a system needs.

    Args:
        sizing: what is assumed of it.

    Example:
        >>> found = estimate(Sizing(entities=1000))
        >>> found.events, found.raw_bytes, found.stored_bytes, found.rebuild_seconds, found.read_model_bytes
        (20000, 12000000, 15600000, 2.0, 2000000)
    """
    events = total_events(sizing.entities, sizing.events_per_entity)
    raw = raw_bytes(events, sizing.payload_bytes, sizing.envelope_bytes)
    return Estimate(
        events=events,
        raw_bytes=raw,
        stored_bytes=stored_bytes(raw, sizing.duplication_factor),
        rebuild_seconds=rebuild_seconds(events, sizing.seconds_per_event, sizing.workers),
        read_model_bytes=read_model_bytes(sizing.entities, sizing.row_bytes),
    )


def total_events(entities: int, events_per_entity: float) -> int:
    """Count events: ``entities * events_per_entity``.

    Example:
        >>> total_events(10_000_000, 20)
        200000000
    """
    return round(entities * events_per_entity)


def raw_bytes(events: int, payload_bytes: int, envelope_bytes: int) -> int:
    """Size the events alone: ``events * (payload_bytes + envelope_bytes)``.

    Example:
        >>> raw_bytes(200_000_000, 500, 100)
        120000000000
    """
    return events * (payload_bytes + envelope_bytes)


def stored_bytes(raw: int, duplication_factor: float) -> int:
    """Size the event store: ``raw_bytes * duplication_factor``, for snapshots and copies.

    Example:
        >>> stored_bytes(120_000_000_000, 1.3)
        156000000000
    """
    return round(raw * duplication_factor)


def rebuild_seconds(events: int, seconds_per_event: float, workers: int) -> float:
    """Time a rebuild: ``events * seconds_per_event / workers``; all of the work is taken to divide evenly.

    Example:
        >>> rebuild_seconds(200_000_000, 0.001, 10) / 3600
        5.555555555555555
    """
    return events * seconds_per_event / workers


def read_model_bytes(entities: int, row_bytes: int) -> int:
    """Size the read models: ``entities * row_bytes``, indexes included.

    Example:
        >>> read_model_bytes(10_000_000, 2000)
        20000000000
    """
    return entities * row_bytes
