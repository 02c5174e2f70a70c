"""Which files other processes have open with DuckDB: it keeps a POSIX lock on a file for as long.

The question is asked by a child process, since closing any descriptor of a file drops all locks of the process on it:
a session of the very process that asks would lose its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 500

_ASK = """
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
    """Pick the files that somebody has open with DuckDB, to read or to write.

    Args:
        paths: files on a local disk; those that are not there are not held.

    Raises:
        OSError: the question cannot be asked on this system.
    """
    told = [str(path) for path in paths]
    held: set[Path] = set()
    for start in range(0, len(told), _CHUNK):
        command = [sys.executable, "-I", "-S", "-c", _ASK, *told[start : start + _CHUNK]]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise OSError(f"Cannot ask which files are open: {done.stderr.decode(errors='replace').strip()}")
        held |= {Path(name.decode()) for name in done.stdout.split(b"\0") if name}
    return held
