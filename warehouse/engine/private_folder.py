"""Folders for private copies of large files, which do not outlive their process for long, however that ends."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import filelock

_LOCK = ".lock"
_YOUNG_SECONDS = 60.0


class PrivateFolder:
    """A temporary folder that is locked while it is in use; those of the same prefix that nobody locks are removed.

    A process that was killed removes nothing. Its locks end with it, and so the next that needs such a folder tells
    what is left over, also if their process ids are of different containers.

    Args:
        prefix: what its name begins with.

    Attributes:
        path: where it is.

    Example:
        >>> folder = PrivateFolder("refold-example-")
        >>> folder.path.is_dir()
        True
        >>> folder.remove()
        >>> folder.path.exists()
        False
    """

    def __init__(self, prefix: str) -> None:
        remove_left_over(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = _lock_of(self.path)
        self._lock.acquire(timeout=0)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def remove_left_over(prefix: str) -> None:
    """Remove folders of processes that have ended.

    Args:
        prefix: of their names.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            if time.time() - path.stat().st_mtime < _YOUNG_SECONDS:  # it may be about to be locked
                continue
            with _lock_of(path).acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, filelock.Timeout):  # another user's, in use, or gone
            continue


def _lock_of(folder: Path) -> filelock.FileLock:
    return filelock.FileLock(folder / _LOCK, thread_local=False)
