"""Generations: the published versions of the read models.

A generation is an immutable DuckDB file and a small JSON object that names it. Publishing is one put-if-absent of that
object; a publisher that loses the race for a number reloads, catches up and tries the next. Readers open published
files only.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from refold.event_schemas import GenerationError, ObjectNotFoundError
from refold.warehouse.event_log.clocks import credible
from refold.warehouse.event_log.layout import number_of, numbered
from refold.warehouse.object_store import ObjectStore, open_store
from refold.warehouse.object_store.checked_files import checked_path, put_checked_file
from refold.warehouse.object_store.digests import DigestError
from refold.warehouse.object_store.records import (
    RecordError,
    check_times,
    decode_json,
    decode_record,
    encode_record,
    is_record,
)

FILES = "files"
_GENERATIONS = "generations"
CURRENT = "current.duckdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """The generation from which a read model took its first rows, in place of earlier events.

    Attributes:
        generation: number of the generation that the seed's query read.
        position: position of that generation; the read model has replayed only later events.
        file: key of its DuckDB file, which a later rebuild of the same declaration reads again.
    """

    generation: int
    position: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The measurement of a rebuild, from which the next one is estimated.

    Attributes:
        events: number of replayed events, counted once for each read model that reads them.
        bytes_read: compressed bytes of the columns read.
        seconds: time from the start of the replay to the publish.
        workers: number of workers.
        serial_seconds: the part of that time that does not depend on workers: loading, catching up, publishing.
    """

    events: int
    bytes_read: int
    seconds: float
    workers: int
    serial_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """One read model of a generation.

    Attributes:
        fingerprint: fingerprint of its declaration and everything it depends on.
        parts: digest of each dependency, so that a plan can name what changed.
        rows: number of rows.
        checksum: checksum of all rows, independent of their order.
        seed: origin of its first rows; None if it was built from the whole log.
        erasures: number of the log's erasures when its events were read: data that was erased later may be in its rows.
    """

    fingerprint: str
    parts: dict[str, str]
    rows: int
    checksum: str
    seed: Seed | None = None
    erasures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One published state of all read models of a domain.

    Attributes:
        number: number of the generation, from 1; the highest is the current one.
        file: key of its DuckDB file.
        bytes: size of that file.
        position: position of the last event, of all tables.
        commit_number: number of that event's commit.
        recorded_at: time at which that commit was recorded, RFC 3339.
        published_at: time at which the generation was published, RFC 3339.
        parent: number of the generation it was built from; 0 for none.
        log_id: identity of the log it was built from.
        tables: its read models.
        views: view to the digest of its SQL; None in a generation that was published before views had one.
        measured: measurement of the last full rebuild, of this generation or an earlier one; None if there is none.
        commit_digest: digest of that commit in the log's chain; empty in a generation of refold 0.1.0.
        kind: origin: ``rebuild``, ``refresh`` (nothing was rebuilt), ``stream``, ``edit``, or ``rollback`` (the parent
            is the older generation that it publishes again).
    """

    number: int
    file: str
    bytes: int
    position: int
    commit_number: int
    recorded_at: str
    published_at: str
    parent: int
    log_id: str
    tables: dict[str, PublishedTable] = field(default_factory=dict)
    views: dict[str, str] | None = None
    measured: Measured | None = None
    kind: str = "rebuild"
    commit_digest: str = ""

    def __post_init__(self) -> None:
        """Check the times."""
        check_times(self.published_at, optional=(self.recorded_at,))

    @property
    def files(self) -> frozenset[str]:
        """The keys of the files that it needs: its own, and those of its seeds."""
        return frozenset([self.file, *(table.seed.file for table in self.tables.values() if table.seed)])


@dataclass(frozen=True, slots=True)
class Generations:
    """The published read models of one domain.

    Args:
        store: rooted at ``<read-models>/<domain>``.
    """

    store: ObjectStore

    def newest(self) -> Generation | None:
        """Load the current generation; None before the first publish."""
        last = ""
        for key in self._keys():
            last = key
        return self._load(last) if last else None

    def _keys(self) -> Iterator[str]:
        return numbered(self.store.list_from(_GENERATIONS))

    def all(self) -> list[Generation]:
        """Load all generations that exist, oldest first."""
        found = []
        for key in self._keys():
            with suppress(ObjectNotFoundError):  # collected since the listing
                found.append(self._load(key))
        return found

    def numbers(self) -> list[int]:
        """Return the numbers of all generations that exist, in order."""
        return [number_of(key) for key in self._keys()]

    def referenced_files(self) -> dict[int, frozenset[str]]:
        """Return the keys of the files that each generation needs: its own, and those of its seeds."""
        found = {}
        for key in self._keys():
            with suppress(ObjectNotFoundError):
                found[number_of(key)] = self._load(key).files
        return found

    def is_published(self, number: int) -> bool:
        """Check whether a generation exists; cheaper than loading the newest."""
        return self.store.exists(_key(number))

    def get(self, number: int) -> Generation:
        """Load one generation.

        Raises:
            GenerationError: it was never published, or was collected.
        """
        try:
            return self._load(_key(number))
        except ObjectNotFoundError as error:
            raise GenerationError(
                f"There is no generation {number} in {self.store.url}. `refold generations list` shows them."
            ) from error

    def path(self, generation: Generation) -> Path:
        """Return the local, read-only path of a generation's file.

        Raises:
            GenerationError: the file is gone, or damaged.
        """
        return self.file_path(generation.file, generation.number)

    def file_path(self, file: str, number: int) -> Path:
        """Return the local, read-only path of a published file, even if its generation was collected.

        Args:
            file: key of the file.
            number: number of the generation, for the error.

        Raises:
            GenerationError: the file is gone, or damaged.
        """
        try:
            return checked_path(self.store, file)
        except ObjectNotFoundError as error:
            raise GenerationError(
                f"Generation {number} names {self.store.url}/{file}, which is missing. Publish it again "
                "with `refold rebuild --all`."
            ) from error
        except DigestError as error:
            raise GenerationError(
                f"The file of generation {number}, {self.store.url}/{file}, is damaged: {error}. Publish it again with "
                "`refold rebuild --all`, or go back with `refold generations rollback`."
            ) from error

    def upload(self, path: Path) -> tuple[str, int]:
        """Store a finished database file under a unique name.

        Returns:
            Its key and size.

        Raises:
            GenerationError: the file was not closed.
        """
        if Path(f"{path}.wal").exists():
            raise GenerationError(
                f"{path} is still open in DuckDB ({path}.wal exists), so it cannot be "
                "published. Close its connection, or run "
                "the command again."
            )
        path.chmod(0o444)
        return put_checked_file(self.store, f"{FILES}/{uuid.uuid4()}", path), path.stat().st_size

    def publish(self, generation: Generation) -> bool:
        """Make a generation the current one; if its number is taken, delete its unreferenced file and return False."""
        if not self.claim(generation):
            if not any(generation.file in files for files in self.referenced_files().values()):
                self.store.delete(generation.file)
            return False
        self.update_current_link()
        return True

    def claim(self, generation: Generation) -> bool:
        """Create the object that makes a generation the newest; return False if its number is taken."""
        data = encode_record(generation)
        key = _key(generation.number)
        # If the response to the write was lost, the object is our own: no other has the same time and file.
        return self.store.put_if_absent(key, data) or self.store.get(key) == data

    def superseded_at(self, following: Generation) -> datetime | None:
        """Return when a generation was superseded by the following one, by the clock of its publisher or of the store.

        Returns:
            The later of both times that is not in the future; None if both are.
        """
        times = [datetime.fromisoformat(following.published_at)]
        with suppress(ObjectNotFoundError):
            times.append(self.store.modified(_key(following.number)))
        return credible(sorted(times, reverse=True))

    def forget(self, number: int) -> None:
        """Delete the object that names a generation, and keep its file."""
        self.store.delete(_key(number))

    def update_current_link(self) -> None:
        """On a local store, replace the symlink ``current.duckdb`` by one to the newest file."""
        if not self.store.is_local:
            return
        link = Path(self.store.url) / CURRENT
        linked = None
        while (newest := self.newest()) != linked and newest is not None:  # another publisher may have been faster
            temporary = link.with_name(f".{CURRENT}-{uuid.uuid4()}")
            os.symlink(newest.file, temporary)
            os.replace(temporary, link)
            linked = newest

    def _load(self, key: str) -> Generation:
        try:
            found = _decode(self.store.get(key))
            if found.number != number_of(key):
                raise RecordError(f"it is generation {found.number}")
        except RecordError as error:
            raise GenerationError(
                f"{self.store.url}/{key} is not a generation, or is damaged ({error}). Restore it from a backup, or "
                "delete it: the generation before it is then the newest."
            ) from error
        return found

    def working_copy(self, generation: Generation, folder: Path) -> Path:
        """Copy a generation's file into a private folder, to change the copy."""
        path = folder / "working.duckdb"
        shutil.copyfile(self.path(generation), path)
        return path


def _decode(data: bytes) -> Generation:
    """Decode a generation; only one that refold 0.1.0 published has no digest."""
    if not is_record(data) and b'"commit_digest"' not in data:
        return decode_json(data, Generation)
    return decode_record(data, Generation)


def _key(number: int) -> str:
    return f"{_GENERATIONS}/{number:020d}.json"


def open_generations(read_models_url: str, domain_name: str) -> Generations:
    """Open the published read models of a domain.

    Args:
        read_models_url: a folder, or the URL of an object store.
        domain_name: name of the domain, which is the subfolder.
    """
    return Generations(open_store(read_models_url).child(domain_name))


def now() -> str:
    """Return the current time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat()
