"""Objects under keys, on a local disk, in memory, or in S3, Google Cloud Storage and Azure.

Everything durable in refold stands on one promise of this package: of all writers that create one key, exactly one
wins, and nobody ever sees a half-written object. ``fsspec`` alone does not give it (its local ``mode="create"`` had two
or more winners in 34 races of 200), so each kind of store has its own small module here:

======================= ==========================================================================================
``store``               what every store can do, which keys it takes, and the probe that refuses an unfit one
``local``               a folder: temporary file, fsync, hard link, fsync of the folder
``memory``              this process's memory, under a lock of ours
``remote``              any fsspec store whose ``mode="create"`` is a conditional write: Google Cloud Storage, Azure
``s3``                  the same for S3, with listings that start after a key
``mirror``              local, immutable copies of remote objects, for readers that need a file
``failures``            which failures pass by themselves, which mean "exists already", and what to tell the user
======================= ==========================================================================================
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

_KINDS: dict[str, type[RemoteStore]] = {
    "memory": MemoryStore,
    "s3": S3Store,
    "s3a": S3Store,
    "gs": RemoteStore,
    "gcs": RemoteStore,
    "abfs": RemoteStore,
    "abfss": RemoteStore,
    "az": RemoteStore,
}


def open_store(url: str, *, cache_dir: Path | None = None) -> ObjectStore:
    """Open the store at a URL; nothing is contacted or created before the first use.

    Endpoint and credentials of a remote store come from its usual environment: ``AWS_ENDPOINT_URL``, ``AWS_PROFILE``,
    ``FSSPEC_S3_KEY``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_CONNECTION_STRING`` and so on.

    Args:
        url: a path, ``file://…``, ``memory://…``, ``s3://bucket/prefix``, ``gs://…`` or ``abfs://…``.
        cache_dir: where :meth:`ObjectStore.local_path` keeps its copies of remote objects; by default
            ``$REFOLD_CACHE_DIR``, else ``refold`` in the user's cache folder.

    Raises:
        UsageError: no store can have this URL.
        StoreError: the package that speaks to this kind of store is not installed.

    >>> log = open_store("memory://docs/log")
    >>> log.put_if_absent("commits/1", b"first"), log.put_if_absent("commits/1", b"second")
    (True, False)
    >>> log.get("commits/1"), list(log.list_from("commits"))
    (b'first', ['commits/1'])
    """
    protocol, separator, path = url.partition("://")
    if not url or (separator and not path and protocol != "memory"):
        raise UsageError(f"{url!r} names no place: give a folder, or a bucket as in s3://bucket/prefix.")
    if not separator or protocol == "file":
        return LocalStore(os.path.abspath(os.path.expanduser(path if separator else url)), cache_dir=cache_dir)
    if protocol not in _KINDS:
        raise UsageError(
            f"{url!r} is of no kind of store that refold can write to safely: give a local path, "
            f"or a URL that starts with {', '.join(f'{kind}://' for kind in _KINDS)}."
        )
    require_package(protocol)
    root = path.strip("/")
    return _KINDS[protocol](f"{protocol}://{root and check_key(root)}", cache_dir=cache_dir)
