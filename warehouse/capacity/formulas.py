"""Capacity estimates with the standard formulas of event sourcing, for a design that has no log yet.

``forecast.py`` makes a forecast from an existing log.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from refold.event_schemas import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """The assumptions about a system; the defaults are the textbook example of an order system.

    Args:
        entities: the number of entities, such as orders.
        events_per_entity: the average number of events over the life of an entity.
        payload_bytes: the size of one event's payload.
        envelope_bytes: the size of one event's metadata.
        duplication_factor: the size of the store relative to the raw events, for snapshots and copies.
        seconds_per_event: the time in which one worker replays an event.
        workers: the number of workers that replay in parallel.
        row_bytes: the size of one entity in the read models.

    Raises:
        UsageError: a value is not a number above 0.
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
    """What a system needs, in bytes (1 GB is 10^9) and seconds.

    Attributes:
        events: the number of events.
        raw_bytes: the size of the events alone.
        stored_bytes: the size of the event store.
        rebuild_seconds: the time to replay all events.
        read_model_bytes: the size of the read models.
    """

    events: int
    raw_bytes: int
    stored_bytes: int
    rebuild_seconds: float
    read_model_bytes: int


def estimate(sizing: Sizing) -> Estimate:
    """Return what a system needs.

    Args:
        sizing: the assumptions about it.

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
    """Return the number of events: ``entities * events_per_entity``.

    Example:
        >>> total_events(10_000_000, 20)
        200000000
    """
    return round(entities * events_per_entity)


def raw_bytes(events: int, payload_bytes: int, envelope_bytes: int) -> int:
    """Return the size of the events alone: ``events * (payload_bytes + envelope_bytes)``.

    Example:
        >>> raw_bytes(200_000_000, 500, 100)
        120000000000
    """
    return events * (payload_bytes + envelope_bytes)


def stored_bytes(raw: int, duplication_factor: float) -> int:
    """Return the size of the event store: ``raw_bytes * duplication_factor``, for snapshots and copies.

    Example:
        >>> stored_bytes(120_000_000_000, 1.3)
        156000000000
    """
    return round(raw * duplication_factor)


def rebuild_seconds(events: int, seconds_per_event: float, workers: int) -> float:
    """Return the time of a rebuild: ``events * seconds_per_event / workers``, if all work divides evenly.

    Example:
        >>> rebuild_seconds(200_000_000, 0.001, 10) / 3600
        5.555555555555555
    """
    return events * seconds_per_event / workers


def read_model_bytes(entities: int, row_bytes: int) -> int:
    """Return the size of the read models: ``entities * row_bytes``, indexes included.

    Example:
        >>> read_model_bytes(10_000_000, 2000)
        20000000000
    """
    return entities * row_bytes
