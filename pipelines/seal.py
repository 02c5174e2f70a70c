"""``refold seal``: turns commits into typed, sorted segments, in parallel.

Beam: each unit repartitions some commits by bucket -> groups of buckets become segments -> one manifest names them all.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import RefoldError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.beam.staged_pipeline import Named, Work, run_staged
from refold.warehouse.declarations.domain import load_domain
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.event_log.rebucket import with_bucket_count
from refold.warehouse.event_log.seal import SealedBuckets, next_manifest, repartition, seal_buckets
from refold.warehouse.object_store import open_store
from refold.warehouse.object_store.checked_files import checked_path
from refold.warehouse.object_store.records import decode_record, encode_record

_EVENTS_PER_UNIT = 500_000
"""Bounds the memory of a worker that repartitions large commits."""
_COMMITS_PER_UNIT = 2_000
"""Bounds the requests of a worker that repartitions small commits, so that several share them."""
_EVENTS_PER_GROUP = 10_000
"""New events of the buckets that a worker seals together: DuckDB plans each of its queries once for all of them."""
_MAX_BUCKETS = 32
"""Each bucket that a worker seals keeps a file open."""
_ATTEMPTS = 5
"""Each lost race costs a complete seal, and the winner has sealed most of the tail: more attempts hardly ever help."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a seal did.

    Attributes:
        events: how many events went into segments.
        commits: how many commits.
        segments: how many segments are live now.
        position: the last sealed position now.
    """

    events: int
    commits: int
    segments: int
    position: int


def seal(log: EventLog, domain_ref: str, options: PipelineOptions | None = None) -> Sealed:
    """Turn all unsealed commits into segments, and publish the manifest that names them.

    Args:
        log: the log; appends may go on meanwhile.
        domain_ref: the domain, by entry-point name or dotted path, for the workers.
        options: Beam's options; the local runner by default.

    Raises:
        DamagedLogError: a commit is missing or truncated; nothing was published.

    Example:
        >>> from decimal import Decimal
        >>> from tempfile import mkdtemp
        >>> from refold import Appender, create_log, load_domain, seal
        >>> from refold.event_schemas.trading import CashDeposited
        >>> log = create_log(mkdtemp(), domain_name="trading")
        >>> deposit = CashDeposited(trader_id="ada", amount=Decimal("100.00"))
        >>> _ = Appender(log, load_domain("trading").registry).append("ada", [deposit])
        >>> seal(log, "trading").position
        1
    """
    log.check_writable()
    return seal_any_format(log, domain_ref, options)


def seal_any_format(log: EventLog, domain_ref: str, options: PipelineOptions | None = None) -> Sealed:
    """Seal as :func:`seal` does, a log of an older format too: an upgrade begins with it."""
    options = options or beam_options()
    for _ in range(_ATTEMPTS):
        head = log.unchecked_head()
        log.check_end(head)
        if not head.tail:
            sealed = head.sealed
            return Sealed(0, 0, len(sealed.segments), sealed.sealed_position)
        made = _sealed_manifest(log, domain_ref, head.sealed, head.tail, options)
        if manifests.publish(log.store, made):
            events = made.sealed_position - head.sealed.sealed_position
            return Sealed(events, len(head.tail), len(made.segments), made.sealed_position)
        _discard(log, head, made)
    raise RefoldError(
        f"Other processes sealed the log {log.url} meanwhile, {_ATTEMPTS} times. Run the command again when they have "
        "ended."
    )


def _sealed_manifest(
    log: EventLog, domain_ref: str, before: Manifest, tail: Sequence[CommitInfo], options: PipelineOptions
) -> Manifest:
    tail = [with_bucket_count(log, info, before.bucket_count) for info in tail]
    ordinary = [info for info in tail if info.import_id is None]
    if not ordinary:
        return next_manifest(before, tail, ())
    folder = f"staging/seal-{uuid.uuid4()}"
    staging = log.store.child(folder)
    try:
        width = _width(before.bucket_count, sum(info.events for info in ordinary))
        units = [_CommitRange(f"{i:05d}", infos) for i, infos in enumerate(_ranges(ordinary))]
        work = Work(
            staging.url,
            units,
            stage=functools.partial(_repartition, log.url, staging.url, before.bucket_count, width),
            merge=functools.partial(_seal, log.url, staging.url, domain_ref, width, before.number),
            name="seal",
        )
        run_staged(work, options)
        sealed = [decode_record(staging.get(key), SealedBuckets) for key in staging.list_from("sealed")]
        return next_manifest(before, tail, sealed)
    finally:
        log.store.delete_prefix(folder)


@dataclass(frozen=True, slots=True)
class _CommitRange:
    """Some commits that one worker repartitions."""

    name: str
    infos: list[CommitInfo]

    def __str__(self) -> str:
        return f"commits {self.infos[0].number} to {self.infos[-1].number}"


def _ranges(tail: Sequence[CommitInfo]) -> Iterator[list[CommitInfo]]:
    infos: list[CommitInfo] = []
    events = 0
    for info in tail:
        infos.append(dataclasses.replace(info, heads={}))  # which a worker does not need
        events += info.events
        if events >= _EVENTS_PER_UNIT or len(infos) >= _COMMITS_PER_UNIT:
            yield infos
            infos, events = [], 0
    if infos:
        yield infos


def _width(bucket_count: int, events: int) -> int:
    """Return how many buckets a worker seals together."""
    return max(1, min(_MAX_BUCKETS, bucket_count * _EVENTS_PER_GROUP // events))


def _repartition(log_url: str, staging_url: str, bucket_count: int, width: int, unit: _CommitRange) -> Iterator[Named]:
    staging = open_store(staging_url)
    name = f"repartitioned/{unit.name}"
    key, buckets = repartition(open_log(log_url), unit.infos, staging, name, bucket_count=bucket_count)
    for first in sorted({bucket // width * width for bucket in buckets}):
        yield f"{first:04d}", key


def _seal(
    log_url: str, staging_url: str, domain_ref: str, width: int, manifest: int, first: str, repartitioned: list[str]
) -> None:
    log, staging = open_log(log_url), open_store(staging_url)
    paths = [checked_path(staging, key) for key in repartitioned]
    buckets = range(int(first), int(first) + width)
    made = seal_buckets(log, load_domain(domain_ref).registry, buckets, paths, log.manifest(manifest))
    staging.put(f"sealed/{first}", encode_record(made))


def _discard(log: EventLog, seen: Head, lost: Manifest) -> None:
    """Delete the files of a seal that lost the race for its manifest, except those that a commit or manifest names."""
    newest = log.manifest()
    kept = {s.key for m in (seen.sealed, newest) for s in m.segments} | {
        h.key for m in (seen.sealed, newest) for h in m.heads
    }
    for info in seen.tail:  # a bulk import's segments belong to its commit, sealed or not
        kept |= {s.key for s in info.segments} | {h.key for h in info.heads_runs}
    for key in {s.key for s in lost.segments} | {h.key for h in lost.heads}:
        if key not in kept:
            log.store.delete(key)
