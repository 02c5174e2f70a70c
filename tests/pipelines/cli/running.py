"""Running the command line, as a process or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from click.testing import Result

Call = Callable[..., Result]
"""Runs the command line in this process, from a folder; the fixture ``call`` is one."""


def refold(
    *arguments: str, folder: Path, code: int = 0, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process, in a folder, in a pipe, with further variables."""
    command = [sys.executable, "-m", "refold", *arguments]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return done


def answer(result: Result | subprocess.CompletedProcess[str]) -> Any:
    """Parse the one JSON document on stdout."""
    [line] = result.stdout.splitlines()
    return json.loads(line)
