"""Files into a spool: one thread reads, others check, and their results are taken in the order of the file."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np

from refold.event_schemas import PayloadError, Registry
from refold.pipelines.ingest.checks.check import CheckedChunk, Checker
from refold.pipelines.ingest.checks.chunk import Provenance
from refold.pipelines.ingest.checks.named_columns import Name, wanted_names
from refold.pipelines.ingest.formats import FORMATS
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rejects import RejectFile
from refold.pipelines.ingest.rows import START, ImportLimits, Place, ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile
from refold.pipelines.ingest.unused_columns import used_columns
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import literal
from refold.warehouse.event_log.bulk_import.spool import Spool
from refold.warehouse.event_log.bulk_import.spool_journal import Journal, SpoolFile
from refold.warehouse.personal.personal_data import PersonalData


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """What an import reads, and how.

    Attributes:
        sources: the files, each with its mapping.
        registry: the contracts.
        bucket_count: of the log.
        workers: how many chunks are checked in parallel.
        limits: how much is held in memory.
        strict: stop at the first invalid row.
        personal: the personal data of the log, which encrypts marked fields.
    """

    sources: Sequence[tuple[SourceFile, ColumnMapping]]
    registry: Registry
    bucket_count: int
    workers: int
    limits: ImportLimits
    strict: bool
    personal: PersonalData


@dataclass(frozen=True, slots=True)
class _SpooledChunk:
    """A chunk whose events are in the spool, but not yet in its journal."""

    rows: Rows
    checked: CheckedChunk
    files: tuple[SpoolFile, ...]
    rejects: list[tuple[int, str, str]]


@dataclass(slots=True)
class _Workers:
    """A database per thread, and a checker per thread and file."""

    plan: ReadPlan
    recorded_at: str
    spool: Spool
    connections: ExitStack = field(default_factory=ExitStack)
    own: threading.local = field(default_factory=threading.local)
    found: set[Name] = field(default_factory=set)

    def check(self, index: int, number: int, rows: Rows) -> _SpooledChunk:
        """Check one chunk of one file, and write its events into the spool."""
        source, mapping = self.plan.sources[index]
        connection = self._connection()
        connection.execute(f"SET TimeZone = {literal(mapping.zone)}")
        provenance = Provenance(
            file=source.name,
            event_id=f"{source.identity[:16]}-",
            recorded_at=self.recorded_at,
            column_names=lambda: FORMATS[source.format].column_names(source, mapping),
        )
        checker = self._checker(index, connection, mapping)
        checked = checker.check(rows, provenance, FORMATS[source.format], wanted_names(mapping, set(self.found)))
        rejects = [(rows.lines[row], reason, rows.text(row)) for row, reason in sorted(checked.invalid.items())]
        identities = _identity_hashes(connection, checked)
        files = self.spool.write(number, checked.parts, lines=checked.lines, identities=identities)
        return _SpooledChunk(rows, checked, files, rejects)

    def _checker(self, index: int, connection: duckdb.DuckDBPyConnection, mapping: ColumnMapping) -> Checker:
        if getattr(self.own, "index", None) != index:
            self.own.index = index
            plan = self.plan
            self.own.checker = Checker(
                connection, plan.registry, mapping, bucket_count=plan.bucket_count, personal=plan.personal
            )
        checker: Checker = self.own.checker
        return checker

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if not hasattr(self.own, "connection"):
            self.own.connection = connect(threads=1)
            self.connections.callback(self.own.connection.close)
        connection: duckdb.DuckDBPyConnection = self.own.connection
        return connection


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSoFar:
    """What was found out about the rows so far; the journal keeps it.

    Attributes:
        local: how many times have no zone.
        tombstones: how many rows are ``null``.
        found: the names of the mapping that a row had.
    """

    local: int
    tombstones: int
    found: set[Name]

    @classmethod
    def of(cls, journal: Journal) -> ReadSoFar:
        """Return what the journal has."""
        source = journal.source
        found = {(event_type, name) for event_type, name in source.get("found", ())}
        return cls(local=int(source.get("local", 0)), tombstones=int(source.get("tombstones", 0)), found=found)


def read_into(spool: Spool, rejects: RejectFile, plan: ReadPlan, report: Callable[[int, int, int], None]) -> None:
    """Read all files from where the journal ends, check their rows, and spool their events.

    Args:
        spool: of the import.
        rejects: where invalid rows go.
        plan: what to read, and how.
        report: called with bytes read, events and rejected rows so far.

    Raises:
        PayloadError: a row is invalid, and the plan is strict.
        UsageError: a file cannot be read.
    """
    if plan.strict and rejects.count:
        first = rejects.first()
        raise _strict_error(str(first["file"]), int(str(first["line"])), str(first["reason"]))
    workers = _Workers(plan, spool.journal.recorded_at, spool, found=ReadSoFar.of(spool.journal).found)
    waiting: deque[tuple[int, Future[_SpooledChunk]]] = deque()

    def take() -> None:
        index, future = waiting.popleft()
        _commit(spool, rejects, plan, index, future.result())
        workers.found |= future.result().checked.found
        before = sum(source.size for source, _ in plan.sources[:index])
        report(before + future.result().rows.consumed, spool.journal.events, rejects.count)

    with workers.connections, ThreadPoolExecutor(plan.workers) as pool:
        try:
            for number, (index, rows) in enumerate(_chunks(plan, spool.journal.source), len(spool.journal.chunks)):
                waiting.append((index, pool.submit(workers.check, index, number, rows)))
                if len(waiting) > plan.workers:
                    take()
            while waiting:
                take()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _commit(spool: Spool, rejects: RejectFile, plan: ReadPlan, index: int, chunk: _SpooledChunk) -> None:
    """Commit a chunk to the spool: first its rejected rows, then its line in the journal, which makes it count."""
    name = plan.sources[index][0].name
    for line, reason, text in chunk.rejects:
        if plan.strict:
            raise _strict_error(name, line, reason)
        rejects.add(file=name, line=line, reason=reason, text=text)
    before, checked = ReadSoFar.of(spool.journal), chunk.checked
    source = {
        "file": index,
        "place": chunk.rows.after,
        "rejected": rejects.count,
        "rejects_size": rejects.size,
        "local": before.local + checked.local,
        "tombstones": before.tombstones + checked.tombstones,
        "found": sorted(before.found | checked.found),
    }
    spool.commit(chunk.files, base=spool.journal.events, events=checked.events, source=source)


def _identity_hashes(connection: duckdb.DuckDBPyConnection, checked: CheckedChunk) -> np.ndarray[Any, Any]:
    """Return a hash of stream and id of each event; equal ones are compared before the import is published."""
    found = [np.empty(0, np.uint64)]
    for part in checked.parts.values():
        connection.register("_identities", part.rows.select(["stream_id", "event_id"]))
        found.append(connection.sql("SELECT hash(stream_id, event_id) AS h FROM _identities").fetchnumpy()["h"])
    return np.concatenate(found)


def _strict_error(name: str, line: int, reason: str) -> PayloadError:
    return PayloadError(
        f"{name}, line {line}: {reason}. Nothing was published, since --strict was given: correct the row."
    )


def _chunks(plan: ReadPlan, done: dict[str, Any]) -> Iterator[tuple[int, Rows]]:
    start = int(done.get("file", 0))
    for index, (source, mapping) in enumerate(plan.sources):
        if index >= start:
            request = ReadRequest(
                file=source,
                mapping=mapping,
                place=Place(done["place"]) if index == start and done else dict(START),
                limits=plan.limits,
                needed=used_columns(mapping, plan.registry),
            )
            for rows in FORMATS[source.format].read(request):
                yield index, rows
