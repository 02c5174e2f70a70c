"""The event log: its identity, its commits and the objects that hold its events.

Commits are numbered objects created by put-if-absent, so their numbers are the order of the log: a reader that has
read commit n finds later commits at n+1, n+2, …, and no commit ever appears before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from refold.event_schemas import DamagedLogError, LogError, ObjectNotFoundError, StoreError
from refold.warehouse.event_log import commit, manifest
from refold.warehouse.event_log.chain import BEGINNING, Link, check_next
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import (
    COMMITS,
    CONFIG_KEY,
    FORMAT_VERSION,
    commit_key,
    manifest_key,
    number_of,
    numbered,
)
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.event_log.manifest import HeadsRun, Manifest, Segment
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.digests import DigestError, check_file
from refold.warehouse.personal.personal_data import PersonalData, personal_data


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
            DamagedLogError: a commit is damaged, does not follow the one before it, or is missing.
        """
        while (info := self._next_commit(link.commit_number + 1)) is not None:
            where = f"{self.url}/{commit_key(info.number)}"
            check_next(link, info.number, info.first_position, info.previous, where=where)
            yield info
            link = info.end

    def _next_commit(self, number: int) -> CommitInfo | None:
        """Read one commit's footer; None if it is not there, nor the next one."""
        info = self.commit_info(number)
        if info is None and self._has_commit(number + 1):
            info = self.commit_info(number)  # both may be new
            if info is None and self.manifest().sealed_commit < number:  # it was not removed because it is sealed
                raise self._missing(commit_key(number), commit_key(number + 1))
        return info

    def _missing(self, key: str, following: str) -> DamagedLogError:
        return DamagedLogError(
            f"Commit {self.url}/{key} is missing, but {following} exists. Restore it from a backup of the store; "
            "nothing was published."
        )

    def last_commit(self, after: int = 0) -> CommitInfo | None:
        """Find the last commit by galloping search, without listing or reading others: numbers have no gaps.

        Args:
            after: number of a commit after which no commit was deleted; it may be deleted itself.

        Returns:
            The footer of the last commit, or None if there is none after that one.

        Raises:
            DamagedLogError: the commit after it is missing, as a later one shows; or it is damaged.
        """
        last, step = after, 1
        while self._has_commit(last + step):
            last, step = last + step, 2 * step
        beyond = last + step
        while beyond - last > 1:
            middle = (last + beyond) // 2
            last, beyond = (middle, beyond) if self._has_commit(middle) else (last, middle)
        self._next_commit(last + 1)
        return self.commit_info(last) if last > after else None

    def first_commit(self) -> int:
        """Return the number of the first commit that was not removed, by listing; 0 if there is none."""
        return next((number_of(key) for key in numbered(self.store.list_from(COMMITS))), 0)

    def commit_numbers(self) -> list[int]:
        """List the numbers of all commits, in order, up to the last that was there when the listing began, or later."""
        found = sorted(number_of(key) for key in numbered(self.store.list_from(COMMITS)))
        unlisted = set(range(found[0], found[-1])).difference(found) if found else set()
        return sorted([*found, *filter(self._has_commit, unlisted)])

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
            StoreError: the log is gone.
            DamagedLogError: an object of it is damaged or missing.
        """
        head = self.unchecked_head()
        for info in head.tail:
            self.check_bucket_count(info, head.sealed.bucket_count)
        return head

    def unchecked_head(self) -> Head:
        """Find the end of the log, which may have an import with another bucket count: a seal rewrites that."""
        sealed = self.manifest()
        found = Head(sealed, tuple(self.commits_after(sealed.end)))
        self.check_there()
        return found

    def check_there(self) -> None:
        """Check that the log is still there: one that is gone looks as if it were empty, or ended early.

        Raises:
            StoreError: it is gone.
        """
        if not self.store.exists(CONFIG_KEY):
            raise StoreError(
                f"The log at {self.url} is gone ({CONFIG_KEY} is missing): it was moved or removed, or its disk is no "
                "longer mounted. Bring it back, and try again."
            )

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

        A disk's listing may lack a file that was made meanwhile, and have one that was made after it.

        Raises:
            DamagedLogError: a commit is missing.
        """
        expected = commit_key(head.commit + 1)
        following = next(numbered(self.store.list_from(COMMITS, start_after=commit_key(head.commit))), expected)
        if following != expected and not self._has_commit(head.commit + 1):
            raise self._missing(expected, following)


def default_keys_url(log_url: str) -> str:
    """Return the location of a log's key store, unless another is named: beside the log.

    Example:
        >>> default_keys_url("s3://shop/log")
        's3://shop/log-keys'
    """
    return f"{log_url.rstrip('/')}-keys"


def _check_file(path: Path, checksum: str, what: str) -> None:
    try:
        check_file(path, checksum)
    except DigestError as error:
        raise DamagedLogError(
            f"{what} is damaged: {error}. Run `refold log repair`, or restore it from a backup of the store; nothing "
            "was published."
        ) from error
