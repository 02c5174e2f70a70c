"""Folders for private copies of large files, which are removed soon after their process ends, even if it was killed."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import filelock

_LOCK = ".lock"
_MIN_AGE_SECONDS = 60.0  # a younger folder may be about to be locked


class PrivateFolder:
    """A temporary folder that is locked while it is in use. A new one removes unlocked folders with the same prefix.

    A killed process removes nothing, but its locks end with it. So the next process that needs such a folder finds the
    leftovers, even if the two ran in different containers with their own process ids.

    Args:
        prefix: the start of its name.
        parent: folder in which to make it; by default that for temporary files.

    Attributes:
        path: its path.

    Example:
        >>> folder = PrivateFolder("refold-example-")
        >>> folder.path.is_dir()
        True
        >>> folder.remove()
        >>> folder.path.exists()
        False
    """

    def __init__(self, prefix: str, *, parent: Path | None = None) -> None:
        remove_left_over(prefix, parent=parent)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove the folder and its contents."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def remove_left_over(prefix: str, *, parent: Path | None = None) -> None:
    """Remove the folders of processes that have ended.

    Args:
        prefix: the start of their names.
        parent: the folder that holds them; by default that for temporary files.
    """
    for path in (parent or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        try:
            if time.time() - path.stat().st_mtime < _MIN_AGE_SECONDS:
                continue
            with _lock_of(path).acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, filelock.Timeout):  # another user's, in use, or gone
            continue


def _lock_of(folder: Path) -> filelock.FileLock:
    return filelock.FileLock(folder / _LOCK, thread_local=False)
