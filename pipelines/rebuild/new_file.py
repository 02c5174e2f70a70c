"""Files that a command makes for a user: they appear when they are complete, and replace no other."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from refold.event_schemas import UsageError


def refuse_existing(path: Path) -> None:
    """Check that a path is free, and that its folder exists.

    Raises:
        UsageError: the path exists, or its folder does not.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists, and is not overwritten. Give another path, or remove it first.")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: the folder {path.parent} does not exist. Make it first.")


def name_file(path: Path, to: Path) -> None:
    """Rename a finished file; unlike ``os.rename``, never replace another one.

    Raises:
        UsageError: the name was taken meanwhile.
    """
    try:
        os.link(path, to)
    except FileExistsError:
        refuse_existing(to)
    except OSError:  # a disk without hard links, or another disk
        copy = to.with_name(f".refold-{uuid.uuid4()}")
        try:
            shutil.copyfile(path, copy)
            refuse_existing(to)
            os.rename(copy, to)
        finally:
            copy.unlink(missing_ok=True)
