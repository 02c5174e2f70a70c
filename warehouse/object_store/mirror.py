"""Local, immutable copies of remote objects, for readers that need a file.

The copies take a bounded space: beyond it, those that were used least recently are deleted. A copy that was used within
the last hour is kept, since its reader may not have opened it yet; a run that needs more at once gets more.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from refold.event_schemas.errors import UsageError
from refold.warehouse.object_store.failures import translate_errors
from refold.warehouse.object_store.store import TEMP_PREFIX

CACHE_BYTES = 20 << 30
"""The default bound: 20 GiB, some 800 million events of segments."""

KEPT_SECONDS = 3600.0
"""How long a copy is kept after its last use, whatever the bound."""

_ATTEMPTS = 10
_LOOKS = 20
"""The cache is measured after so many equal parts of the bound were downloaded: so it may exceed the bound by one."""

_LOCK = f"{TEMP_PREFIX}lock"
_ENTRY = re.compile("[0-9a-f]{32}")
_downloaded: dict[Path, int] = {}
"""For each cache, the bytes that this process has downloaded since it measured it."""


def default_cache_dir() -> Path:
    """Return ``$REFOLD_CACHE_DIR``, else ``refold`` in the user's cache folder."""
    if named := os.environ.get("REFOLD_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refold"


def cache_bytes() -> int:
    """Return the bound of the cache: ``$REFOLD_CACHE_BYTES``, else :data:`CACHE_BYTES`.

    Raises:
        UsageError: the variable is not a number of bytes.
    """
    text = os.environ.get("REFOLD_CACHE_BYTES")
    if not text:
        return CACHE_BYTES
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(f"REFOLD_CACHE_BYTES is {text!r}. Give a number of bytes above 0, such as {CACHE_BYTES}.")
    return int(text)


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
    if _is_used(copy):
        return copy
    bound = cache_bytes()
    with translate_errors(f"cache a copy of {key!r}", str(cache_dir)):
        for attempt in range(_ATTEMPTS):
            try:
                _add(folder, copy, download)
                size = copy.stat().st_size
                break
            except FileNotFoundError:  # another process deleted the folder, which was empty, at this moment
                if attempt == _ATTEMPTS - 1:
                    raise
        _bound_cache(cache_dir, size, bound)
    return copy


def _is_used(copy: Path) -> bool:
    """Note that a copy is used, by its time of access; return False if there is none."""
    try:
        modified = copy.stat().st_mtime_ns  # a digest that was checked is remembered by it
        os.utime(copy, ns=(time.time_ns(), modified))
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's copy
        pass
    return True


def _add(folder: Path, copy: Path, download: Callable[[Path], None]) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / _LOCK):
        if not copy.exists():
            _download_atomically(copy, download)


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


def _bound_cache(cache_dir: Path, size: int, bound: int) -> None:
    """Delete copies if the cache exceeds its bound; it is measured at the first download, and then now and then."""
    since = _downloaded.get(cache_dir, bound) + size
    if since * _LOOKS < bound:
        _downloaded[cache_dir] = since
        return
    _downloaded[cache_dir] = 0
    copies = sorted(_copies(cache_dir))
    excess = sum(size for _, size, _ in copies) - bound
    unused_since = time.time() - KEPT_SECONDS
    for _, size, path in copies:
        if excess <= 0:
            return
        with suppress(OSError):  # another process deleted it, or it belongs to another user
            if path.stat().st_atime <= unused_since:
                path.unlink()
                excess -= size
                _remove_folders(path, cache_dir)


def _copies(cache_dir: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield each file's time of access, size and path; unfinished ones of killed processes are among them."""
    for entry in os.scandir(cache_dir):
        if not _ENTRY.fullmatch(entry.name):
            continue
        for folder, _, names in os.walk(entry.path):
            for name in set(names) - {_LOCK}:
                with suppress(FileNotFoundError):
                    path = Path(folder, name)
                    found = path.stat()
                    yield found.st_atime, found.st_size, path


def _remove_folders(path: Path, cache_dir: Path) -> None:
    entry = cache_dir / path.relative_to(cache_dir).parts[0]
    (entry / _LOCK).unlink(missing_ok=True)
    for folder in path.parents:
        if folder == cache_dir:
            return
        folder.rmdir()


__all__ = ["CACHE_BYTES", "KEPT_SECONDS", "cache_bytes", "default_cache_dir", "mirrored"]
