"""Objects under keys, on a local disk, in memory, or in S3, Google Cloud Storage and Azure.

Everything durable in refold depends on one guarantee of this package: if several writers create the same key, exactly
one succeeds, and no reader sees a partial object. ``fsspec`` alone does not guarantee it (its local ``mode="create"``
had two or more winners in 34 of 200 races), so each kind of store has its own small module:

======================= ==========================================================================================
``store``               the interface of every store, the keys it accepts, and the probe that rejects an unfit store
``local``               a folder: temporary file, fsync, hard link, fsync of the folder
``memory``              this process's memory, under a lock of our own
``remote``              any fsspec store whose ``mode="create"`` is a conditional write: Google Cloud Storage, Azure
``s3``                  the same for S3, with listings that start after a key
``mirror``              local, immutable copies of remote objects, for readers that need a file
``failures``            which failures are transient, which mean "already exists", and what to advise about the rest
======================= ==========================================================================================

To add a store, implement :class:`ObjectStore` (for what fsspec knows, subclass ``RemoteStore``), add its URL scheme to
``_STORES`` below, and add it to the ``store`` fixture in ``tests/contracts/conftest.py``: the contract suite then runs
over it.
"""

from __future__ import annotations

import os
from pathlib import Path

from refold.event_schemas.errors import UsageError
from refold.warehouse.object_store.local import LocalStore
from refold.warehouse.object_store.memory import MemoryStore
from refold.warehouse.object_store.remote import RemoteStore, require_package
from refold.warehouse.object_store.s3 import S3Store
from refold.warehouse.object_store.store import ObjectStore, check_key

__all__ = ["ObjectStore", "open_store"]

_STORES: dict[str, tuple[type[RemoteStore], str]] = {
    "memory": (MemoryStore, "fsspec"),
    "s3": (S3Store, "s3fs"),
    "s3a": (S3Store, "s3fs"),
    "gs": (RemoteStore, "gcsfs"),
    "gcs": (RemoteStore, "gcsfs"),
    "abfs": (RemoteStore, "adlfs"),
    "abfss": (RemoteStore, "adlfs"),
    "az": (RemoteStore, "adlfs"),
}
"""URL scheme to the class of its stores and the package that it needs; paths and ``file://`` are a ``LocalStore``."""

_URLS_WITHOUT_SLASHES = {f"{scheme}:" for scheme in (*_STORES, "file", "http", "https")}


def open_store(url: str, *, cache_dir: Path | None = None) -> ObjectStore:
    """Open the store at a URL; it contacts and creates nothing before its first use.

    A remote store takes its endpoint and credentials from its usual environment: ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``,
    ``FSSPEC_S3_KEY``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_CONNECTION_STRING`` and so on.

    Args:
        url: a path, the same path after ``file://`` (``%20`` is no space), ``memory://…``, ``s3://bucket/prefix``,
            ``gs://…`` or ``abfs://…``.
        cache_dir: folder in which :meth:`ObjectStore.local_path` keeps copies of remote objects; by default
            ``$REFOLD_CACHE_DIR``, else ``refold`` in the user's cache folder.

    Raises:
        UsageError: the URL is invalid, or its scheme is not supported.
        StoreError: the package for this scheme is not installed.

    >>> log = open_store("memory://docs/log")
    >>> log.put_if_absent("commits/1", b"first"), log.put_if_absent("commits/1", b"second")
    (True, False)
    >>> log.get("commits/1"), list(log.list_from("commits"))
    (b'first', ['commits/1'])
    """
    protocol, separator, path = url.partition("://")
    if not url or (separator and not path and protocol != "memory"):
        raise UsageError(f"{url!r} has no path: give a folder, or a bucket as in s3://bucket/prefix.")
    if not separator and url.split("/")[0] in _URLS_WITHOUT_SLASHES:
        scheme, rest = url.split(":", 1)
        raise UsageError(
            f"{url!r} would be a folder named {scheme + ':'!r}. Write {scheme}://{rest.lstrip('/')} for a URL, or "
            f"./{url} if the folder is meant."
        )
    if protocol == "file" and not path.startswith(("/", "~")):
        raise UsageError(f"{url!r} names no absolute path. Write file:///folder, with three slashes, or a path.")
    if not separator or protocol == "file":
        return LocalStore(os.path.abspath(os.path.expanduser(path if separator else url)), cache_dir=cache_dir)
    if protocol not in _STORES:
        raise UsageError(
            f"{url!r} is not a store that refold can write to safely: give a local path, "
            f"or a URL that starts with {', '.join(f'{scheme}://' for scheme in _STORES)}."
        )
    store, package = _STORES[protocol]
    require_package(protocol, package)
    root = path.strip("/")
    return store(f"{protocol}://{root and check_key(root)}", cache_dir=cache_dir)
