"""The event log: its identity, its commits and its end.

Commits are numbered objects created by put-if-absent, so their numbers are the order of the log: a reader that has
read commit n finds later commits at n+1, n+2, …, and no commit ever appears before it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from refold.event_schemas import (
    DamagedLogError,
    LogError,
    ObjectNotFoundError,
    UsageError,
)
from refold.warehouse.event_log import commit, manifest
from refold.warehouse.event_log.chain import BEGINNING, Link, check_next
from refold.warehouse.event_log.clocks import NEVER
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import (
    COMMITS,
    CONFIG_KEY,
    DEFAULT_BUCKET_COUNT,
    FORMAT_VERSION,
    commit_key,
    manifest_key,
    number_of,
    numbered,
)
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.digests import DigestError, check_file
from refold.warehouse.object_store.records import (
    RecordError,
    decode_json,
    decode_record,
    encode_record,
    is_record,
    record_digest,
)
from refold.warehouse.personal.key_store import check_beside
from refold.warehouse.personal.personal_data import PersonalData, personal_data

MAX_BUCKETS = 1024
"""More would make objects of a few kilobytes even in a log of a billion events."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """An open log; a value that can be sent to another process.

    Attributes:
        store: the object store at the log's URL.
        domain_name: the domain whose events it holds.
        bucket_count: number of buckets of its streams at first; that of the newest manifest holds (``rebucket``).
        log_id: identity of the log.
        has_command_digests: whether all events of commands keep the digest of their command; false for a log that an
            older release created.
        format_version: format of its objects; one of an older format can be read, but not written.
        start: the place where its chain of digests begins.
        keys_url: the key store of its personal data.
    """

    store: ObjectStore
    domain_name: str
    bucket_count: int
    log_id: str
    has_command_digests: bool = True
    format_version: int = FORMAT_VERSION
    start: Link = BEGINNING
    keys_url: str = ""

    @property
    def personal_data(self) -> PersonalData:
        """Its personal data, with the keys that this process has read."""
        return personal_data(self.keys_url or default_keys_url(self.url), self.log_id)

    @property
    def url(self) -> str:
        """Location of the log."""
        return self.store.url

    def manifest(self, number: int | None = None) -> Manifest:
        """Load a manifest, by default the newest.

        Raises:
            ObjectNotFoundError: there is no manifest of this number.
            DamagedLogError: it is damaged.
        """
        if number == 0:
            return Manifest(sealed_digest=self.start.digest, bucket_count=self.bucket_count)
        key = manifest_key(number) if number else manifest.newest_key(self.store)
        if not key:
            return self.manifest(0)
        found = manifest.load(self.store, key, has_digest=self.format_version > 1)
        if manifest_key(found.number) != key:
            raise DamagedLogError(
                f"{self.url}/{key} is manifest {found.number}: it was copied there. Restore the object from a backup "
                "of the store, or delete it if there was none of that number."
            )
        return found if found.bucket_count else dataclasses.replace(found, bucket_count=self.bucket_count)

    def check_writable(self) -> None:
        """Check that this release writes logs of this format.

        Raises:
            LogError: the log has an older format.
        """
        if self.format_version != FORMAT_VERSION:
            raise LogError(
                f"The log at {self.url} has format {self.format_version}, which this refold reads but does not write. "
                "End all its writers, and run `refold log upgrade`."
            )

    def commit_info(self, number: int) -> CommitInfo | None:
        """Read one commit's footer; None if there is no such commit (yet).

        Raises:
            DamagedLogError: the commit is damaged, or another commit is in its place.
        """
        key = commit_key(number)
        where = f"{self.url}/{key}"
        try:
            data = self.store.get(key)
        except ObjectNotFoundError:
            return None
        info = commit.read_info(data, where=where, has_digest=self._has_digest(number))
        if info.number != number:
            raise DamagedLogError(
                f"{where} is commit {info.number}, not {number}: two commits were swapped, or one was copied. Restore "
                "the object from a backup of the store."
            )
        return info

    def _has_digest(self, number: int) -> bool:
        return self.format_version > 1 and number > self.start.commit_number

    def commits_after(self, link: Link) -> Iterator[CommitInfo]:
        """Read the footers of all commits after a place, in order, until there is no next number.

        Raises:
            DamagedLogError: a commit is damaged, or does not follow the one before it.
        """
        while (info := self.commit_info(link.commit_number + 1)) is not None:
            where = f"{self.url}/{commit_key(info.number)}"
            check_next(link, info.number, info.first_position, info.previous, where=where)
            yield info
            link = info.end

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

    def first_commit(self) -> int:
        """Return the number of the first commit that was not removed, by listing; 0 if there is none."""
        return next((number_of(key) for key in numbered(self.store.list_from(COMMITS))), 0)

    def _has_commit(self, number: int) -> bool:
        return self.store.exists(commit_key(number))

    def commit_paths(self, infos: Iterable[CommitInfo]) -> list[Path]:
        """Return local paths of commit objects, which were checked; remote ones are downloaded concurrently.

        Raises:
            DamagedLogError: one of them is missing, or differs from its footer.
        """
        try:
            if self.store.is_local:
                return [self._commit_path(info) for info in infos]
            with ThreadPoolExecutor(max_workers=16) as pool:
                return list(pool.map(self._commit_path, infos))
        except ObjectNotFoundError as error:
            raise DamagedLogError(
                f"A commit of the log {self.url} is missing: {error} Run `refold events "
                "verify`, and restore the object from a backup."
            ) from error

    def _commit_path(self, info: CommitInfo) -> Path:
        path = self.store.local_path(commit_key(info.number))
        if info.digest:
            commit.check_file(path, info, where=f"{self.url}/{commit_key(info.number)}")
        return path

    def store_of(self, segment: Segment) -> ObjectStore:
        """Return the store that holds a segment: the log's own, or its archive."""
        return open_store(segment.archive) if segment.archive else self.store

    def url_of(self, segment: Segment) -> str:
        """Return the location of a segment."""
        return f"{segment.archive or self.url}/{segment.key}"

    def segment_path(self, segment: Segment) -> Path:
        """Return the local path of a segment, after checking its bytes.

        Raises:
            DamagedLogError: the segment is missing, or differs from what was written.
        """
        where = self.url_of(segment)
        try:
            path = self.store_of(segment).local_path(segment.key)
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
        if segment.checksum:
            _check_file(path, segment.checksum, f"Segment {where}")
        return path

    def heads_path(self, run: HeadsRun) -> Path:
        """Return the local path of a run of stream heads, after checking its bytes.

        Raises:
            DamagedLogError: the run is missing, or differs from what was written.
        """
        try:
            path = self.store.local_path(run.key)
        except ObjectNotFoundError as error:
            raise DamagedLogError(
                f"The stream heads {self.url}/{run.key} are missing, but the manifest names them. Restore the object "
                "from a backup of the store."
            ) from error
        if run.checksum:
            _check_file(path, run.checksum, f"The object of stream heads {self.url}/{run.key}")
        return path

    def head(self) -> Head:
        """Find the end of the log.

        Raises:
            LogError: an import was published while another process changed the bucket count.
        """
        head = self.unchecked_head()
        for info in head.tail:
            self.check_bucket_count(info, head.sealed.bucket_count)
        return head

    def unchecked_head(self) -> Head:
        """Find the end of the log, which may have an import with another bucket count: a seal rewrites that."""
        sealed = self.manifest()
        return Head(sealed, tuple(self.commits_after(sealed.end)))

    def has_bucket_count(self, info: CommitInfo, bucket_count: int) -> bool:
        """Check whether the segments of a commit, if it is an import, have so many buckets."""
        return info.import_id is None or (info.bucket_count or self.bucket_count) == bucket_count

    def check_bucket_count(self, info: CommitInfo, bucket_count: int) -> None:
        """Check that the segments of a commit, if it is an import, have the buckets of the manifest.

        Raises:
            LogError: they have not.
        """
        if not self.has_bucket_count(info, bucket_count):
            raise LogError(
                f"Commit {info.number} of the log {self.url} is an import for {info.bucket_count or self.bucket_count} "
                f"buckets, published while `refold log rebucket` changed them to {bucket_count}. Run `refold seal`, "
                "which completes that; no event is lost."
            )

    def check_end(self, head: Head) -> None:
        """Check that no commit exists beyond a head, which would mean that one is missing; this costs a listing.

        Raises:
            DamagedLogError: a commit is missing.
        """
        expected = commit_key(head.commit + 1)
        following = next(numbered(self.store.list_from(COMMITS, start_after=commit_key(head.commit))), expected)
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
    def end(self) -> Link:
        """The place after the last commit."""
        return self.tail[-1].end if self.tail else self.sealed.end

    @property
    def recorded_at(self) -> str:
        """Time at which the last commit was recorded, RFC 3339; empty for an empty log."""
        return self.tail[-1].recorded_at.isoformat() if self.tail else self.sealed.recorded_at

    @property
    def last_recorded_at(self) -> datetime:
        """The same as a time; ``NEVER`` for an empty log."""
        return datetime.fromisoformat(self.recorded_at) if self.recorded_at else NEVER


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


def default_keys_url(log_url: str) -> str:
    """Return the location of a log's key store, unless another is named: beside the log.

    Example:
        >>> default_keys_url("s3://shop/log")
        's3://shop/log-keys'
    """
    return f"{log_url.rstrip('/')}-keys"


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


def _check_file(path: Path, checksum: str, what: str) -> None:
    try:
        check_file(path, checksum)
    except DigestError as error:
        raise DamagedLogError(
            f"{what} is damaged: {error}. Run `refold log repair`, or restore it from a backup of the store; nothing "
            "was published."
        ) from error


def last_commit_number(store: ObjectStore) -> int:
    """Return the last commit number by listing; for checks only, since listings grow with the log."""
    return max((number_of(k) for k in numbered(store.list_from(COMMITS))), default=0)
