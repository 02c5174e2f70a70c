"""Generations: the published versions of the read models.

A generation is an immutable DuckDB file and a small JSON object that names it. Publishing is one put-if-absent of that
object; a publisher that loses the race for a number reloads, catches up and tries the next. Readers open published
files only.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from refold.event_schemas import GenerationError, ObjectNotFoundError
from refold.warehouse.event_log.clocks import credible
from refold.warehouse.event_log.layout import number_of
from refold.warehouse.object_store import ObjectStore, open_store

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
    """

    fingerprint: str
    parts: dict[str, str]
    rows: int
    checksum: str
    seed: Seed | None = None


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
        for key in self.store.list_from(_GENERATIONS):
            last = key
        return self._load(last) if last else None

    def all(self) -> list[Generation]:
        """Load all generations that exist, oldest first."""
        found = []
        for key in self.store.list_from(_GENERATIONS):
            with suppress(ObjectNotFoundError):  # collected since the listing
                found.append(self._load(key))
        return found

    def numbers(self) -> list[int]:
        """Return the numbers of all generations that exist, in order."""
        return [number_of(key) for key in self.store.list_from(_GENERATIONS)]

    def referenced_files(self) -> dict[int, frozenset[str]]:
        """Return the keys of the files that each generation needs: its own, and those of its seeds."""
        found = {}
        for key in self.store.list_from(_GENERATIONS):
            with suppress(ObjectNotFoundError):
                found[number_of(key)] = _files_of(orjson.loads(self.store.get(key)))
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
            GenerationError: the file is gone.
        """
        return self.file_path(generation.file, generation.number)

    def file_path(self, file: str, number: int) -> Path:
        """Return the local, read-only path of a published file, even if its generation was collected.

        Args:
            file: key of the file.
            number: number of the generation, for the error.

        Raises:
            GenerationError: the file is gone.
        """
        try:
            return self.store.local_path(file)
        except ObjectNotFoundError as error:
            raise GenerationError(
                f"Generation {number} names {self.store.url}/{file}, which is missing. Publish it again "
                "with `refold rebuild --all`."
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
        key = f"{FILES}/{uuid.uuid4()}.duckdb"
        path.chmod(0o444)
        self.store.put_file(key, path)
        return key, path.stat().st_size

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
        data = orjson.dumps(dataclasses.asdict(generation), option=orjson.OPT_INDENT_2)
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
            return _decode(orjson.loads(self.store.get(key)))
        except (ValueError, KeyError, TypeError) as error:
            raise GenerationError(
                f"{self.store.url}/{key} is not a generation ({error}). Restore it from a backup."
            ) from error

    def working_copy(self, generation: Generation, folder: Path) -> Path:
        """Copy a generation's file into a private folder, to change the copy."""
        path = folder / "working.duckdb"
        shutil.copyfile(self.path(generation), path)
        return path


def _decode(values: dict[str, Any]) -> Generation:
    tables = {}
    for name, table in values.pop("tables").items():
        seed = table.pop("seed", None)
        tables[name] = PublishedTable(**table, seed=Seed(**seed) if seed else None)
    measured = values.pop("measured", None)
    return Generation(**values, tables=tables, measured=Measured(**measured) if measured else None)


def _files_of(document: dict[str, Any]) -> frozenset[str]:
    seeds = (table.get("seed") for table in document["tables"].values())
    return frozenset([document["file"], *(seed["file"] for seed in seeds if seed)])


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
