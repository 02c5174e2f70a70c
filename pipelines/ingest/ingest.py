"""``refold ingest``: files of events into the log, checked, resumable, without duplicates.

identify the files -> read them in chunks -> map and check each row -> spool events by bucket, collect rejected rows ->
write segments through Beam and publish them with one commit, or append ordinary commits if the log has a stream
already.

An import is atomic: nothing is part of the log before the last row is checked. A killed import resumes after the last
chunk in the spool. One that was published is found by its identity, and is not repeated.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import orjson
from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import Registry, RejectedRowsError, UsageError
from refold.pipelines.beam.runners import beam_options, workers_of
from refold.pipelines.ingest.file_reader import ReadPlan, ReadSoFar, read_into
from refold.pipelines.ingest.import_folder import default_target, delete_outdated, import_folder, record_files
from refold.pipelines.ingest.left_out import LeftOut, read_left_out, record_left_out
from refold.pipelines.ingest.mapping import CLOUDEVENTS, OWN, ColumnMapping
from refold.pipelines.ingest.mapping_checks import check_found, check_mapping
from refold.pipelines.ingest.mapping_file import read_mapping
from refold.pipelines.ingest.rejects import Reason, RejectFile, RejectLimit
from refold.pipelines.ingest.repeats import leave_out_repeats
from refold.pipelines.ingest.rows import ImportLimits
from refold.pipelines.ingest.source_file import SourceFile
from refold.pipelines.ingest.sources import check_unchanged, expand_patterns, for_file, inspect
from refold.pipelines.ingest.spooled_commits import JOURNAL, commit_spooled
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
from refold.warehouse.event_log.bulk_import.repeated_events import KnownEvents
from refold.warehouse.event_log.bulk_import.spool import Spool, read_spool
from refold.warehouse.event_log.log import EventLog

__all__ = ["ColumnMapping", "ImportLimits", "ImportProgress", "Ingested", "ingest", "read_mapping"]

Mode = Literal["segments", "commits"]
_SPOOLED_BY = f"2 DuckDB {duckdb.__version__}"
"""Changes when rows are read or hashed otherwise, so that an import that another version began is read again."""

_REASONS = 3
"""Reasons in an error; the reject file has all of them."""

_Sources = list[tuple[SourceFile, ColumnMapping]]


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is.

    Attributes:
        phase: ``identify``, ``read``, ``build`` or ``commit``.
        done: finished bytes of the files (``identify``, ``read``), buckets (``build``) or events (``commit``).
        total: what ``done`` will be at the end of the phase.
        events: valid events so far.
        rejected: rejected rows so far.
    """

    phase: str
    done: int = 0
    total: int = 0
    events: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """The result of an import.

    Attributes:
        events: events that it added to the log.
        rejected: rows that could not become events.
        commits: commits that it added to the log.
        mode: ``segments``: one commit that names typed segments; ``commits``: ordinary commits.
        already: the same import was published before, so nothing was changed; ``rejected`` and ``reasons`` are those of
            the run that published it.
        duplicates: events that were left out, since their stream has the same event, with the same ``event_id``, in
            the log or in an earlier row.
        rejects: the file with the rejected rows, if this run rejected any.
        reasons: why rows were rejected, the most frequent reason first, each with an example.
        unused_columns: columns of a table (Parquet, CSV) that no event uses.
        local_times: times without a zone; they were read as times of the mapping's zone, UTC by default.
        tombstones: rows that are ``null``, such as Kafka writes after a delete; they were left out.
    """

    events: int = 0
    rejected: int = 0
    commits: int = 0
    mode: Mode = "segments"
    already: bool = False
    duplicates: int = 0
    rejects: Path | None = None
    reasons: tuple[Reason, ...] = ()
    unused_columns: tuple[str, ...] = ()
    local_times: int = 0
    tombstones: int = 0


def ingest(
    log: EventLog,
    domain_ref: str,
    files: Sequence[str],
    *,
    mapping: ColumnMapping | None = None,
    format: str | None = None,
    strict: bool = False,
    max_rejects: str | None = None,
    rejects: Path | None = None,
    options: PipelineOptions | None = None,
    report: Callable[[ImportProgress], None] = lambda _: None,
    limits: ImportLimits | None = None,
) -> Ingested:
    """Import the events of files into a log, in the order of files and rows.

    The same content with the same mapping is the same import, wherever the files are: once published, it changes
    nothing again; after a crash, it resumes where it was. An import is atomic: if it fails, the log is as it was.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        files: paths, patterns, or URLs that fsspec knows; gzip, Zstandard, bzip2 and xz are decompressed.
        mapping: of the files' columns. By default CloudEvents keep their attributes, and all other files have the
            columns of the envelope.
        format: one of ``refold.pipelines.ingest.formats.FORMATS``; by default the files' suffixes decide.
        strict: stop at the first invalid row; nothing is published then.
        max_rejects: how many rows may be rejected, as ``"10"`` or ``"0.5%"``; if more are, nothing is published. By
            default any number may be.
        rejects: where rejected rows go, as JSON lines; by default beside the first file, or in the log's folder
            ``staging/rejects`` if nothing can be written there.
        options: Beam's options, which also set how many chunks are checked in parallel; by default a local runner.
        report: called with the progress, a few times a second.
        limits: how much is held in memory at a time.

    Returns:
        What was added to the log, and what was left out.

    Raises:
        UsageError: a file is missing, damaged, of no known format, or lacks a column, or the log belongs to another
            domain; nothing was published.
        PayloadError: a row is invalid, and ``strict`` was set; nothing was published.
        RejectedRowsError: more rows are invalid than ``max_rejects`` allows; this run published nothing.

    Example:
        >>> import tempfile
        >>> from refold import beam_options, create_log, ingest
        >>> row = '{"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2024-05-01T12:00:00Z",'
        >>> row += ' "payload": {"sku": "cup", "quantity": -1, "reason": "broken"}}'
        >>> options = beam_options(None, ["--direct_num_workers=2"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "history.jsonl"
        ...     _ = path.write_text(row)
        ...     log = create_log(f"{folder}/log", domain_name="orders")
        ...     first, again = (ingest(log, "orders", [str(path)], options=options) for _ in range(2))
        >>> first.events, again.events, again.already
        (1, 0, True)
    """
    options = options or beam_options(None)
    domain = load_domain(domain_ref)
    registry = domain.registry
    if domain.name != log.domain_name:
        raise UsageError(f"The log at {log.url} belongs to domain {log.domain_name!r}, not {domain.name!r}.")
    limit = None if max_rejects is None else RejectLimit.parse(max_rejects)
    if mapping is not None:
        check_mapping(mapping, registry)
    sources = [
        for_file(source, mapping or _default_mapping(source))
        for source in _inspected(expand_patterns(files), format, report)
    ]
    import_id = _identity(log, sources)
    target = rejects or default_target(log, sources[0][0], import_id)
    urls = [source.url for source, _ in sources]
    with import_folder(log, import_id) as folder:
        if find_import(log, log.head(), import_id) is not None:
            return _already_published(log, import_id, limit)
        delete_outdated(folder, urls)
        bucket_count = log.manifest().bucket_count
        spool = Spool(folder, bucket_count=bucket_count, context=_context(registry))
        record_files(folder, urls)
        reject_file = _reject_file(folder, spool)
        plan = ReadPlan(
            sources=sources,
            registry=registry,
            bucket_count=bucket_count,
            workers=workers_of(options),
            limits=limits or ImportLimits(),
            strict=strict,
            personal=log.personal_data,
        )
        size = sum(source.size for source, _ in sources)
        read_into(
            spool,
            reject_file,
            plan,
            lambda done, events, rejected: report(ImportProgress("read", done, size, events, rejected)),
        )
        for source, _ in sources:
            check_unchanged(source)
        if mapping is not None:
            check_found(sources, ReadSoFar.of(spool.journal).found)
        delivered = reject_file.deliver(target)
        left_out = LeftOut(
            rows=spool.journal.events + reject_file.count, rejected=reject_file.count, reasons=reject_file.summary()
        )
        _check_rejects(
            left_out, limit, f"Nothing was imported: correct the rows, which {delivered} has, or the mapping."
        )
        record_left_out(log, import_id, left_out)
        published = _publish(log, domain_ref, import_id, spool, plan, options, report)
        return dataclasses.replace(
            published,
            rejected=left_out.rejected,
            rejects=delivered,
            reasons=left_out.reasons,
            unused_columns=unused_columns(sources, registry, spool.journal),
            local_times=ReadSoFar.of(spool.journal).local,
            tombstones=ReadSoFar.of(spool.journal).tombstones,
        )


def _check_rejects(left_out: LeftOut, limit: RejectLimit | None, outcome: str) -> None:
    """Refuse an import that rejected more rows than it may."""
    if limit is None or limit.allows(rejected=left_out.rejected, rows=left_out.rows):
        return
    reasons = ". ".join(str(reason) for reason in left_out.reasons[:_REASONS])
    raise RejectedRowsError(
        f"{left_out.rejected:,} of {left_out.rows:,} rows are invalid, more than --max-rejects {limit} allows. "
        f"{reasons}. {outcome}"
    )


def _publish(
    log: EventLog,
    domain_ref: str,
    import_id: str,
    spool: Spool,
    plan: ReadPlan,
    options: PipelineOptions,
    report: Callable[[ImportProgress], None],
) -> Ingested:
    """Add the spooled events to the log: with one commit, if their streams are new to it."""
    folder = spool.folder
    if not spool.journal.events:
        return Ingested()
    if not (folder / JOURNAL).exists():
        head = log.head()
        is_new = overlapping_stream(log, head, read_spool(folder)) is None
        spooled = leave_out_repeats(plan, read_spool(folder), None if is_new else KnownEvents(log, head))
        events, repeats = spooled.events, len(spooled.left_out)
    if not (folder / JOURNAL).exists() and is_new:
        try:
            finish_import(
                log,
                domain_ref,
                import_id,
                folder,
                bucket_count=plan.bucket_count,
                options=options,
                report=lambda done, planned: report(ImportProgress("build", done, planned, events)),
            )
            return Ingested(events=events, commits=1, duplicates=repeats)
        except StreamsNotNewError:
            leave_out_repeats(plan, read_spool(folder), KnownEvents(log, log.head()))
    spooled = read_spool(folder)
    events = spooled.events
    done = commit_spooled(
        log,
        plan.registry,
        import_id,
        spooled,
        commit_events=plan.limits.commit_events,
        seal=lambda: seal(log, domain_ref, options),
        report=lambda through: report(ImportProgress("commit", through, events, events)),
    )
    publish_import(log, import_id, 0, (), bucket_count=log.manifest().bucket_count)
    return Ingested(events=done.events, commits=done.commits + 1, mode="commits", duplicates=len(spooled.left_out))


def _inspected(names: list[str], format: str | None, report: Callable[[ImportProgress], None]) -> Iterator[SourceFile]:
    for name in names:
        yield inspect(name, format=format, report=lambda done, total: report(ImportProgress("identify", done, total)))


def _default_mapping(source: SourceFile) -> ColumnMapping:
    return CLOUDEVENTS if source.cloudevents else OWN


def _identity(log: EventLog, sources: _Sources) -> str:
    """Name an import by its content and its log, so that it is the same import wherever the files are."""
    parts = [log.log_id, *([source.identity, source.format, mapping.digest()] for source, mapping in sources)]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]


def _context(registry: Registry) -> str:
    """Return a digest of the contracts that rows are checked against: if one changes, rows must be checked again."""
    schemas = "\n".join(f"{schema_key} {registry.schema(*schema_key)}" for schema_key in registry.schema_keys)
    return hashlib.sha256(f"{_SPOOLED_BY} {schemas}".encode()).hexdigest()


def _reject_file(folder: Path, spool: Spool) -> RejectFile:
    source = spool.journal.source
    return RejectFile(
        folder / "rejects.jsonl", size=int(source.get("rejects_size", 0)), count=int(source.get("rejected", 0))
    )


def _already_published(log: EventLog, import_id: str, limit: RejectLimit | None) -> Ingested:
    """Return the answer of the run that published an import."""
    left_out = read_left_out(log, import_id)
    if left_out is None:
        return Ingested(already=True)
    _check_rejects(
        left_out, limit, "These files were imported without them: correct them, and import them as a new file."
    )
    return Ingested(already=True, rejected=left_out.rejected, reasons=left_out.reasons)
