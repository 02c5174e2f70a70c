"""``refold log upgrade``: brings a log of format 1 to the current format.

The log is sealed first. What is sealed has digests from then on: a manifest names those of all segments and stream
heads, and the description that of all commits together, to which the chain of later commits is linked. So nothing is
rewritten, and the log can be upgraded again if this process is killed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import LogError
from refold.pipelines.seal import seal_any_format
from refold.warehouse.event_log import manifest as manifests
from refold.warehouse.event_log.layout import COMMITS, CONFIG_KEY, FORMAT_VERSION, numbered
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.opening import Description, open_log
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.digests import digest_of, file_digest
from refold.warehouse.object_store.records import encode_record

_READERS = 16


def upgrade_log(log: EventLog, domain_ref: str, options: PipelineOptions | None = None) -> EventLog:
    """Bring a log to the current format.

    No other process may write to it meanwhile: releases that know format 1 only do not look again.

    Args:
        log: the log.
        domain_ref: the domain, by entry-point name or dotted path, for the workers that seal.
        options: Beam's options; the local runner by default.

    Returns:
        The upgraded log; the same, if it has the current format.

    Raises:
        LogError: another process sealed the log meanwhile.
        DamagedLogError: an object is missing or damaged; the log was not upgraded.
    """
    if log.format_version == FORMAT_VERSION:
        return log
    seal_any_format(log, domain_ref, options)
    sealed = log.manifest()
    chain_digest = _digest_of_commits(log.store) if sealed.sealed_commit else ""
    if sealed.number and not manifests.publish(log.store, _with_digests(log, sealed, chain_digest)):
        raise LogError(f"Another process sealed the log {log.url} meanwhile. End all its writers, and try again.")
    description = Description(
        format_version=FORMAT_VERSION,
        domain=log.domain_name,
        bucket_count=log.bucket_count,
        log_id=log.log_id,
        command_digests=log.has_command_digests,
        chain_after=sealed.sealed_commit,
        chain_position=sealed.sealed_position,
        chain_digest=chain_digest,
    )
    log.store.put(CONFIG_KEY, encode_record(description))
    return open_log(log.url, keys_url=log.keys_url)


def _digest_of_commits(store: ObjectStore) -> str:
    """Return the digest of the digests of all commits, in order."""
    together = hashlib.sha256()
    with ThreadPoolExecutor(_READERS) as pool:
        for digest in pool.map(lambda key: digest_of(store.get(key)), numbered(store.list_from(COMMITS))):
            together.update(digest.encode())
    return together.hexdigest()


def _with_digests(log: EventLog, sealed: Manifest, chain_digest: str) -> Manifest:
    """Return the next manifest: the same objects, each with the digest of its bytes."""
    segments = (s if s.checksum else replace(s, checksum=file_digest(log.segment_path(s))) for s in sealed.segments)
    heads = (replace(h, checksum=file_digest(log.heads_path(h))) for h in sealed.heads)
    return replace(
        sealed,
        number=sealed.number + 1,
        sealed_digest=chain_digest,
        segments=tuple(segments),
        heads=tuple(heads),
    )
