"""To create a log and to open one: ``refold.json`` says what it is."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from refold.event_schemas import DamagedLogError, LogError, ObjectNotFoundError, UsageError
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.layout import CONFIG_KEY, DEFAULT_BUCKET_COUNT, FORMAT_VERSION
from refold.warehouse.event_log.log import EventLog, default_keys_url
from refold.warehouse.object_store import open_store
from refold.warehouse.object_store.records import (
    RecordError,
    decode_json,
    decode_record,
    encode_record,
    is_record,
    record_digest,
)
from refold.warehouse.personal.key_store import check_beside

MAX_BUCKETS = 1024
"""More would make objects of a few kilobytes even in a log of a billion events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What ``refold.json`` says of a log.

    Attributes:
        format_version: format of the log's objects.
        domain: the domain whose events it holds.
        bucket_count: number of buckets of its streams.
        log_id: identity of the log.
        command_digests: whether all events of commands keep the digest of their command.
        chain_after: the last commit before the chain of digests begins; 0 unless the log was upgraded from format 1.
        chain_position: position of that commit's last event.
        chain_digest: the digest that the next commit names.
    """

    format_version: int
    domain: str
    bucket_count: int
    log_id: str
    command_digests: bool = False
    chain_after: int = 0
    chain_position: int = 0
    chain_digest: str = ""


def read_description(data: bytes) -> Description:
    """Read what ``refold.json`` says; only format 1 has no digest in it.

    Raises:
        RecordError: it is no description, or was changed.
    """
    if is_record(data):
        return decode_record(data, Description)
    found = decode_json(data, Description)
    if found.format_version > 1:
        raise RecordError("it has no digest")
    return found


def create_log(
    url: str, *, domain_name: str, bucket_count: int = DEFAULT_BUCKET_COUNT, keys_url: str | None = None
) -> EventLog:
    """Create a log, or open the existing one.

    Args:
        url: a folder, or the URL of an object store.
        domain_name: the domain whose events it will hold.
        bucket_count: number of units of parallelism; 64 fits logs from thousands to billions of events.
        keys_url: as for :func:`open_log`.

    Raises:
        UsageError: the bucket count is out of range.
        LogError: the existing log has another domain, format or bucket count.
        StoreNotConditionalError: the store does not support put-if-absent.
    """
    if not 1 <= bucket_count <= MAX_BUCKETS:
        raise UsageError(f"bucket_count is {bucket_count}; expected 1 to {MAX_BUCKETS}.")
    store = open_store(url)
    if not store.exists(CONFIG_KEY):
        store.probe()
        description = Description(
            format_version=FORMAT_VERSION,
            domain=domain_name,
            bucket_count=bucket_count,
            log_id=str(uuid.uuid4()),
            command_digests=True,
        )
        store.put_if_absent(CONFIG_KEY, encode_record(description))
    return open_log(url, domain_name=domain_name, bucket_count=bucket_count, keys_url=keys_url)


def open_log(
    url: str, *, domain_name: str | None = None, bucket_count: int | None = None, keys_url: str | None = None
) -> EventLog:
    """Open an existing log.

    Args:
        url: its location.
        domain_name: expected domain; any by default.
        bucket_count: expected bucket count; any by default.
        keys_url: key store of the log's personal data; by default the log's URL with ``-keys`` after it.

    Raises:
        UsageError: the key store is inside of the log.
        LogError: there is no log, or it has another domain, format or bucket count.
        DamagedLogError: its description is unreadable.
    """
    store = open_store(url)
    try:
        data = store.get(CONFIG_KEY)
        description = read_description(data)
    except ObjectNotFoundError as error:
        raise LogError(
            f"There is no event log at {store.url} (no {CONFIG_KEY}). Give --log, or create one with `refold ingest` "
            "or `refold demo`."
        ) from error
    except RecordError as error:
        raise DamagedLogError(
            f"{store.url}/{CONFIG_KEY} is not the description of a log, or is damaged ({error}). Restore it from a "
            "backup."
        ) from error
    if not 1 <= description.format_version <= FORMAT_VERSION:
        raise LogError(
            f"The log at {store.url} has format {description.format_version}; this refold reads up to "
            f"{FORMAT_VERSION}. Use the refold release that wrote it."
        )
    upgraded = Link(description.chain_after, description.chain_position, description.chain_digest)
    found = EventLog(
        store.rooted(),
        description.domain,
        description.bucket_count,
        description.log_id,
        description.command_digests,
        description.format_version,
        upgraded if description.chain_after else Link(0, 0, record_digest(data) if is_record(data) else ""),
        keys_url or default_keys_url(store.url),
    )
    check_beside(found.keys_url, found.url)
    if domain_name is not None and domain_name != found.domain_name:
        raise LogError(
            f"The log at {store.url} belongs to domain {found.domain_name!r}, not {domain_name!r}. Give "
            f"--domain {found.domain_name}, or another --log."
        )
    if bucket_count is not None and bucket_count != (now := found.manifest().bucket_count):
        raise LogError(
            f"The log at {store.url} has {now} buckets, not {bucket_count}. Leave the bucket count out, or change it "
            "with `refold log rebucket`."
        )
    return found
