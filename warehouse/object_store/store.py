"""What every object store can do, which keys it takes, and the probe that refuses an unfit one."""

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
"""Unfinished files bear this name; no key may, and no listing shows them."""

# Control characters break S3's XML listings, "\" is "/" on Azure, and s3fs cuts a key off at "?versionId=".
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\?\ud800-\udfff]")


def check_key(key: str) -> str:
    """Return the key, or raise UsageError if it is not a relative path that means the same in every store.

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
            f"{key!r} cannot be a key: some store gives {found.group()!r} a meaning of its own. Leave it out."
        )
    return key


def check_source(path: Path) -> Path:
    """Return the path of a file that is to be stored, or raise UsageError if there is none."""
    if not path.is_file():
        raise UsageError(f"{str(path)!r} cannot be stored: it is not a file. Write it first.")
    return path


class ObjectStore(ABC):
    """Objects (bytes) under keys (relative paths with ``/``) below one URL; made by :func:`open_store`.

    A store is a value: it may cross to other threads and processes, and holds nothing that needs closing. Every method
    raises ``UsageError`` for an impossible key and ``StoreError`` when the store fails; both say what to do.

    Attributes:
        url: where it is; ``open_store(store.url)`` is the same store.
        is_local: whether objects are files on a local disk, so that :meth:`local_path` costs nothing.
    """

    is_local: ClassVar[bool] = False

    def __init__(self, url: str, *, cache_dir: Path | None = None) -> None:
        self.url = url
        self.cache_dir = cache_dir

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object, durably and whole; of all who create one key, exactly one gets True.

        False says only that the key exists. It may be ours: when the answer to a successful write is lost, the client
        writes again and meets its own object. So put something unique into the object, and read it back to know.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; readers see the old bytes or the new ones, never a mixture."""

    @abstractmethod
    def put_file_if_absent(self, key: str, path: Path) -> bool:
        """Do as :meth:`put_if_absent` with a local file's content; see :meth:`put_file`."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Do as :meth:`put` with a local file's content, without loading all of it.

        A local store may take the file itself (a hard link): do not write to it afterwards. Deleting it is fine.
        """

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read an object, or raise ObjectNotFoundError."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Say whether there is an object of this key."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Return an object's length in bytes, or raise ObjectNotFoundError."""

    @abstractmethod
    def modified(self, key: str) -> datetime:
        """Return when an object was last written, with a time zone, or raise ObjectNotFoundError.

        A store that does not say gives the present: such an object is never old.
        """

    @abstractmethod
    def list_from(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys below a folder, at any depth, in the order of their characters; never from a cached listing.

        Args:
            prefix: a folder's name, as in ``"commits"``; ``""`` is the whole store.
            start_after: yield only greater keys than this one, which is whole (``"commits/0007"``) and need not exist.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; it is no error if there is none."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Delete every object below a folder, as :meth:`list_from` shows them; ``""`` is refused."""

    @abstractmethod
    def local_path(self, key: str) -> Path:
        """Return a local file with an object's content, to be read only, or raise ObjectNotFoundError.

        A local store returns the object itself. A remote object is downloaded once, into the cache, where it is kept by
        key and content: an object that was replaced is downloaded anew.
        """

    def child(self, prefix: str) -> Self:
        """Return the store whose keys are those below a folder of this one."""
        slash = "" if self.url.endswith("/") else "/"
        return type(self)(f"{self.url}{slash}{check_key(prefix)}", cache_dir=self.cache_dir)

    def probe(self) -> None:
        """Create one key twice, read it and delete it, to know that the store can hold an event log.

        Raises:
            StoreNotConditionalError: the second creation succeeded, or changed the object.
            StoreError: the store cannot be reached, written or read; the message says why.
        """
        key = f"refold-probe-{uuid.uuid4().hex}"
        self.put_if_absent(key, b"first")
        try:
            if self.put_if_absent(key, b"second") or self.get(key) != b"first":
                raise StoreNotConditionalError(
                    f"The store at {self.url} let a second writer replace an object that was to be created only "
                    "once (it ignores If-None-Match). Two writers would overwrite each other's events, so it cannot "
                    "hold an event log: use a store with conditional writes, such as a local disk, Amazon S3, Google "
                    "Cloud Storage, Azure, or a newer version of this one."
                )
        finally:
            self.delete(key)
