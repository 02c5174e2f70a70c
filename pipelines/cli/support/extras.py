"""Optional packages: what to install when one is missing."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import requires


def install_command(extra: str) -> str:
    """Return the command line that installs an extra's packages into this very environment.

    It names the packages themselves, so it works wherever refold was installed from: an index, a file or a clone.

    Example:
        >>> install_command("dask").split(" -m ")[1]
        "pip install 'dask>=2025.1' 'distributed>=2025.1'"
    """
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires("refold") or ()]
    chosen = [
        f"{r.name}{r.specifier}"
        for r in wanted
        if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    ]
    return shlex.join([sys.executable, "-m", "pip", "install", *chosen])
