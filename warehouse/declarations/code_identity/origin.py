"""Where a piece of code comes from: the user's own source, the standard library, or another distribution.

Own code is read; the standard library counts by name, so that an upgrade of Python is no change; another distribution
counts by its version.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
from enum import Enum
from pathlib import PurePath
from typing import Any

from refold import __version__


class Origin(Enum):
    """The origins of code."""

    OWN = "own"
    STANDARD = "standard library"
    DISTRIBUTION = "distribution"
    UNKNOWN = "unknown"


_REFOLD = "refold"
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_RENAMED = {"posixpath": "os.path", "ntpath": "os.path", "genericpath": "os.path", "posix": "os", "nt": "os"}
"""Modules whose name differs between platforms."""

_OUTSIDE = re.compile(
    r"builtins\.(eval|exec|compile|__import__|globals|open|input|breakpoint)$"
    r"|os(?!\.(path\.(join|split|splitext|basename|dirname|normpath|isabs|commonpath|commonprefix)|path|sep|fspath)$)"
    r"|pathlib\.(Path|PosixPath|WindowsPath)\b|io\.(open|FileIO)|(codecs|gzip|bz2|lzma|zipfile|tarfile)\.(open|\w+File)$"
    r"|sys\.(argv|modules|path|flags|stdin|_getframe)\b|datetime\.(datetime|date)\.(now|utcnow|today)$"
    r"|uuid\.uuid[14]$"
    r"|(importlib|subprocess|socket|socketserver|urllib\.request|http|ftplib|smtplib|sqlite3|dbm|shelve|tempfile|glob"
    r"|shutil|fileinput|random|secrets|platform|getpass|locale|ctypes|inspect|pkgutil|runpy|linecache)(\.|$)"
    r"|time\.(?!strptime|struct_time)|time$"
)
"""What of the standard library hides code or reads from outside the program."""


def reads_outside(name: str) -> bool:
    """Check whether something of the standard library hides code or reads from outside the program.

    Example:
        >>> reads_outside("os.environ.get"), reads_outside("os.path.join"), reads_outside("math.floor")
        (True, False, False)
    """
    return _OUTSIDE.match(name) is not None


def origin_of(module: str | None, root: str | None) -> Origin:
    """Return the origin of a module's code.

    Args:
        module: the module's name.
        root: the module of the declared function: its package and its distribution are the user's own.
    """
    if not module:
        return Origin.UNKNOWN
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return Origin.STANDARD if top not in ("__main__", "__mp_main__") else Origin.OWN
    own = (root or "").partition(".")[0]
    if top == _REFOLD:  # whose example domains lie in one folder of each room
        return Origin.OWN if own == top and _folder(module) == _folder(str(root)) else Origin.DISTRIBUTION
    if top == own or not _is_installed(module):
        return Origin.OWN
    if distribution_of(top) is None:
        return Origin.UNKNOWN
    return Origin.OWN if distribution_of(own) == distribution_of(top) else Origin.DISTRIBUTION


def _folder(module: str) -> str:
    return module.rpartition(".")[0].rpartition(".")[2]


def _is_installed(module: str) -> bool:
    loaded: Any = sys.modules.get(module) or sys.modules.get(module.partition(".")[0])
    file = getattr(loaded, "__file__", None)
    places = [file] if file else list(getattr(loaded, "__path__", ()))
    return any(_INSTALLED & set(PurePath(place).parts) for place in places)


@functools.cache
def distribution_of(top: str) -> str | None:
    """Return the distribution that provides a top-level module, as ``name==version``; None if it cannot be known."""
    if top == _REFOLD:
        return f"{_REFOLD}=={__version__}"
    names = sorted(set(_distributions().get(top, ())))
    return ", ".join(f"{name}=={importlib.metadata.version(name)}" for name in names) or None


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def standard_name(module: str, qualified: str) -> str:
    """Return the name of something in the standard library that is the same in every Python version.

    Example:
        >>> standard_name("pathlib._local", "PurePath"), standard_name("_functools", "reduce")
        ('pathlib.PurePath', 'functools.reduce')
    """
    parts = [part for part in _RENAMED.get(module, module).split(".") if not part.startswith("_")]
    return ".".join([*(parts or [module.lstrip("_")]), qualified])
