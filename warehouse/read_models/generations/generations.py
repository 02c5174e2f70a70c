"""Generations: how read models are published.

A generation is an immutable DuckDB file and a small JSON object that names it. Creating that object put-if-absent
is the publish: whoever loses the number reloads, catches up and tries the next. Readers open published files only.
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
from refold.warehouse.event_log.layout import number_of
from refold.warehouse.object_store import ObjectStore, open_store

FILES = "files"
_GENERATIONS = "generations"
CURRENT = "current.duckdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """Where the first rows of a read model came from, in place of the events before.

    Attributes:
        generation: the generation whose tables the seed's query read.
        position: where in the log these stood; the read model has replayed only what came after.
        file: key of that generation's DuckDB file, which a later rebuild of the same declaration needs again.
    """

    generation: int
    position: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a rebuild took, so that the next can be foreseen.

    Attributes:
        events: how many events were replayed, each counted once a read model that reads it.
        bytes_read: compressed bytes of the columns that were read for it.
        seconds: from the start of the replay to the publish.
        workers: how many replayed.
        serial_seconds: what of the seconds no further worker makes shorter: loading, catching up, publishing.
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
        fingerprint: of what made it.
        parts: digest of each thing it depends on, so that a plan can say what changed.
        rows: how many rows.
        checksum: over all rows, independent of their order.
        seed: where its first rows came from; None if it was made from the whole log.
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
        number: from 1; the highest is the current one.
        file: key of the DuckDB file.
        bytes: its size.
        position: of the last event that every table holds.
        commit_number: of the commit that brought it.
        recorded_at: when that commit was recorded, RFC 3339.
        published_at: when the generation was published, RFC 3339.
        parent: the generation it was made from; 0 for none.
        log_id: the log it was made from.
        tables: read model to what was published of it.
        views: view to the digest of its SQL; None in a generation that was published before views were noted.
        measured: what the last whole rebuild took, of this generation or one before it; None if none was measured.
        kind: how it came about: ``rebuild``, ``refresh`` (nothing was rebuilt), ``stream``, ``edit``, or ``rollback``,
            whose parent is the older one that it shows again.
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
        """Load every generation that is kept, oldest first."""
        found = []
        for key in self.store.list_from(_GENERATIONS):
            with suppress(ObjectNotFoundError):  # collected since it was listed
                found.append(self._load(key))
        return found

    def numbers(self) -> list[int]:
        """Give the numbers of all generations that are kept, in order."""
        return [number_of(key) for key in self.store.list_from(_GENERATIONS)]

    def named_files(self) -> dict[int, frozenset[str]]:
        """Give, a generation, the keys of all files that it needs: its own, and those that its tables started from."""
        found = {}
        for key in self.store.list_from(_GENERATIONS):
            with suppress(ObjectNotFoundError):
                found[number_of(key)] = _files_of(orjson.loads(self.store.get(key)))
        return found

    def is_published(self, number: int) -> bool:
        """Tell whether a generation is there: cheaper than to ask for the newest."""
        return self.store.exists(_key(number))

    def get(self, number: int) -> Generation:
        """Load one generation.

        Raises:
            GenerationError: it was never published, or is collected already.
        """
        try:
            return self._load(_key(number))
        except ObjectNotFoundError as error:
            raise GenerationError(
                f"There is no generation {number} in {self.store.url}. `refold generations list` shows those there are."
            ) from error

    def path(self, generation: Generation) -> Path:
        """Give the local path of a generation's file, for reading only.

        Raises:
            GenerationError: the file is gone.
        """
        return self.file_path(generation.file, generation.number)

    def file_path(self, file: str, number: int) -> Path:
        """Give the local path of a published file, also of one whose generation is collected, for reading only.

        Args:
            file: its key.
            number: of the generation, for the error.

        Raises:
            GenerationError: the file is gone.
        """
        try:
            return self.store.local_path(file)
        except ObjectNotFoundError as error:
            raise GenerationError(
                f"Generation {number} names {self.store.url}/{file}, which is missing. Publish anew with "
                "`refold rebuild --all`."
            ) from error

    def upload(self, path: Path) -> tuple[str, int]:
        """Put a finished database file beside the published ones, under a name of its own.

        Returns:
            Its key and size.

        Raises:
            GenerationError: the file was not closed properly.
        """
        if Path(f"{path}.wal").exists():
            raise GenerationError(f"{path} has a write-ahead log beside it: it was not closed before publishing.")
        key = f"{FILES}/{uuid.uuid4()}.duckdb"
        path.chmod(0o444)
        self.store.put_file(key, path)
        return key, path.stat().st_size

    def publish(self, generation: Generation) -> bool:
        """Make a generation the current one; False if its number is taken: its file is then deleted, if nobody's."""
        if not self.claim(generation):
            if not any(generation.file in files for files in self.named_files().values()):
                self.store.delete(generation.file)
            return False
        self.update_current_link()
        return True

    def claim(self, generation: Generation) -> bool:
        """Create the object that makes a generation the newest; False if its number is taken."""
        data = orjson.dumps(dataclasses.asdict(generation), option=orjson.OPT_INDENT_2)
        key = _key(generation.number)
        # What is there may be ours, if the answer to a write was lost: no other has the same time and file.
        return self.store.put_if_absent(key, data) or self.store.get(key) == data

    def forget(self, number: int) -> None:
        """Remove the object that names a generation; its file stays."""
        self.store.delete(_key(number))

    def update_current_link(self) -> None:
        """Swap the symlink ``current.duckdb`` to the newest file, on a local store."""
        if not self.store.is_local:
            return
        link = Path(self.store.url) / CURRENT
        shown = None
        while (newest := self.newest()) != shown and newest is not None:  # another may have published, and been faster
            temporary = link.with_name(f".{CURRENT}-{uuid.uuid4()}")
            os.symlink(newest.file, temporary)
            os.replace(temporary, link)
            shown = newest

    def _load(self, key: str) -> Generation:
        try:
            return _decode(orjson.loads(self.store.get(key)))
        except (ValueError, KeyError, TypeError) as error:
            raise GenerationError(f"{self.store.url}/{key} is no generation ({error}).") from error

    def working_copy(self, generation: Generation, folder: Path) -> Path:
        """Copy a generation's file into a private folder, to go on from it."""
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
        read_models_url: a folder, or a URL that fsspec knows.
        domain_name: its subfolder.
    """
    return Generations(open_store(read_models_url).child(domain_name))


def now() -> str:
    """Give the present time, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat()
