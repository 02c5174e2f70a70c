"""Files into a spool: one thread reads, others check; what they made is taken in the order of the file."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import duckdb

from refold.event_schemas import PayloadError, Registry
from refold.pipelines.ingest.checks.check import Checked, Checker
from refold.pipelines.ingest.chunk import Origin, load_chunk, malformed
from refold.pipelines.ingest.formats.csv import read_csv, read_header
from refold.pipelines.ingest.formats.json import read_array, read_lines
from refold.pipelines.ingest.formats.parquet import read_parquet
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rejects import RejectFile
from refold.pipelines.ingest.rows import (
    START,
    ImportLimits,
    Place,
    Rows,
)
from refold.pipelines.ingest.sources import SourceFile, opened
from refold.pipelines.ingest.unused_columns import used_columns
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import literal
from refold.warehouse.event_log.bulk_import.spool import Spool
from refold.warehouse.event_log.bulk_import.spool_journal import SpoolFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that reading needs to know.

    Attributes:
        sources: the files, each with its mapping.
        registry: the contracts.
        bucket_count: of the log.
        workers: how many chunks are checked side by side.
        limits: how much is held in memory.
        strict: stop at the first row that cannot become an event.
    """

    sources: Sequence[tuple[SourceFile, ColumnMapping]]
    registry: Registry
    bucket_count: int
    workers: int
    limits: ImportLimits
    strict: bool


@dataclass(frozen=True, slots=True)
class _Made:
    """What a worker made of a chunk."""

    rows: Rows
    checked: Checked
    files: tuple[SpoolFile, ...]
    rejects: list[tuple[int, str, str]]


@dataclass(slots=True)
class _Workers:
    """A database a thread and mapping, since a connection is for one thread."""

    reading: Reading
    recorded_at: str
    spool: Spool
    connections: ExitStack = field(default_factory=ExitStack)
    own: threading.local = field(default_factory=threading.local)

    def make(self, index: int, number: int, rows: Rows) -> _Made:
        """Check one chunk of one file, and write its events into the spool."""
        source, mapping = self.reading.sources[index]
        connection = self._connection()
        connection.execute(f"SET TimeZone = {literal(mapping.zone)}")
        origin = Origin(name=source.name, event_id=f"{source.identity[:16]}-", recorded_at=self.recorded_at)
        checked = self._checker(index, connection, mapping).check(
            load_chunk(connection, rows, mapping, origin, form=source.format),
            count=rows.count,
            broken=rows.broken,
            explain=lambda row: malformed(rows.text(row)),
        )
        rejects = [(rows.lines[row], reason, rows.text(row)) for row, reason in sorted(checked.wrong.items())]
        return _Made(rows, checked, self.spool.write(number, checked.parts), rejects)

    def _checker(self, index: int, connection: duckdb.DuckDBPyConnection, mapping: ColumnMapping) -> Checker:
        if getattr(self.own, "index", None) != index:
            self.own.index = index
            self.own.checker = Checker(
                connection, self.reading.registry, mapping, bucket_count=self.reading.bucket_count
            )
        found: Checker = self.own.checker
        return found

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if not hasattr(self.own, "connection"):
            self.own.connection = connect(threads=1)
            self.connections.callback(self.own.connection.close)
        found: duckdb.DuckDBPyConnection = self.own.connection
        return found


def read_into(spool: Spool, rejects: RejectFile, reading: Reading, report: Callable[[int, int, int], None]) -> None:
    """Read all files behind what the journal says was read, check their rows, and spool their events.

    Args:
        spool: of the import.
        rejects: where rows go that could not become an event.
        reading: what to read, and how.
        report: called with bytes read, events and rejects so far.

    Raises:
        PayloadError: a row is bad, and ``strict`` was asked for.
        UsageError: a file cannot be read.
    """
    if reading.strict and rejects.count:
        found = rejects.first()
        raise _strict(str(found["file"]), int(str(found["line"])), str(found["reason"]))
    workers = _Workers(reading, spool.journal.recorded_at, spool)
    waiting: deque[tuple[int, Future[_Made]]] = deque()

    def take() -> None:
        index, future = waiting.popleft()
        _take(spool, rejects, reading, index, future.result())
        before = sum(source.size for source, _ in reading.sources[:index])
        report(before + future.result().rows.consumed, spool.journal.events, rejects.count)

    with workers.connections, ThreadPoolExecutor(reading.workers) as pool:
        try:
            for number, (index, rows) in enumerate(_chunks(reading, spool.journal.source), len(spool.journal.chunks)):
                waiting.append((index, pool.submit(workers.make, index, number, rows)))
                if len(waiting) > reading.workers:
                    take()
            while waiting:
                take()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _take(spool: Spool, rejects: RejectFile, reading: Reading, index: int, made: _Made) -> None:
    """Make a chunk count: its rejects first, then its line in the journal."""
    name = reading.sources[index][0].name
    for line, reason, text in made.rejects:
        if reading.strict:
            raise _strict(name, line, reason)
        rejects.add(file=name, line=line, reason=reason, text=text)
    source = {"file": index, "place": made.rows.after, "rejected": rejects.count, "rejects_size": rejects.size}
    spool.commit(made.files, base=spool.journal.events, events=made.checked.events, source=source)


def _strict(name: str, line: int, reason: str) -> PayloadError:
    return PayloadError(f"{name}, line {line}: {reason}. Nothing was published, as --strict was given: mend the row.")


def _chunks(reading: Reading, done: dict[str, Any]) -> Iterator[tuple[int, Rows]]:
    start = int(done.get("file", 0))
    for index, (source, mapping) in enumerate(reading.sources):
        if index >= start:
            place = Place(done["place"]) if index == start and done else dict(START)
            for rows in _rows(reading, source, mapping, place):
                yield index, rows


def _rows(reading: Reading, source: SourceFile, mapping: ColumnMapping, place: Place) -> Iterator[Rows]:
    limits = reading.limits
    if source.format == "parquet":
        yield from read_parquet(source, place, limits, used_columns(mapping, reading.registry))
        return
    if source.format == "csv":
        with opened(source) as stream:
            header, begin = read_header(stream, delimiter=mapping.delimiter, limits=limits)
        place = place if place["offset"] else begin
        with opened(source, offset=place["offset"]) as stream:
            yield from read_csv(stream, place, header=header, delimiter=mapping.delimiter, limits=limits)
        return
    read = read_array if source.format == "json" else read_lines
    with opened(source, offset=place["offset"]) as stream:
        yield from read(stream, place, limits)
