"""Any fsspec store whose ``mode="create"`` is one conditional write, such as Google Cloud Storage and Azure.

gcsfs sends ``ifGenerationMatch=0``, adlfs ``overwrite=False``; both raise FileExistsError when the key exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import fsspec

from refold.event_schemas.errors import ObjectNotFoundError, StoreError
from refold.warehouse.object_store.failures import (
    attempt,
    exists_already,
    s3_code,
    translate_errors,
)
from refold.warehouse.object_store.mirror import default_cache_dir, mirrored
from refold.warehouse.object_store.store import ObjectStore, check_key, check_source

Result = TypeVar("Result")
Mode = Literal["create", "overwrite"]

_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")

# A filesystem must outlive every fork. One that is garbage-collected in a child closes its connections, which removes
# them from the epoll set that child and parent share; the parent's next request then blocks until it times out.
_KEPT: dict[int, Any] = {}


def require_package(protocol: str, package: str) -> None:
    """Raise StoreError if the package that implements a protocol is not installed."""
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise StoreError(
            f"{protocol}:// needs the package {package}, which is not installed. Install it: pip install {package}"
        ) from error


class RemoteStore(ObjectStore):
    """Objects in a store that fsspec knows."""

    def __init__(self, url: str, *, cache_dir: Path | None = None, root: str | None = None) -> None:
        super().__init__(url, cache_dir=cache_dir, root=root)
        self._connection: tuple[int, Any, str] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without the connection: the other process opens its own."""
        return (_reopened, (type(self), self.url, self.cache_dir))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write on condition that the key is new; retry only failures that leave the outcome open."""
        fs, path = self._locate(key)

        def create() -> bool:
            try:
                fs.pipe_file(path, data, mode="create")
            except OSError as error:
                if exists_already(error):
                    return False
                raise
            return True

        return self._attempt(f"create {key!r}", create)

    def put(self, key: str, data: bytes) -> None:
        """Write; remote writes are atomic."""
        fs, path = self._locate(key)
        self._attempt(f"write {key!r}", lambda: fs.pipe_file(path, data))

    def put_file(self, key: str, path: Path) -> None:
        """Upload."""
        check_source(path)
        self._attempt(f"write {key!r}", lambda: self._upload(path, key))

    def get(self, key: str) -> bytes:
        """Read the object."""
        fs, path = self._locate(key)
        data: bytes = self._read(key, lambda: fs.cat_file(path))
        return data

    def exists(self, key: str) -> bool:
        """Read the object's metadata."""
        try:
            self._info(key)
        except ObjectNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """Read the object's metadata."""
        return int(self._info(key)["size"])

    def modified(self, key: str) -> datetime:
        """Read the object's metadata, in which each store names it differently."""
        info = self._info(key)
        found = next((info[name] for name in _MODIFIED if info.get(name)), None)
        if isinstance(found, str):
            found = datetime.fromisoformat(found)
        if not isinstance(found, datetime):
            return datetime.now(UTC)
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def list_from(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """List the whole folder, and skip smaller keys."""
        return self._list_below(f"{check_key(prefix)}/" if prefix else "", start_after)

    def delete(self, key: str) -> None:
        """Delete the object."""
        fs, path = self._locate(key)
        with suppress(ObjectNotFoundError):
            self._read(key, lambda: fs.rm_file(path), doing="delete")

    def delete_prefix(self, prefix: str) -> None:
        """Delete one object after another."""
        for key in self.list_from(check_key(prefix)):
            self.delete(key)

    def local_path(self, key: str) -> Path:
        """Return the cached copy."""
        info = self._info(key)
        etag = info.get("ETag") or info.get("etag") or info.get("created")
        return mirrored(
            self.cache_dir or default_cache_dir(),
            key,
            identity=f"{self.url}\n{key}\n{etag}\n{info['size']}",
            download=lambda copy: self._read(key, lambda: self._download(key, copy)),
        )

    def _connect(self) -> tuple[Any, str]:
        """Return the filesystem and the root in it; a forked child opens its own."""
        if self._connection is None or self._connection[0] != os.getpid():
            with translate_errors("open a connection", self.url):
                fs, root = _filesystem(self.url, self._options())
            _KEPT[id(fs)] = fs
            self._connection = (os.getpid(), fs, root)
        return self._connection[1:]

    def _options(self) -> dict[str, Any]:
        return {"use_listings_cache": False}

    def _locate(self, key: str) -> tuple[Any, str]:
        check_key(key)
        fs, root = self._connect()
        return fs, f"{root}/{key}"

    def _read(self, key: str, operation: Callable[[], Result], *, doing: str = "read") -> Result:
        def read() -> Result:
            try:
                return operation()
            except FileNotFoundError as error:
                if s3_code(error) == "NoSuchBucket":
                    raise
                raise ObjectNotFoundError(f"There is no object {key!r} in {self.url}.") from error

        return self._attempt(f"{doing} {key!r}", read)

    def _attempt(self, doing: str, operation: Callable[[], Result]) -> Result:
        with translate_errors(doing, self.url):
            return attempt(operation)

    def _info(self, key: str) -> dict[str, Any]:
        fs, path = self._locate(key)

        def info() -> dict[str, Any]:
            found: dict[str, Any] = fs.info(path)
            if found["type"] != "file":
                raise FileNotFoundError(path)
            return found

        return self._read(key, info)

    def _list_below(self, base: str, start_after: str) -> Iterator[str]:
        fs, root = self._connect()
        names = self._attempt(f"list {base!r}", lambda: fs.find(f"{root}/{base}".rstrip("/")))
        keys = sorted(name.removeprefix(f"{root}/") for name in names)
        return (key for key in keys if key.startswith(base) and key > start_after)

    def _upload(self, path: Path, key: str) -> None:
        fs, remote = self._locate(key)
        fs.put_file(str(path), remote)

    def _download(self, key: str, copy: Path) -> None:
        fs, remote = self._locate(key)
        fs.get_file(remote, str(copy))


def _filesystem(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the filesystem of a URL and the root in it; ``fsspec.core.url_to_fs`` would split a key at ``::``."""
    protocol = url.partition("://")[0]
    kind = fsspec.get_filesystem_class(protocol)
    root = kind._strip_protocol(url)
    if root and not root.startswith(kind.root_marker):
        root = kind.root_marker + root
    return fsspec.filesystem(protocol, **{**kind._get_kwargs_from_urls(url), **options}), root


def _reopened(kind: type[RemoteStore], url: str, cache_dir: Path | None) -> RemoteStore:
    return kind(url, cache_dir=cache_dir)
