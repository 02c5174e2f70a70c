"""A folder on a local disk, through ``os`` alone: objects are complete and durable when a call returns.

An object is written to a temporary file in its folder, flushed with ``fsync``, then moved to its name: with ``link``,
which fails if the name is taken (put-if-absent), or with ``replace``, which does not (put). ``fsync`` of the folder
makes the name durable. A process that dies in between leaves a temporary file, which listings omit.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from refold.event_schemas.errors import ObjectNotFoundError, StoreError
from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.object_store.store import (
    TEMP_PREFIX,
    ObjectStore,
    check_key,
    check_source,
)

_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalStore(ObjectStore):
    """Objects as files below one folder, which is created with the first object."""

    is_local = True

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a temporary file and link it to its name."""
        return not self.exists(key) and self._write_and_move(key, partial(_write, data), os.link)

    def put(self, key: str, data: bytes) -> None:
        """Write a temporary file and rename it."""
        self._write_and_move(key, partial(_write, data), os.replace)

    def put_file(self, key: str, path: Path) -> None:
        """Hard-link or copy the file to a temporary name, and rename that."""
        self._write_and_move(key, partial(_link_or_copy, check_source(path)), os.replace)

    def get(self, key: str) -> bytes:
        """Read the file."""
        with self._object(key) as path, open(path, "rb") as file:
            return file.read()

    def exists(self, key: str) -> bool:
        """Check for the file."""
        return os.path.isfile(self._path(key))

    def size(self, key: str) -> int:
        """Return the file's size."""
        return self.local_path(key).stat().st_size

    def modified(self, key: str) -> datetime:
        """Return the file's modification time."""
        return datetime.fromtimestamp(self.local_path(key).stat().st_mtime, UTC)

    def local_path(self, key: str) -> Path:
        """Return the path of the object itself."""
        with self._object(key) as path:
            if not os.path.isfile(path):
                raise FileNotFoundError(path)
            return Path(path)

    def list_from(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Scan the folder, and only those subfolders that can hold a greater key."""
        return self._walk(f"{check_key(prefix)}/" if prefix else "", start_after)

    def delete(self, key: str) -> None:
        """Unlink the file."""
        path = self._path(key)
        with translate_errors(f"delete {key!r}", self.url), suppress(*_NO_OBJECT):
            os.unlink(path)

    def delete_prefix(self, prefix: str) -> None:
        """Remove the folder and its content."""
        path = self._path(prefix)
        with (
            translate_errors(f"delete everything below {prefix!r}", self.url),
            suppress(FileNotFoundError, NotADirectoryError),
        ):
            shutil.rmtree(path)

    def _path(self, key: str) -> str:
        return os.path.join(self.url, check_key(key))

    @contextmanager
    def _object(self, key: str) -> Iterator[str]:
        path = self._path(key)
        with translate_errors(f"read {key!r}", self.url):
            try:
                yield path
            except _NO_OBJECT as error:
                raise ObjectNotFoundError(f"There is no object {key!r} in {self.url}.") from error

    def _write_and_move(self, key: str, write: Callable[[str], None], move: Callable[[str, str], None]) -> bool:
        """Write a temporary file and move it to the key's name; return False if ``link`` finds the name taken."""
        path = self._path(key)
        folder = os.path.dirname(path)
        temp = os.path.join(folder, TEMP_PREFIX + uuid.uuid4().hex)
        with translate_errors(f"write {key!r}", self.url):
            self._make_folder(folder)
            try:
                write(temp)
                move(temp, path)
            except FileExistsError:
                if os.path.isdir(path):
                    raise
                return False
            finally:
                # Also after replace(), which does nothing if both names are the same file.
                with suppress(OSError):
                    os.unlink(temp)
            _sync(folder)
        return True

    def _make_folder(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        if folder == self.root:
            raise StoreError(
                f"The folder {folder} is gone: it was moved or removed, or its disk is no longer mounted. Nothing was "
                "written. Bring it back, and try again."
            )
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        with suppress(FileExistsError):
            os.mkdir(folder)
        _sync(parent)

    def _walk(self, base: str, start_after: str) -> Iterator[str]:
        for name in self._names(base):
            key = base + name
            if name.endswith("/"):
                if key > start_after or start_after.startswith(key):
                    yield from self._walk(key, start_after)
            elif key > start_after:
                yield key

    def _names(self, base: str) -> list[str]:
        """Return the names in a folder in key order, folders with a slash: ``a-b`` comes before ``a/b``."""
        with translate_errors(f"list {base!r}", self.url):
            try:
                with os.scandir(os.path.join(self.url, base)) as entries:
                    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in names if not name.startswith(TEMP_PREFIX))


def _write(data: bytes, temp: str) -> None:
    with open(temp, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link_or_copy(path: Path, temp: str) -> None:
    """Hard-link a file, or copy it where that is impossible, such as across disks."""
    try:
        os.link(os.path.realpath(path), temp)
    except OSError:
        shutil.copyfile(path, temp)
    _sync(temp)


def _sync(path: str) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
