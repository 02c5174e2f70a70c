"""Files that other processes have open with DuckDB, which holds a POSIX lock on each.

A child process checks the locks: closing any descriptor of a file drops all locks that the process has on it, so this
process would drop those of its own sessions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_FILES_PER_CHILD = 500

_CHECK = """
import fcntl, os, struct, sys
# struct flock: Linux has type, whence, start, length, pid; macOS and the BSDs start, length, pid, type, whence.
linux = sys.platform.startswith("linux")
layout = "@hhqqi4x" if linux else "@qqihh"
wanted = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
for path in sys.argv[1:]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        continue
    found = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *wanted)))
    if found[0 if linux else 3] != fcntl.F_UNLCK:
        os.write(1, os.fsencode(path) + b"\\0")
    os.close(descriptor)
"""


def held_files(paths: Iterable[Path]) -> set[Path]:
    """Return the files that any process has open with DuckDB, for reading or writing.

    Args:
        paths: files on a local disk; missing ones are not open.

    Raises:
        OSError: this system does not support the check.
    """
    names = [str(path) for path in paths]
    held: set[Path] = set()
    for start in range(0, len(names), _FILES_PER_CHILD):
        command = [sys.executable, "-I", "-S", "-c", _CHECK, *names[start : start + _FILES_PER_CHILD]]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise OSError(
                f"Cannot check which files are open in {Path(names[start]).parent}: "
                f"{done.stderr.decode(errors='replace').strip()}"
            )
        held |= {Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name}
    return held
