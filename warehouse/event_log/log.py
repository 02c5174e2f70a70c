"""The event log: its identity, its commits and its end.

Commits are numbered objects created by put-if-absent, so their numbers are the order of the log: a reader that has
read commit n finds later commits at n+1, n+2, …, and no commit ever appears before it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from refold.event_schemas import (
    DamagedLogError,
    LogError,
    ObjectNotFoundError,
    UsageError,
)
from refold.warehouse.event_log import commit, manifest
from refold.warehouse.event_log.clocks import NEVER
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import (
    COMMITS,
    CONFIG_KEY,
    DEFAULT_BUCKET_COUNT,
    FORMAT_VERSION,
    commit_key,
    number_of,
)
from refold.warehouse.event_log.manifest import Manifest, Segment
from refold.warehouse.object_store import ObjectStore, open_store


@dataclass(frozen=True, slots=True)
class EventLog:
    """An open log; a value that can be sent to another process.

    Attributes:
        store: the object store at the log's URL.
        domain_name: the domain whose events it holds.
        bucket_count: number of buckets of its streams; it never changes.
        log_id: identity of the log.
    """

    store: ObjectStore
    domain_name: str
    bucket_count: int
    log_id: str

    @property
    def url(self) -> str:
        """Location of the log."""
        return self.store.url

    def manifest(self) -> Manifest:
        """Load the newest manifest."""
        return manifest.newest(self.store)

    def commit_info(self, number: int) -> CommitInfo | None:
        """Read one commit's footer; None if there is no such commit (yet)."""
        key = commit_key(number)
        where = f"{self.url}/{key}"
        try:
            source: bytes | Path = self.store.local_path(key) if self.store.is_local else self.store.get(key)
            return commit.read_info(source, where=where)
        except ObjectNotFoundError:
            return None

    def commits_after(self, number: int) -> Iterator[CommitInfo]:
        """Read the footers of all commits after one, in order, until there is no next number."""
        while (info := self.commit_info(number + 1)) is not None:
            yield info
            number += 1

    def last_commit(self, after: int = 0) -> CommitInfo | None:
        """Find the last commit by galloping search, without listing or reading others: numbers have no gaps.

        Args:
            after: number of a commit after which no commit was deleted; it may be deleted itself.

        Returns:
            The footer of the last commit, or None if there is none after that one.
        """
        last, step = after, 1
        while self._has_commit(last + step):
            last, step = last + step, 2 * step
        beyond = last + step
        while beyond - last > 1:
            middle = (last + beyond) // 2
            last, beyond = (middle, beyond) if self._has_commit(middle) else (last, middle)
        return self.commit_info(last) if last > after else None

    def _has_commit(self, number: int) -> bool:
        return self.store.exists(commit_key(number))

    def commit_paths(self, numbers: list[int]) -> list[Path]:
        """Return local paths of commit objects; remote ones are downloaded concurrently.

        Raises:
            DamagedLogError: one of them is missing.
        """
        try:
            if self.store.is_local:
                return [self.store.local_path(commit_key(n)) for n in numbers]
            with ThreadPoolExecutor(max_workers=16) as pool:
                return list(pool.map(lambda n: self.store.local_path(commit_key(n)), numbers))
        except ObjectNotFoundError as error:
            raise DamagedLogError(
                f"A commit of the log {self.url} is missing: {error} Run `refold events "
                "verify`, and restore the object from a backup."
            ) from error

    def segment_path(self, segment: Segment) -> Path:
        """Return the local path of a segment, after checking its size.

        Raises:
            DamagedLogError: the segment is missing or truncated.
        """
        where = f"{self.url}/{segment.key}"
        try:
            path = self.store.local_path(segment.key)
        except ObjectNotFoundError as error:
            raise DamagedLogError(
                f"Segment {where} is missing, but the manifest names it ({segment.rows} events of "
                f"{segment.event_type} v{segment.schema_version}, positions {segment.first_position} to "
                f"{segment.last_position}). Restore it from a backup of the store; nothing was published."
            ) from error
        if (found := path.stat().st_size) != segment.bytes:
            raise DamagedLogError(
                f"Segment {where} has {found} bytes, expected {segment.bytes}: it is truncated or was overwritten. "
                "Restore it from a backup of the store; nothing was published."
            )
        return path

    def head(self) -> Head:
        """Find the end of the log."""
        sealed = self.manifest()
        tail = tuple(self.commits_after(sealed.sealed_commit))
        return Head(sealed, tail)

    def check_end(self, head: Head) -> None:
        """Check that no commit exists beyond a head, which would mean that one is missing; this costs a listing.

        Raises:
            DamagedLogError: a commit is missing.
        """
        expected = commit_key(head.commit + 1)
        following = next(iter(self.store.list_from(COMMITS, start_after=commit_key(head.commit))), expected)
        if following != expected:
            raise DamagedLogError(
                f"Commit {self.url}/{expected} is missing, but {following} exists. Restore it from a backup of "
                "the store; nothing was published."
            )


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log: the newest manifest, and the commits after it.

    Attributes:
        sealed: the newest manifest.
        tail: footers of the unsealed commits, in order.
    """

    sealed: Manifest
    tail: tuple[CommitInfo, ...]

    @property
    def commit(self) -> int:
        """Number of the last commit; 0 for an empty log."""
        return self.tail[-1].number if self.tail else self.sealed.sealed_commit

    @property
    def position(self) -> int:
        """Position of the last event; 0 for an empty log."""
        return self.tail[-1].last_position if self.tail else self.sealed.sealed_position

    @property
    def recorded_at(self) -> str:
        """Time at which the last commit was recorded, RFC 3339; empty for an empty log."""
        return self.tail[-1].recorded_at.isoformat() if self.tail else self.sealed.recorded_at

    @property
    def last_recorded_at(self) -> datetime:
        """The same as a time; ``NEVER`` for an empty log."""
        return datetime.fromisoformat(self.recorded_at) if self.recorded_at else NEVER


def create_log(url: str, *, domain_name: str, bucket_count: int = DEFAULT_BUCKET_COUNT) -> EventLog:
    """Create a log, or open the existing one.

    Args:
        url: a folder, or the URL of an object store.
        domain_name: the domain whose events it will hold.
        bucket_count: number of units of parallelism; 64 fits logs from thousands to billions of events.

    Raises:
        UsageError: the bucket count is out of range.
        LogError: the existing log has another domain, format or bucket count.
        StoreNotConditionalError: the store does not support put-if-absent.
    """
    if not 1 <= bucket_count <= 1024:
        raise UsageError(f"bucket_count is {bucket_count}; expected 1 to 1024.")
    store = open_store(url)
    if not store.exists(CONFIG_KEY):
        store.probe()
        config = {
            "format_version": FORMAT_VERSION,
            "domain": domain_name,
            "bucket_count": bucket_count,
            "log_id": str(uuid.uuid4()),
        }
        store.put_if_absent(CONFIG_KEY, orjson.dumps(config, option=orjson.OPT_INDENT_2))
    return open_log(url, domain_name=domain_name, bucket_count=bucket_count)


def open_log(url: str, *, domain_name: str | None = None, bucket_count: int | None = None) -> EventLog:
    """Open an existing log.

    Args:
        url: its location.
        domain_name: expected domain; any by default.
        bucket_count: expected bucket count; any by default.

    Raises:
        LogError: there is no log, or it has another domain, format or bucket count.
        DamagedLogError: its description is unreadable.
    """
    store = open_store(url)
    try:
        config = orjson.loads(store.get(CONFIG_KEY))
        found = EventLog(store, config["domain"], config["bucket_count"], config["log_id"])
    except ObjectNotFoundError as error:
        raise LogError(
            f"There is no event log at {store.url} (no {CONFIG_KEY}). Give --log, or create one with `refold ingest` "
            "or `refold demo`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedLogError(
            f"{store.url}/{CONFIG_KEY} is not the description of a log ({error}). Restore it from a backup."
        ) from error
    if config["format_version"] != FORMAT_VERSION:
        raise LogError(
            f"The log at {store.url} has format version {config['format_version']}; this refold reads "
            f"{FORMAT_VERSION}. Use the refold release that wrote it."
        )
    if domain_name is not None and domain_name != found.domain_name:
        raise LogError(
            f"The log at {store.url} belongs to domain {found.domain_name!r}, not {domain_name!r}. Give "
            f"--domain {found.domain_name}, or another --log."
        )
    if bucket_count is not None and bucket_count != found.bucket_count:
        raise LogError(
            f"The log at {store.url} has {found.bucket_count} buckets, not {bucket_count}. A bucket count is fixed "
            "at creation: leave it out, or import the events into a new log."
        )
    return found


def last_commit_number(store: ObjectStore) -> int:
    """Return the last commit number by listing; for checks only, since listings grow with the log."""
    return max((number_of(k) for k in store.list_from(COMMITS)), default=0)
