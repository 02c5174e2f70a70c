"""Stopping: Ctrl-C and SIGTERM unwind what runs, so that nothing half-done stays; but not for ever.

Beam's local runner may wait without end for worker processes, which in turn outlive it for minutes. So what cannot
unwind within some seconds, or is told to stop a second time, is ended together with every process it started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import defaultdict
from contextlib import suppress
from typing import NoReturn

STOPPED = 130
"""Exit code after Ctrl-C, as shells give it."""

_GRACE_SECONDS = 5.0


def unwind_when_stopped() -> None:
    """From now on let SIGTERM do what Ctrl-C does: raise KeyboardInterrupt, with some seconds for what follows."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    timer = threading.Timer(_GRACE_SECONDS, _end)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _end(*_: object) -> NoReturn:
    say_stopped()
    end_at_once()


def say_stopped() -> None:
    """Tell the user."""
    print("Stopped.", file=sys.stderr, flush=True)


def is_interrupt(error: Exception) -> bool:
    """Tell whether an error is Ctrl-C as DuckDB passes it on."""
    return isinstance(error, RuntimeError) and "Query interrupted" in str(error)


def end_at_once() -> NoReturn:
    """End this process and all that it started, without waiting for threads that are deep inside DuckDB or Beam."""
    with suppress(OSError, ValueError):
        for process in _descendants(os.getpid()):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(STOPPED)


def _descendants(process: int) -> list[int]:
    """Name the processes below one, itself left out."""
    import subprocess

    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=False)
    children: dict[int, list[int]] = defaultdict(list)
    for line in listing.stdout.splitlines():
        child, parent = map(int, line.split())
        children[parent].append(child)
    found = [process]
    for parent in found:
        found += children[parent]
    return found[1:]
