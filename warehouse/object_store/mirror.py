"""Local, immutable copies of remote objects, for readers that need a file."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.object_store.store import TEMP_PREFIX


def default_cache_dir() -> Path:
    """Return ``$REFOLD_CACHE_DIR``, else ``refold`` in the user's cache folder."""
    if named := os.environ.get("REFOLD_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refold"


def mirrored(cache_dir: Path, key: str, identity: str, download: Callable[[Path], None]) -> Path:
    """Return the copy of an object in the cache, downloaded if it is not there yet.

    Args:
        cache_dir: the cache; several processes may share it, and only one of them downloads.
        key: the object's key, which the copy's path ends in: a Parquet reader finds its partitions there.
        identity: what tells this content from any other, as URL, key and ETag do together.
        download: writes the object's content to the path it is given.
    """
    folder = cache_dir / hashlib.sha256(identity.encode()).hexdigest()[:32]
    copy = folder / key
    if copy.exists():
        return copy
    with translate_errors(f"keep a copy of {key!r}", str(cache_dir)):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{TEMP_PREFIX}lock"):
            if not copy.exists():
                _download_whole(copy, download)
    return copy


def _download_whole(copy: Path, download: Callable[[Path], None]) -> None:
    temp = copy.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        download(temp)
        with temp.open("rb") as file:
            os.fsync(file.fileno())
        temp.chmod(0o444)
        temp.replace(copy)
    finally:
        temp.unlink(missing_ok=True)
