"""Scanning a log for events: sealed segments, unsealed commits, and the segments of unsealed bulk imports.

Manifest and footers select the objects that may hold the events. DuckDB filters and sorts their rows, large results in
windows, and rows become events in batches: so memory is bounded for results of any size.
"""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow.types as pt

from refold.event_schemas import (
    ENVELOPE,
    DamagedLogError,
    RecordedEvent,
    Registry,
    StoreError,
)
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.private_folder import PrivateFolder
from refold.warehouse.engine.sql import (
    first_line,
    literal,
)
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Segment
from refold.warehouse.event_log.reads.payloads import StoredSchemas, payload_text
from refold.warehouse.event_log.seal import based

_BATCH = 4096
_MEMORY = "1GB"
_WINDOW = 1_000_000
"""Positions that are sorted at a time; fewer, down to ``_MIN_WINDOW``, if their events do not fit in ``_MEMORY``."""

_MIN_WINDOW = 100
NO_LIMIT = 1 << 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE, _VERSION = ENVELOPE.names.index("event_type"), ENVELOPE.names.index("schema_version")
_TIMES = [i for i, field in enumerate(ENVELOPE) if pt.is_timestamp(field.type)]
_ENVELOPE_SQL = ", ".join(
    f"epoch_us({f.name}) AS {f.name}" if pt.is_timestamp(f.type) else str(f.name) for f in ENVELOPE
)


def live_segments(head: Head) -> list[Segment]:
    """Return all segments of a log: the sealed ones, and those of unsealed bulk imports."""
    return [*head.sealed.segments, *(based(s, info) for info in head.tail for s in info.segments)]


def from_microseconds(count: int) -> datetime:
    """Convert microseconds since 1970 to a time in UTC; DuckDB's own conversion needs another package."""
    return _EPOCH + timedelta(microseconds=count)


def overlaps(segment: Segment, after: int, up_to: int) -> bool:
    """Check whether a segment may hold events with ``after < position <= up_to``."""
    base = segment.position_base
    return segment.last_position + base > after and segment.first_position + base <= up_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events to read, and in which order.

    Attributes:
        condition: SQL condition on the stored columns.
        segment: predicate of the segments to open.
        commit: predicate of the commits to open.
        order: column to sort by.
        after: read events whose order column is greater than this.
        up_to: read events whose order column is at most this.
        width: size of the part of that range to sort at a time; smaller if memory does not suffice.
    """

    condition: str
    segment: Callable[[Segment], bool] = lambda _segment: True
    commit: Callable[[CommitInfo], bool] = lambda _info: True
    order: Literal["position", "stream_version"] = "position"
    after: int = 0
    up_to: int
    width: int = _WINDOW

    @property
    def is_gapless(self) -> bool:
        """Whether a value of the order column without an event is an error."""
        return self.order == "stream_version" or self.condition == "true"


def scan(log: EventLog, registry: Registry, head: Head, selection: Selection) -> Iterator[RecordedEvent]:
    """Yield the selected events in order.

    Raises:
        DamagedLogError: an object of the log is missing or truncated, or an event is missing.
        StoreError: sorting needs more memory or disk than available.
    """
    schemas = StoredSchemas(registry, log.personal_data)
    last, width = selection.after, selection.width
    while last < selection.up_to:
        up_to = min(last + width, selection.up_to)
        try:
            for event in _read_window(log, schemas, head, selection, last, up_to):
                place: int = getattr(event, selection.order)
                if selection.is_gapless and place != last + 1:
                    raise _gap(log, selection, last + 1, f"{place} follows {last}, at position {event.position}")
                last = place
                yield event
        except duckdb.OutOfMemoryException as error:
            if width <= _MIN_WINDOW:
                raise StoreError(
                    f"Sorting {width} events of {log.url} needs more than {_MEMORY} of memory, or of disk in "
                    f"{tempfile.gettempdir()}: {first_line(error)} Set TMPDIR to a larger disk."
                ) from error
            width = max(min(up_to - last, 4 * _WINDOW) // 4, 1)
            continue
        if last < up_to and selection.order == "stream_version":
            return
        if last < up_to and selection.is_gapless:
            raise _gap(log, selection, last + 1, f"nothing up to {up_to}")
        last = up_to


def _gap(log: EventLog, selection: Selection, missing: int, found: str) -> DamagedLogError:
    what = "position" if selection.condition == "true" else f"{selection.condition}: stream version"
    return DamagedLogError(
        f"The log {log.url} has a gap: {what} {missing} is missing ({found}). Run `refold events verify`, and restore "
        "what it names from a backup of the store."
    )


def _read_window(
    log: EventLog, schemas: StoredSchemas, head: Head, selection: Selection, after: int, up_to: int
) -> Iterator[RecordedEvent]:
    def where(base: int = 0) -> str:
        base = base if selection.order == "position" else 0
        return f"{selection.condition} AND {selection.order} > {after - base} AND {selection.order} <= {up_to - base}"

    segments = filter(selection.segment, live_segments(head))
    tail = [info for info in head.tail if info.import_id is None and selection.commit(info)]
    if selection.order == "position":
        segments = filter(lambda s: overlaps(s, after, up_to), segments)
        tail = [info for info in tail if info.last_position > after and info.first_position <= up_to]
    parts = _segment_scans(log, schemas, segments, where)
    if tail:
        rows = parquet_relation(log.commit_paths(tail))
        parts.append(f"SELECT {_ENVELOPE_SQL}, false AS typed, payload FROM {rows} WHERE {where()}")
    return _events(log, schemas, f"{' UNION ALL '.join(parts)} ORDER BY {selection.order}") if parts else iter(())


def _segment_scans(
    log: EventLog, schemas: StoredSchemas, segments: Iterable[Segment], where: Callable[[int], str]
) -> list[str]:
    groups: dict[tuple[SchemaKey, int, int, bool], list[Path]] = {}
    for s in segments:
        groups.setdefault((s.schema_key, s.position_base, s.commit_base, s.untyped), []).append(log.segment_path(s))
    scans = []
    for (schema_key, position_base, commit_base, untyped), paths in groups.items():
        payload = "payload" if untyped else payload_text(schemas.of_segments(schema_key, paths[0]))
        replaced = {
            "position": f"position + {position_base} AS position",
            "commit_number": f"commit_number + {commit_base} AS commit_number",
            "event_type": f"{literal(schema_key[0])} AS event_type",
            "schema_version": f"{schema_key[1]}::INTEGER AS schema_version",
            "occurred_at": "epoch_us(occurred_at) AS occurred_at",
            "recorded_at": "epoch_us(recorded_at) AS recorded_at",
        }
        scans.append(
            f"SELECT {', '.join(replaced.get(n, n) for n in ENVELOPE.names)}, {not untyped} AS typed, "
            f"{payload} AS payload "
            f"FROM {parquet_relation(paths)} WHERE {where(position_base)}"
        )
    return scans


def _events(log: EventLog, schemas: StoredSchemas, query: str) -> Iterator[RecordedEvent]:
    with _cursor() as connection:
        try:
            result = connection.execute(query)
            while rows := result.fetchmany(_BATCH):
                yield from _recorded(schemas, rows)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            if "No space left" in str(error):
                raise StoreError(
                    f"Sorting events of {log.url} has filled the disk of {tempfile.gettempdir()}. Set TMPDIR to a "
                    "larger disk."
                ) from error
            raise DamagedLogError(
                f"The log {log.url} cannot be read: {first_line(error)} Run `refold events verify`, and restore the "
                "object that it names from a backup of the store."
            ) from error


def _recorded(schemas: StoredSchemas, rows: Iterable[tuple[Any, ...]]) -> Iterator[RecordedEvent]:
    for *envelope, typed, payload in rows:
        schema_key = (envelope[_TYPE], envelope[_VERSION])
        try:
            for i in _TIMES:
                envelope[i] = from_microseconds(envelope[i])
        except OverflowError:
            raise DamagedLogError(
                f"The event at position {envelope[0]}, stream {envelope[2]!r}, has a time outside the years 1 to 9999, "
                "which cannot be shown. Another program, or refold 0.1.0, wrote it. Rebuilds leave it out with "
                "--dead-letter."
            ) from None
        yield RecordedEvent(*envelope, schemas.payload(schema_key, payload, typed=typed))  # type: ignore[call-arg]


def _cursor() -> duckdb.DuckDBPyConnection:
    cursor = _database(os.getpid()).cursor()
    cursor.execute("SET TimeZone = 'UTC'")  # cursors do not inherit settings
    return cursor


@functools.cache
def _database(_process: int) -> duckdb.DuckDBPyConnection:
    """Open the database that sorts; kept for the process, since opening one takes longer than reading a stream.

    A forked process opens its own, since DuckDB's threads do not survive a fork.
    """
    folder = PrivateFolder("refold-read-")
    atexit.register(_remove, folder, os.getpid())
    connection = connect(memory_limit=_MEMORY, temp_directory=folder.path)
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection


def _remove(folder: PrivateFolder, process: int) -> None:
    if process == os.getpid():  # a forked process inherits the exit handlers of its parent
        folder.remove()
