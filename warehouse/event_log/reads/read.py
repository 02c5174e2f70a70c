"""Reading events back: one stream, a category, a correlation, a range of positions, the last few.

Each reader returns an iterator that holds little memory, however much it yields (``scanning.py`` tells how), and opens
only what can hold such events.
"""

from __future__ import annotations

from collections.abc import Iterator

from refold.event_schemas import RecordedEvent, Registry, UsageError
from refold.warehouse.engine.sql import literal
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.log import EventLog, Head
from refold.warehouse.event_log.reads.scan import FOREVER, Selection, scan


def read_stream(
    log: EventLog,
    registry: Registry,
    stream_id: str,
    *,
    from_version: int = 1,
    to_version: int | None = None,
    head: Head | None = None,
) -> Iterator[RecordedEvent]:
    """Read one stream in order; only the segments of its bucket are opened.

    Args:
        log: the log.
        registry: the contracts, which give payloads their types.
        stream_id: the stream; one that the log does not have yields nothing.
        from_version: the first stream version to read.
        to_version: the last one; to the end by default.
        head: the end of the log, if the caller has it at hand.

    Raises:
        UsageError: the versions make no range.
        DamagedLogError: an object of the log is missing or truncated.

    Example:
        >>> import tempfile
        >>> from refold.event_schemas import event
        >>> from refold.warehouse.event_log import Appender, create_log
        >>> @event(schema_version=1)
        ... class DoorOpened:
        ...     door: str
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log, registry = create_log(folder, domain_name="doors"), Registry(events=[DoorOpened])
        ...     appended = Appender(log, registry).append("door-1", [DoorOpened(door="front")])
        ...     [(e.stream_version, e.payload) for e in read_stream(log, registry, "door-1")]
        [(1, {'door': 'front'})]
    """
    if from_version < 1 or (to_version is not None and to_version < from_version):
        raise UsageError(
            f"Stream versions {from_version} to {to_version} make no range: they start at 1, and the last is not "
            "below the first."
        )
    bucket = bucket_of(stream_id, log.bucket_count)
    wanted = Selection(
        condition=f"stream_id = {literal(stream_id)}",
        segment=lambda s: s.bucket == bucket,
        commit=lambda info: info.heads.get(stream_id, 0) >= from_version,
        order="stream_version",
        after=from_version - 1,
        up_to=FOREVER if to_version is None else to_version,
    )
    return scan(log, registry, head or log.head(), wanted)


def read_category(
    log: EventLog, registry: Registry, category: str, *, head: Head | None = None
) -> Iterator[RecordedEvent]:
    """Read the streams named ``<category>-...``, in position order.

    Args:
        log: the log.
        registry: the contracts.
        category: what comes before the dash, such as ``order``.
        head: the end of the log, if the caller has it at hand.

    Raises:
        UsageError: the category is empty.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if not category:
        raise UsageError("The category is empty; name what comes before the dash of its streams, such as 'order'.")
    head = head or log.head()
    # "." is the character after "-": a range, unlike LIKE, is compared with the statistics of row groups.
    wanted = Selection(
        condition=f"stream_id >= {literal(f'{category}-')} AND stream_id < {literal(f'{category}.')}",
        commit=lambda info: any(s.startswith(f"{category}-") for s in info.heads),
        up_to=head.position,
        width=head.position,
    )
    return scan(log, registry, head, wanted)


def read_correlation(
    log: EventLog, registry: Registry, correlation_id: str, *, head: Head | None = None
) -> Iterator[RecordedEvent]:
    """Read what belongs together across streams, in position order; it looks through the whole log.

    Args:
        log: the log.
        registry: the contracts.
        correlation_id: as it was given when the events were appended.
        head: the end of the log, if the caller has it at hand.

    Raises:
        DamagedLogError: an object of the log is missing or truncated.
    """
    head = head or log.head()
    condition = f"correlation_id = {literal(correlation_id)}"
    return scan(log, registry, head, Selection(condition=condition, up_to=head.position, width=head.position))


def read_positions(
    log: EventLog, registry: Registry, after: int, up_to: int | None = None, *, head: Head | None = None
) -> Iterator[RecordedEvent]:
    """Read the events with ``after < position <= up_to``, in order.

    Args:
        log: the log.
        registry: the contracts.
        after: a position; 0 is before the first event.
        up_to: a position; the end of the log by default.
        head: the end of the log, if the caller has it at hand.

    Raises:
        UsageError: ``after`` is negative.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if after < 0:
        raise UsageError(f"Positions start at 1: read after 0 or more, not after {after}.")
    head = head or log.head()
    last = head.position if up_to is None else min(up_to, head.position)
    return scan(log, registry, head, Selection(condition="true", after=after, up_to=last))


def tail(log: EventLog, registry: Registry, count: int, *, head: Head | None = None) -> Iterator[RecordedEvent]:
    """Read the last events of the log, in position order.

    Args:
        log: the log.
        registry: the contracts.
        count: how many, at most.
        head: the end of the log, if the caller has it at hand.

    Raises:
        UsageError: the count is negative.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if count < 0:
        raise UsageError(f"Cannot read the last {count} events: give 0 or more.")
    head = head or log.head()
    return read_positions(log, registry, max(head.position - count, 0), head=head)
