"""A spooled import as segments: buckets are built in parallel, then one commit publishes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.beam.staged_pipeline import (
    Named,
    StagedCount,
    Work,
    run_staged,
)
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log.bulk_import.bulk_segments import StreamsNotNewError, build_bucket, publish_import
from refold.warehouse.event_log.bulk_import.spool import read_spool
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.event_log.seal import SealedBuckets
from refold.warehouse.object_store import open_store
from refold.warehouse.object_store.records import decode_record, encode_record


def finish_import(
    log: EventLog,
    domain_ref: str,
    import_id: str,
    folder: Path,
    *,
    bucket_count: int,
    options: PipelineOptions | None = None,
    report: Callable[[int, int], None] = lambda _done, _planned: None,
) -> CommitInfo:
    """Write a spooled import as segments, publish them with one commit, and seal that commit.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path.
        import_id: identity of the import.
        folder: of its spool, on a disk that all workers share.
        bucket_count: how many buckets it was spooled for.
        options: Beam's options; by default a local runner.
        report: called with finished and planned buckets.

    Raises:
        StreamsNotNewError: the log has events of one of its streams; nothing was published.
    """
    options = options or beam_options(None)
    spool = read_spool(folder)
    staging = open_store(str(folder))
    recorded_at = spool.journal.recorded_at
    work = Work(
        staging.url,
        spool.buckets(),
        stage=functools.partial(_build, log.url, domain_ref, str(folder), recorded_at),
        merge=_nothing,
        name="import",
    )
    planned = len(spool.buckets())
    with StagedCount(staging, "built", lambda done: report(done, planned)):
        run_staged(work, options)
    built = [decode_record(staging.get(key), SealedBuckets) for key in staging.list_from("built")]
    try:
        info = publish_import(log, import_id, spool.events, built, bucket_count=bucket_count)
    except StreamsNotNewError:
        _discard(log, built)
        staging.delete_prefix("built")
        raise
    seal(log, domain_ref, options)
    return info


def _build(log_url: str, domain_ref: str, folder: str, recorded_at: str, bucket: int) -> Iterator[Named]:
    """Build one bucket, unless a killed run built it and its files still exist."""
    staging, log = open_store(folder), open_log(log_url)
    done = f"built/{bucket:04d}"
    if not staging.exists(done) or not _exists(log, decode_record(staging.get(done), SealedBuckets)):
        built = build_bucket(log, load_domain(domain_ref).registry, Path(folder), bucket, recorded_at)
        staging.put(done, encode_record(built))
    return iter(())


def _exists(log: EventLog, built: SealedBuckets) -> bool:
    keys = (*(s.key for s in built.segments), *(h.key for h in built.heads))
    return all(log.store.exists(key) for key in keys)


def _discard(log: EventLog, built: Sequence[SealedBuckets]) -> None:
    """Delete the files of buckets that no commit will name."""
    for bucket in built:
        for key in (*(s.key for s in bucket.segments), *(h.key for h in bucket.heads)):
            log.store.delete(key)


def _nothing(_group: str, _staged: list[str]) -> None:
    """Do nothing: the buckets of an import are independent."""
