"""Reading events: one stream, a category, a correlation, a range of positions, the last few.

Each function returns an iterator with bounded memory (see ``scan.py``), and opens only objects that may hold matching
events.
"""

from __future__ import annotations

from collections.abc import Iterator

from refold.event_schemas import RecordedEvent, Registry, UsageError
from refold.warehouse.engine.sql import literal
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.reads.scan import NO_LIMIT, Selection, scan


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
        stream_id: the stream; an unknown one yields nothing.
        from_version: the first stream version to read.
        to_version: the last stream version to read; the last of the stream by default.
        head: the end of the log, if the caller has it.

    Raises:
        UsageError: the versions are not a range.
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
            f"Stream versions {from_version} to {to_version} are not a range: give a first version of at least 1, and "
            "a last version that is not below it."
        )
    head = head or log.head()
    bucket = bucket_of(stream_id, head.sealed.bucket_count)
    selection = Selection(
        condition=f"stream_id = {literal(stream_id)}",
        segment=lambda s: s.bucket == bucket,
        commit=lambda info: info.heads.get(stream_id, 0) >= from_version,
        order="stream_version",
        after=from_version - 1,
        up_to=NO_LIMIT if to_version is None else to_version,
    )
    return scan(log, registry, head, selection)


def read_category(
    log: EventLog, registry: Registry, category: str, *, head: Head | None = None
) -> Iterator[RecordedEvent]:
    """Read the streams named ``<category>-...``, in position order.

    Args:
        log: the log.
        registry: the contracts.
        category: the part of the stream id before the dash, such as ``order``.
        head: the end of the log, if the caller has it.

    Raises:
        UsageError: the category is empty.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if not category:
        raise UsageError("The category is empty; give the part of the stream id before the dash, such as 'order'.")
    head = head or log.head()
    # "." follows "-" in ASCII. DuckDB compares a range, unlike LIKE, with the statistics of row groups.
    selection = Selection(
        condition=f"stream_id >= {literal(f'{category}-')} AND stream_id < {literal(f'{category}.')}",
        commit=lambda info: any(s.startswith(f"{category}-") for s in info.heads),
        up_to=head.position,
        width=head.position,
    )
    return scan(log, registry, head, selection)


def read_correlation(
    log: EventLog, registry: Registry, correlation_id: str, *, head: Head | None = None
) -> Iterator[RecordedEvent]:
    """Read the events of one correlation id across streams, in position order; this scans the whole log.

    Args:
        log: the log.
        registry: the contracts.
        correlation_id: the correlation id of the events.
        head: the end of the log, if the caller has it.

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
        after: a position; 0 precedes the first event.
        up_to: a position; the end of the log by default.
        head: the end of the log, if the caller has it.

    Raises:
        UsageError: ``after`` is negative.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if after < 0:
        raise UsageError(f"after is {after}, but positions start at 1: give 0 or more.")
    head = head or log.head()
    last = head.position if up_to is None else min(up_to, head.position)
    return scan(log, registry, head, Selection(condition="true", after=after, up_to=last))


def tail(log: EventLog, registry: Registry, count: int, *, head: Head | None = None) -> Iterator[RecordedEvent]:
    """Read the last events of the log, in position order.

    Args:
        log: the log.
        registry: the contracts.
        count: maximum number of events.
        head: the end of the log, if the caller has it.

    Raises:
        UsageError: the count is negative.
        DamagedLogError: an object of the log is missing or truncated.
    """
    if count < 0:
        raise UsageError(f"Cannot read the last {count} events: give a count of 0 or more.")
    head = head or log.head()
    return read_positions(log, registry, max(head.position - count, 0), head=head)
