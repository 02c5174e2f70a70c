"""The lock file of event contracts to compare with: on disk, or in a git revision."""

from __future__ import annotations

import subprocess
from pathlib import Path

from refold.event_schemas import UsageError
from refold.event_schemas.lock import Lock, read_lock


def find_lock(against: str | None, file: Path) -> Lock:
    """Read a lock file.

    Args:
        against: a lock file or a git revision; if a file has this name, the file is meant. ``file`` if None.
        file: today's lock file; a revision must have one at the same path.

    Raises:
        UsageError: there is no such lock file.
    """
    path = file if against is None else Path(against)
    if path.is_file():
        return read_lock(path.read_text(), where=str(path))
    if against is None:
        raise UsageError(
            f"There is no lock file {file}. Write it with `refold schemas lock` and commit it; `refold schemas check "
            "--against REVISION` then compares with it."
        )
    return read_lock(_show(against, file), where=f"{against}:{file}")


def _show(revision: str, file: Path) -> str:
    """Return the file as of a git revision."""
    folder = file.resolve().parent
    command = ["git", "-C", str(folder), "show", "--end-of-options", f"{revision}:./{file.name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"--against {revision} is no file, and git cannot be run: {error.strerror}.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise UsageError(
            f"--against {revision} is neither a lock file nor a git revision that has {file.name} in {folder}. Git "
            f"reports: {reason}. In CI, fetch the revision first; `refold schemas lock` writes the file."
        )
    return done.stdout
