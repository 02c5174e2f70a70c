"""Finding a lock file of event contracts: on disk, or as a git revision has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from refold.event_schemas import UsageError
from refold.event_schemas.lock import Lock, read_lock


def find_lock(against: str | None, file: Path) -> Lock:
    """Read a lock file.

    Args:
        against: a lock file, or a git revision; a file of that name goes before a revision. ``file`` by default.
        file: the lock file of today, at whose path the revision must have one.

    Raises:
        UsageError: there is none, or it is no lock file.
    """
    path = file if against is None else Path(against)
    if path.is_file():
        return read_lock(path.read_text(), where=str(path))
    if against is None:
        raise UsageError(
            f"There is no lock file {file}. Write it with `refold schemas lock`, commit it, and compare with --against."
        )
    return read_lock(_show(against, file), where=f"{against}:{file}")


def _show(revision: str, file: Path) -> str:
    """Let git show the file as of a revision, relative to where it lies now."""
    folder = file.resolve().parent
    command = ["git", "-C", str(folder), "show", "--end-of-options", f"{revision}:./{file.name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"--against {revision} is no file, and git cannot be run: {error.strerror}.") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[:1] or ["no reason given"]
        raise UsageError(
            f"--against {revision} is neither a lock file nor a git revision that has {file.name} in {folder}. git "
            f"says: {said[0]}. In CI, fetch the revision first; `refold schemas lock` writes the file."
        )
    return done.stdout
