"""Reading events back: one stream, a category, a correlation, a range of positions, the last few.

Every reader is one query over the sealed segments that can hold such events, the commits that are not sealed yet, and
the segments of bulk imports among them. DuckDB sorts it, spilling to disk, and its rows become events a batch at a
time: so a result of any size takes little memory. Nothing is opened that the manifest or a commit's footer rules out.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from event_schemas import ENVELOPE, DamagedLogError, PayloadError, RecordedEvent, Registry, StoreError, UsageError
from event_schemas.payload import from_json, to_json
from event_schemas.registry import Shape
from warehouse.duck import connect
from warehouse.event_log.commit import CommitInfo
from warehouse.event_log.heads import files_literal
from warehouse.event_log.layout import bucket_of
from warehouse.event_log.log import EventLog, Head
from warehouse.event_log.manifest import Segment
from warehouse.event_log.sealing import based
from warehouse.event_log.segments import SEGMENT_ENVELOPE
from warehouse.sql import duckdb_type, first_line, literal, quote

_BATCH = 4096
_MEMORY = "1GB"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPE, _VERSION = ENVELOPE.names.index("event_type"), ENVELOPE.names.index("schema_version")
_TIMES = [i for i, field in enumerate(ENVELOPE) if pt.is_timestamp(field.type)]
_ENVELOPE_SQL = ", ".join(
    f"epoch_us({f.name}) AS {f.name}" if pt.is_timestamp(f.type) else str(f.name) for f in ENVELOPE
)


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
        >>> from event_schemas import event
        >>> from warehouse.event_log import Appender, create_log
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
    until = "" if to_version is None else f" AND stream_version <= {to_version}"
    bucket = bucket_of(stream_id, log.bucket_count)
    wanted = _Selection(
        where=lambda _base: f"stream_id = {literal(stream_id)} AND stream_version >= {from_version}{until}",
        segment=lambda s: s.bucket == bucket,
        commit=lambda info: info.heads.get(stream_id, 0) >= from_version,
        order="stream_version",
    )
    return _read(log, registry, head, wanted)


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
    # "." is the character after "-": a range, unlike LIKE, is compared with the statistics of row groups.
    first, behind = literal(f"{category}-"), literal(f"{category}.")
    wanted = _Selection(
        where=lambda _base: f"stream_id >= {first} AND stream_id < {behind}",
        commit=lambda info: any(s.startswith(f"{category}-") for s in info.heads),
    )
    return _read(log, registry, head, wanted)


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
    wanted = _Selection(where=lambda _base: f"correlation_id = {literal(correlation_id)}")
    return _read(log, registry, head, wanted)


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
    wanted = _Selection(
        where=lambda base: f"position > {after - base} AND position <= {last - base}",
        segment=lambda s: overlaps(s, after, last),
        commit=lambda info: info.last_position > after and info.first_position <= last,
    )
    return _read(log, registry, head, wanted)


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


def live_segments(head: Head) -> list[Segment]:
    """Give all segments of a log: the sealed ones, and those of bulk imports that are not sealed yet."""
    return [*head.sealed.segments, *(based(s, info) for info in head.tail for s in info.segments)]


def from_microseconds(count: int) -> datetime:
    """Turn microseconds since 1970 into a time in UTC; DuckDB's own conversion would need a further package."""
    return _EPOCH + timedelta(microseconds=count)


def overlaps(segment: Segment, after: int, up_to: int) -> bool:
    """Tell whether a segment may hold events with ``after < position <= up_to``."""
    base = segment.position_base
    return segment.last_position + base > after and segment.first_position + base <= up_to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """Which events to read.

    Attributes:
        where: SQL condition over the stored columns, given what is added to ``position`` when it is read.
        segment: rules segments out.
        commit: rules commits out.
        order: the column to sort by.
    """

    where: Callable[[int], str]
    segment: Callable[[Segment], bool] = lambda _segment: True
    commit: Callable[[CommitInfo], bool] = lambda _info: True
    order: str = "position"


def _read(log: EventLog, registry: Registry, head: Head | None, wanted: _Selection) -> Iterator[RecordedEvent]:
    head = head or log.head()
    schemas = _Schemas(registry)
    parts = _segment_scans(log, schemas, filter(wanted.segment, live_segments(head)), wanted)
    numbers = [info.number for info in head.tail if info.import_id is None and wanted.commit(info)]
    if numbers:
        parts.append(
            f"SELECT {_ENVELOPE_SQL}, false AS typed, payload "
            f"FROM read_parquet({files_literal(log.commit_paths(numbers))}, hive_partitioning = false) "
            f"WHERE {wanted.where(0)}"
        )
    return _events(log, schemas, f"{' UNION ALL '.join(parts)} ORDER BY {wanted.order}") if parts else iter(())


class _Schemas:
    """The schema of every shape that is read; one that the registry does not know has its segments' own."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._from_files: dict[Shape, pa.Schema] = {}

    def of_segments(self, shape: Shape, path: Path) -> pa.Schema:
        """Give the schema of typed segments, of which ``path`` is one."""
        if self._registry.knows(shape):
            return self._registry.schema(*shape)
        if shape not in self._from_files:
            self._from_files[shape] = pa.schema(f for f in pq.read_schema(path) if f.name not in SEGMENT_ENVELOPE)
        return self._from_files[shape]

    def payload(self, shape: Shape, text: str, *, typed: bool) -> dict[str, Any]:
        """Turn a payload's JSON text into Python values; what fits no contract is shown as it is."""
        value = orjson.loads(text) if typed else _parsed(text)
        if typed:
            return from_json(value, self._from_files.get(shape) or self._registry.schema(*shape))
        if self._registry.knows(shape):
            schema = self._registry.schema(*shape)
            try:
                return from_json(to_json(value, schema), schema)
            except PayloadError:
                pass
        return value if isinstance(value, dict) else {"payload": value}


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _segment_scans(log: EventLog, schemas: _Schemas, segments: Iterable[Segment], wanted: _Selection) -> list[str]:
    groups: dict[tuple[Shape, int, int, bool], list[Path]] = {}
    for s in segments:
        groups.setdefault((s.shape, s.position_base, s.commit_base, s.raw), []).append(log.segment_path(s))
    scans = []
    for (shape, position_base, commit_base, raw), paths in groups.items():
        payload = "payload" if raw else _payload_text(schemas.of_segments(shape, paths[0]))
        replaced = {
            "position": f"position + {position_base} AS position",
            "commit_number": f"commit_number + {commit_base} AS commit_number",
            "event_type": f"{literal(shape[0])} AS event_type",
            "schema_version": f"{shape[1]}::INTEGER AS schema_version",
            "occurred_at": "epoch_us(occurred_at) AS occurred_at",
            "recorded_at": "epoch_us(recorded_at) AS recorded_at",
        }
        scans.append(
            f"SELECT {', '.join(replaced.get(n, n) for n in ENVELOPE.names)}, {not raw} AS typed, {payload} AS payload "
            f"FROM read_parquet({files_literal(paths)}, hive_partitioning = false) WHERE {wanted.where(position_base)}"
        )
    return scans


def _payload_text(schema: pa.Schema) -> str:
    """Write the payload's columns as the JSON text that ``from_json`` takes: decimals and times as text."""
    fields = [f"{literal(f.name)}: {_text(quote(f.name), f.type)}" for f in schema]
    return f"to_json({{{', '.join(fields)}}})::VARCHAR" if fields else "'{}'"


def _text(expression: str, dtype: pa.DataType) -> str:
    zoned = _sql_type(dtype, lambda t: "TIMESTAMPTZ" if pt.is_timestamp(t) else duckdb_type(t))
    plain = _sql_type(
        dtype, lambda t: duckdb_type(t) if pt.is_integer(t) or pt.is_floating(t) or pt.is_boolean(t) else "VARCHAR"
    )
    # Times are written in UTC with their offset, also those whose column has no zone: as in a commit.
    zone_first = f"CAST({expression} AS {zoned})" if _has_naive_time(dtype) else expression
    return f"CAST({zone_first} AS {plain})"


def _sql_type(dtype: pa.DataType, scalar: Callable[[pa.DataType], str]) -> str:
    if pt.is_list(dtype):
        return f"{_sql_type(dtype.value_type, scalar)}[]"
    if pt.is_struct(dtype):
        inner = ", ".join(f"{quote(f.name)} {_sql_type(f.type, scalar)}" for f in dtype)
        return f"STRUCT({inner})"
    return scalar(dtype)


def _has_naive_time(dtype: pa.DataType) -> bool:
    if pt.is_list(dtype):
        return _has_naive_time(dtype.value_type)
    if pt.is_struct(dtype):
        return any(_has_naive_time(f.type) for f in dtype)
    return bool(pt.is_timestamp(dtype)) and dtype.tz is None


def _events(log: EventLog, schemas: _Schemas, query: str) -> Iterator[RecordedEvent]:
    with _cursor() as connection:
        try:
            result = connection.execute(query)
            while rows := result.fetchmany(_BATCH):
                yield from _recorded(schemas, rows)
        except duckdb.OutOfMemoryException as error:
            raise StoreError(
                f"Sorting the events of {log.url} needs more room than there is in {tempfile.gettempdir()}: "
                f"{first_line(error)} Set TMPDIR to a larger disk, or read a smaller range."
            ) from error
        except duckdb.Error as error:
            raise DamagedLogError(
                f"The log {log.url} cannot be read: {first_line(error)} Run `refold events verify`, and restore the "
                "object that it names from a backup of the store."
            ) from error


def _recorded(schemas: _Schemas, rows: Iterable[tuple[Any, ...]]) -> Iterator[RecordedEvent]:
    for *envelope, typed, payload in rows:
        shape = (envelope[_TYPE], envelope[_VERSION])
        for i in _TIMES:
            envelope[i] = from_microseconds(envelope[i])
        yield RecordedEvent(*envelope, schemas.payload(shape, payload, typed=typed))  # type: ignore[call-arg]


def _cursor() -> duckdb.DuckDBPyConnection:
    cursor = _database(os.getpid()).cursor()
    cursor.execute("SET TimeZone = 'UTC'")  # a cursor has settings of its own
    return cursor


@functools.cache
def _database(_process: int) -> duckdb.DuckDBPyConnection:
    """Open the database that sorts; it is kept, since opening one takes longer than reading a stream.

    A forked process has its own: DuckDB's threads do not live on in it.
    """
    folder = Path(tempfile.gettempdir()) / f"refold-read-{os.getpid()}"
    c = connect(memory_limit=_MEMORY, temp_directory=folder)
    c.execute("SET GLOBAL parquet_metadata_cache = true")
    return c
