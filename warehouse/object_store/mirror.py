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
    """Return the cached copy of an object, and download it if there is none.

    Args:
        cache_dir: the cache; several processes may share it, and only one of them downloads an object.
        key: the object's key; the copy's path ends in it, so that messages name the object.
        identity: text that identifies this content, such as URL, key and ETag together.
        download: function that writes the object's content to a path.
    """
    folder = cache_dir / hashlib.sha256(identity.encode()).hexdigest()[:32]
    copy = folder / key
    if copy.exists():
        return copy
    with translate_errors(f"cache a copy of {key!r}", str(cache_dir)):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{TEMP_PREFIX}lock"):
            if not copy.exists():
                _download_atomically(copy, download)
    return copy


def _download_atomically(copy: Path, download: Callable[[Path], None]) -> None:
    temp = copy.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    try:
        download(temp)
        with temp.open("rb") as file:
            os.fsync(file.fileno())
        temp.chmod(0o444)
        temp.replace(copy)
    finally:
        temp.unlink(missing_ok=True)
