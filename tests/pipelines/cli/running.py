"""Running the command line: as a process, on a terminal, or in this process."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from click.testing import Result

from refold.event_schemas.orders import StockReceived
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.orders import ORDERS

EVENTS = 300
RECEIVED = StockReceived(sku="cup", quantity=3, unit_cost=Decimal("1.5"), best_before=None)
HALF = NewEvent(payload={"street": "1 Mill Lane"}, event_type="StreetChanged", schema_version=1)
"""An event that no upcaster can complete."""

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


def on_terminal(*arguments: str, folder: Path) -> str:
    """Run the command line on a terminal of 120 columns, and give the text that appears there."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw_on_terminal(*arguments, folder=folder))


def raw_on_terminal(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run the command line as :func:`on_terminal` does, and give all that is written there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "refold", *arguments]
    variables = {**os.environ, "COLUMNS": "120", "LINES": "50", "TERM": "xterm", **(environment or {})}
    with subprocess.Popen(command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b"".join(_read_all(ours))
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def _read_all(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # Linux says so when the other side is closed
            return
        if not part:
            return
        yield part


def append(folder: Path, *events: object, stream_id: str = "stock-cup") -> EventLog:
    """Append events to a folder's log, in one commit."""
    log = open_log(str(folder / "log"))
    Appender(log, ORDERS.registry).append(stream_id, events)
    return log
