"""The interface of every object store, the keys it accepts, and the probe that rejects an unfit store."""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Self

from refold.event_schemas.errors import StoreNotConditionalError, UsageError

TEMP_PREFIX = ".refold-tmp-"
"""Prefix of unfinished files; keys must not have it, and listings omit it."""

# Control characters break S3's XML listings, "\" is "/" on Azure, and s3fs cuts a key off at "?versionId=".
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\?\ud800-\udfff]")


def check_key(key: str) -> str:
    """Return the key, or raise UsageError unless it is a relative path with the same meaning in every store.

    >>> check_key("commits/00000000000000000001.parquet")
    'commits/00000000000000000001.parquet'
    >>> check_key("../other-log/refold.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    refold.event_schemas.errors.UsageError: '../other-log/refold.json' cannot be a key: it needs names joined by ...
    """
    if any(part in ("", ".", "..") or part.startswith(TEMP_PREFIX) for part in key.split("/")):
        raise UsageError(
            f"{key!r} cannot be a key: it needs names joined by single slashes, with no slash at either end, "
            f"and no name may be '.', '..' or start with {TEMP_PREFIX!r}."
        )
    if found := _FORBIDDEN.search(key):
        raise UsageError(
            f"{key!r} cannot be a key: {found.group()!r} has a special meaning in some stores. Leave it out."
        )
    return key


def check_source(path: Path) -> Path:
    """Return the path of a file to store, or raise UsageError if there is none."""
    if not path.is_file():
        raise UsageError(f"{str(path)!r} cannot be stored: it is not a file. Write it first.")
    return path


class ObjectStore(ABC):
    """Objects (bytes) under keys (relative paths with ``/``) below one URL; opened by :func:`open_store`.

    A store is a value: threads and processes may share it, and it holds nothing to close. Every method raises
    ``UsageError`` for an invalid key and ``StoreError`` if the store fails; both say what to do.

    Attributes:
        url: its location; ``open_store(store.url)`` is the same store.
        is_local: whether objects are files on a local disk, so that :meth:`local_path` costs nothing.
        root: URL of a folder that no write creates: if it is gone, writes fail. None: a write creates what it needs.
    """

    is_local: ClassVar[bool] = False

    def __init__(self, url: str, *, cache_dir: Path | None = None, root: str | None = None) -> None:
        self.url = url
        self.cache_dir = cache_dir
        self.root = root

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object, atomically and durably; of all writers that create one key, exactly one gets True.

        False means only that the key exists. The object may be the caller's: if the response to a successful write is
        lost, the client retries and finds its own object. So write something unique, and read it back to decide.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; readers see the old bytes or the new ones, never a mix."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Create or replace an object as :meth:`put` does, from a local file, without loading it into memory.

        A local store may hard-link the file: do not write to it afterwards. You may delete it.
        """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read an object, or raise ObjectNotFoundError."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Check whether the object exists."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Return an object's length in bytes, or raise ObjectNotFoundError."""

    @abstractmethod
    def modified(self, key: str) -> datetime:
        """Return when an object was last written, with a time zone, or raise ObjectNotFoundError.

        For a store that does not record it, this is the current time: such an object is never old.
        """

    @abstractmethod
    def list_from(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys below a folder, at any depth, in character order; never from a cached listing.

        Args:
            prefix: name of the folder, as in ``"commits"``; ``""`` is the whole store.
            start_after: yield only keys greater than this full key (``"commits/0007"``), which need not exist.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Delete every object below a folder, as :meth:`list_from` lists them; ``""`` is rejected."""

    @abstractmethod
    def local_path(self, key: str) -> Path:
        """Return a local, read-only file with an object's content, or raise ObjectNotFoundError.

        A local store returns the object itself. A remote object is downloaded once, into a cache by key and content: an
        object that was replaced is downloaded again.
        """

    def child(self, prefix: str) -> Self:
        """Return the store of the keys below a folder of this store."""
        slash = "" if self.url.endswith("/") else "/"
        return type(self)(f"{self.url}{slash}{check_key(prefix)}", cache_dir=self.cache_dir, root=self.root)

    def rooted(self) -> Self:
        """Return this store as one whose folder must exist, so that nothing is written where a volume was mounted."""
        return type(self)(self.url, cache_dir=self.cache_dir, root=self.url)

    def probe(self) -> None:
        """Check that the store can hold an event log: create one key twice, read it and delete it.

        Raises:
            StoreNotConditionalError: the second creation succeeded, or changed the object.
            StoreError: the store cannot be reached, written or read; the message says why.
        """
        key = f"refold-probe-{uuid.uuid4().hex}"
        self.put_if_absent(key, b"first")
        try:
            if self.put_if_absent(key, b"second") or self.get(key) != b"first":
                raise StoreNotConditionalError(
                    f"The store at {self.url} let a second writer replace an object created with put-if-absent (it "
                    "ignores If-None-Match). Two writers would overwrite each other's events. Use a store with "
                    "conditional writes: a local disk, Amazon S3, Google Cloud Storage, Azure, or a newer version of "
                    "this store."
                )
        finally:
            self.delete(key)
