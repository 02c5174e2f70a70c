"""Paths as DuckDB and Arrow are given them: files whose names either would interpret are opened through a link.

DuckDB reads a path as a pattern (``*``, ``?``, ``[``), takes a backslash for a separator and expands ``~``. It has no
escape that works for all of these: ``[*]`` is a pattern still, which lists each folder and fails if a sibling's name
has a backslash. So a path with any but plain characters goes through a symbolic link with a plain name, to the folder
up to the last name that is not plain.

DuckDB follows such a link before it opens a database. Then only two characters matter: a backslash, which the prefix
``duckdb:`` protects, and ``?``, at which it inserts ``.wal`` into the path. So a folder below a name with ``?`` can
hold databases, but none can be written there: see :func:`can_write_databases`.
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


def database_path(path: str | Path) -> str:
    """Return the path of a database file to connect to, as :func:`engine_path` does."""
    plain = engine_path(path)
    return plain if plain == os.path.join(os.getcwd(), path) else f"duckdb:{plain}"


def can_write_databases(folder: str | Path) -> bool:
    """Check whether DuckDB can write databases in a folder; if not, write them elsewhere and move them.

    Example:
        >>> can_write_databases("/data/read-models"), can_write_databases("/data/what?")
        (True, False)
    """
    return "?" not in os.path.realpath(folder)


def real_paths(text: str) -> str:
    """Return a message of DuckDB or Arrow with the real paths in place of those through links."""
    links = _links_of.get(os.getpid())
    if links is None or links.folder is None:
        return text
    targets = {link: target for target, link in list(links.made.items())}
    link = re.compile(re.escape(f"{links.folder.path}/") + r"\d+")
    return link.sub(lambda found: targets.get(found[0], found[0]), text)


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
