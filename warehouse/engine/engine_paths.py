"""Paths as DuckDB and Arrow are given them: files whose names either would interpret are opened through a link.

DuckDB reads a path as a pattern (``*``, ``?``, ``[``), takes a backslash for a separator, expands ``~``, and cuts the
path of a database at ``?``. It has no escape that works for all of these: ``[*]`` is a pattern still, which lists each
folder and fails if a sibling's name has a backslash. So a path with any but plain characters goes through a symbolic
link with a plain name, to the folder up to the last name that is not plain.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from refold.event_schemas import UsageError
from refold.warehouse.engine.private_folder import PrivateFolder

_PREFIX = "refold-links-"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./=,+@ -]")
_PLAIN_FOLDERS = ("/tmp", "/var/tmp")  # for a TMPDIR that itself needs a link


def engine_path(path: str | Path) -> str:
    """Return an absolute path that DuckDB and Arrow take literally, for a file or folder.

    Args:
        path: the path. If its last name is not plain, it must exist.

    Raises:
        UsageError: a file that is to be created has a name that is not plain, or no link can be made.

    Example:
        >>> engine_path("/data/log/commits/1.parquet")
        '/data/log/commits/1.parquet'
    """
    absolute = os.path.join(os.getcwd(), path)
    names = absolute.split("/")
    last = max((i for i, name in enumerate(names) if _NOT_PLAIN.search(name)), default=0)
    if not last:
        return absolute
    target = "/".join(names[: last + 1])
    if not os.path.exists(target):
        raise UsageError(f"{absolute!r} cannot be opened: {target!r} does not exist. Make it first, or check its name.")
    return "/".join([_links(os.getpid()).to(target), *names[last + 1 :]])


def real_paths(text: str) -> str:
    """Return a message of DuckDB or Arrow with the real paths in place of those through links."""
    for target, link in list(_links_of.get(os.getpid(), _Links()).made.items()):
        text = text.replace(link, target)
    return text


@dataclass(slots=True)
class _Links:
    """The links of one process; a forked process makes its own, since those of its parent end with the parent."""

    made: dict[str, str] = field(default_factory=dict)
    folder: PrivateFolder | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def to(self, target: str) -> str:
        """Return the link to a folder; a cleaner of temporary files may have removed it from a long-lived process."""
        with self.lock:
            if self.folder is None:
                self.folder = PrivateFolder(_PREFIX, parent=_plain_folder())
                atexit.register(_remove, self.folder, os.getpid())
            link = self.made.setdefault(target, f"{self.folder.path}/{len(self.made)}")
            if not os.path.lexists(link):
                os.makedirs(self.folder.path, exist_ok=True)
                os.symlink(target, link)
        return link


_links_of: dict[int, _Links] = {}


def _links(process: int) -> _Links:
    return _links_of.setdefault(process, _Links())


def _plain_folder() -> Path:
    for folder in (tempfile.gettempdir(), *_PLAIN_FOLDERS):
        if not _NOT_PLAIN.search(folder) and os.access(folder, os.W_OK):
            return Path(folder)
    raise UsageError(
        f"The folder for temporary files, {tempfile.gettempdir()!r}, has a name that DuckDB does not take literally, "
        f"and {' and '.join(_PLAIN_FOLDERS)} cannot be written. Set TMPDIR to a folder whose name has only letters, "
        "digits and hyphens."
    )


def _remove(folder: PrivateFolder, process: int) -> None:
    if process == os.getpid():  # a forked process inherits the exit handlers of its parent
        folder.remove()
