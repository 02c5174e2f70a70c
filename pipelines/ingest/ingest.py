"""``refold ingest``: files of events into the log, checked, resumable, without doubles.

identify the files -> read them in chunks -> map and check each row -> spool events by bucket, collect rejects -> write
segments through Beam, publish them with one commit (or go through ordinary commits, if a stream is in the log
already).

Nothing is part of the log before the last row is through. A killed import goes on behind the last chunk that was
spooled; one that was published is found by its identity, and not done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from apache_beam.options.pipeline_options import PipelineOptions
from filelock import FileLock, Timeout

from refold.event_schemas import Registry, UsageError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.ingest.file_reader import Reading, read_into
from refold.pipelines.ingest.mapping import (
    CLOUDEVENTS,
    OWN,
    ColumnMapping,
    read_mapping,
)
from refold.pipelines.ingest.rejects import RejectFile
from refold.pipelines.ingest.rows import ImportLimits
from refold.pipelines.ingest.sources import (
    SourceFile,
    expanded,
    inspect,
    unchanged,
)
from refold.pipelines.ingest.spooled_commits import commit_spooled
from refold.pipelines.ingest.spooled_segments import finish_import
from refold.pipelines.ingest.unused_columns import unused_columns
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.bulk_import.bulk_segments import (
    StreamsNotNewError,
    find_import,
    overlapping_stream,
    publish_import,
)
from refold.warehouse.event_log.bulk_import.spool import Spool, read_spool
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.object_store.mirror import default_cache_dir

__all__ = ["ColumnMapping", "ImportLimits", "ImportProgress", "Ingested", "ingest", "read_mapping"]

Mode = Literal["segments", "commits"]
_Sources = list[tuple[SourceFile, ColumnMapping]]


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        phase: ``identify``, ``read``, ``build`` or ``commit``.
        done: bytes of the files (``identify``, ``read``), buckets (``build``) or events (``commit``) that are through.
        total: what ``done`` will be at the end of the phase.
        events: events accepted so far.
        rejected: rows rejected so far.
    """

    phase: str
    done: int = 0
    total: int = 0
    events: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What an import did.

    Attributes:
        events: events that it added to the log.
        rejected: rows that could not become events.
        commits: commits that it added to the log.
        mode: ``segments``: one commit that names typed segments; ``commits``: ordinary commits.
        already: this very import was done before; nothing was changed.
        duplicates: events left out, since their stream had an event of the same ``event_id`` before.
        rejects: the file with the rejected rows; None if there are none.
        unused_columns: columns of a table (Parquet, CSV) that no event was given anything of.
    """

    events: int = 0
    rejected: int = 0
    commits: int = 0
    mode: Mode = "segments"
    already: bool = False
    duplicates: int = 0
    rejects: Path | None = None
    unused_columns: tuple[str, ...] = ()


def ingest(
    log: EventLog,
    domain_ref: str,
    files: Sequence[str],
    *,
    mapping: ColumnMapping | None = None,
    format: str | None = None,
    strict: bool = False,
    rejects: Path | None = None,
    options: PipelineOptions | None = None,
    report: Callable[[ImportProgress], None] = lambda _: None,
    limits: ImportLimits | None = None,
) -> Ingested:
    """Bring the events of files into a log, in the order of files and rows.

    The same content with the same mapping is the same import, wherever it lies: once published, it changes nothing
    again; killed, it goes on where it was.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        files: paths, patterns, or URLs that fsspec knows; gzip, Zstandard, bzip2 and xz are decompressed.
        mapping: of the files' columns. By default CloudEvents are taken as such, and all else by the envelope's names.
        format: one of ``refold.pipelines.ingest.sources.FORMATS``; by the files' suffixes if it is not given.
        strict: stop at the first row that cannot become an event; nothing is published then.
        rejects: where rejected rows go, as JSON lines; by default beside the first file.
        options: Beam's options; by default a local runner.
        report: called with the progress, a few times a second.
        limits: how much is held in memory at a time.

    Raises:
        UsageError: a file is missing, damaged, of no known format, or lacks a column, or the log belongs to another
            domain; nothing was published.
        PayloadError: a row is bad, and ``strict`` was asked for; nothing was published.

    Example:
        >>> import tempfile
        >>> from refold.warehouse.event_log import create_log
        >>> row = '{"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2024-05-01T12:00:00Z",'
        >>> row += ' "payload": {"sku": "cup", "quantity": -1, "reason": "broken"}}'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "history.jsonl"
        ...     _ = path.write_text(row)
        ...     log = create_log(f"{folder}/log", domain_name="orders")
        ...     first, again = (ingest(log, "orders", [str(path)]) for _ in range(2))
        >>> first.events, again.events, again.already
        (1, 0, True)
    """
    options = options or beam_options(None)
    domain = load_domain(domain_ref)
    registry = domain.registry
    if domain.name != log.domain_name:
        raise UsageError(f"The log at {log.url} belongs to domain {log.domain_name!r}, not {domain.name!r}.")
    sources = [(source, mapping or _default_mapping(source)) for source in _inspected(expanded(files), format, report)]
    import_id = _identity(log, sources)
    target = rejects or _beside(sources[0][0])
    with _own_folder(log, import_id) as folder:
        if find_import(log, log.head(), import_id) is not None:
            return _finish_dead(folder, target)
        _forget_others(folder, sources)
        spool = Spool(folder, bucket_count=log.bucket_count, context=_context(registry))
        _remember(folder, sources)
        bad = _reject_file(folder, spool)
        reading = Reading(
            sources=sources,
            registry=registry,
            bucket_count=log.bucket_count,
            workers=workers_of(options),
            limits=limits or ImportLimits(),
            strict=strict,
        )
        size = sum(source.size for source, _ in sources)
        read_into(spool, bad, reading, lambda *told: report(ImportProgress("read", told[0], size, told[1], told[2])))
        for source, _ in sources:
            unchanged(source)
        done = _publish(log, domain_ref, import_id, spool, reading, options, report)
        return dataclasses.replace(
            done,
            rejected=bad.count,
            rejects=bad.deliver(target),
            unused_columns=unused_columns(sources, registry, spool.journal),
        )


def _publish(
    log: EventLog,
    domain_ref: str,
    import_id: str,
    spool: Spool,
    reading: Reading,
    options: PipelineOptions,
    report: Callable[[ImportProgress], None],
) -> Ingested:
    """Make the spooled events part of the log: all at once, if their streams are new to it."""
    folder, events = spool.folder, spool.journal.events
    if not events:
        return Ingested()
    spooled = read_spool(folder)
    if not (folder / "commits.json").exists() and overlapping_stream(log, log.head(), spooled) is None:
        try:
            finish_import(
                log,
                domain_ref,
                import_id,
                folder,
                options=options,
                report=lambda done, planned: report(ImportProgress("build", done, planned, events)),
            )
            return Ingested(events=events, commits=1)
        except StreamsNotNewError:
            pass
    done = commit_spooled(
        log,
        reading.registry,
        import_id,
        spooled,
        commit_events=reading.limits.commit_events,
        seal=lambda: seal(log, domain_ref, options),
        report=lambda through: report(ImportProgress("commit", through, events, events)),
    )
    publish_import(log, import_id, 0, spool.journal.recorded_at, ())
    return Ingested(events=done.events, commits=done.commits + 1, mode="commits", duplicates=done.duplicates)


def _inspected(names: list[str], format: str | None, report: Callable[[ImportProgress], None]) -> Iterator[SourceFile]:
    for name in names:
        yield inspect(name, format=format, report=lambda done, total: report(ImportProgress("identify", done, total)))


def _default_mapping(source: SourceFile) -> ColumnMapping:
    if source.cloudevents:
        return CLOUDEVENTS
    return dataclasses.replace(OWN, delimiter="\t") if ".tsv" in source.name.lower() else OWN


def _identity(log: EventLog, sources: _Sources) -> str:
    """Name an import by what it brings into which log, so that it is the same import wherever the files lie."""
    told = [log.log_id, *([source.identity, source.format, mapping.digest()] for source, mapping in sources)]
    return hashlib.sha256(orjson.dumps(told)).hexdigest()[:32]


def _context(registry: Registry) -> str:
    """Write the contracts that rows are checked against: a changed one means that they must be checked anew."""
    told = "\n".join(f"{schema_key} {registry.schema(*schema_key)}" for schema_key in registry.schema_keys)
    return hashlib.sha256(told.encode()).hexdigest()


@contextmanager
def _own_folder(log: EventLog, import_id: str) -> Iterator[Path]:
    """Give the import's folder, to this process alone; it is deleted when the import is done."""
    parent = Path(log.url) / "staging" if log.store.is_local else default_cache_dir() / "ingest"
    folder = parent / f"ingest-{import_id}"
    parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError("Another process is importing the same files into this log: wait until it is done.") from error
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _remember(folder: Path, sources: _Sources) -> None:
    (folder / "files.json").write_bytes(orjson.dumps([source.url for source, _ in sources]))


def _forget_others(folder: Path, sources: _Sources) -> None:
    """Delete what killed imports of the same files left, when the files were others inside."""
    mine = [source.url for source, _ in sources]
    for path in folder.parent.glob("ingest-*/files.json"):
        other = path.parent
        if other == folder or orjson.loads(path.read_bytes()) != mine:
            continue
        try:
            with FileLock(f"{other}.lock", timeout=0):
                shutil.rmtree(other)
                Path(f"{other}.lock").unlink(missing_ok=True)
        except Timeout:
            continue


def _reject_file(folder: Path, spool: Spool) -> RejectFile:
    source = spool.journal.source
    return RejectFile(
        folder / "rejects.jsonl", size=int(source.get("rejects_size", 0)), count=int(source.get("rejected", 0))
    )


def _finish_dead(folder: Path, target: Path) -> Ingested:
    """Do what is left of an import that was published: hand over its rejects, if it was killed before that."""
    left = folder / "rejects.jsonl"
    if not left.exists():
        return Ingested(already=True)
    count = left.read_bytes().count(b"\n")
    bad = RejectFile(left, size=left.stat().st_size, count=count)
    return Ingested(already=True, rejected=count, rejects=bad.deliver(target))


def _beside(source: SourceFile) -> Path:
    name = f"{os.path.basename(source.url)}.rejects.jsonl"
    return source.path.parent / name if source.path is not None else Path(name)
