"""Ctrl-C and SIGTERM: the command unwinds, so that nothing half-done stays, but not for ever.

Beam's local runner may wait without end for worker processes, which in turn outlive it for minutes. A command that has
not unwound after some seconds, or gets a second signal, is killed together with every process it started.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from refold.pipelines.cli.support.exit_codes import STOPPED
from refold.pipelines.stop_signals import StopRequests

_GRACE_SECONDS = 5.0
"""Time to unwind: enough to cancel DuckDB queries and delete scratch files, short enough for a waiting user."""


def unwind_when_stopped() -> None:
    """Make SIGTERM do what Ctrl-C does: raise KeyboardInterrupt, and kill the process if it has not unwound in time."""
    requests = StopRequests(first=_interrupt, again=_end)
    signal.signal(signal.SIGTERM, requests)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, requests)


def drain_when_stopped() -> Callable[[], bool]:
    """Make the first signal a request to drain, and a later one do what Ctrl-C does.

    Returns:
        Reports whether a signal came.
    """
    requests = StopRequests(first=lambda: None, again=StopRequests(first=_interrupt, again=_end))
    requests.install()
    return lambda: requests.received


def _interrupt() -> None:
    timer = threading.Timer(_GRACE_SECONDS, _end)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _end() -> NoReturn:
    report_stopped()
    end_at_once()


def report_stopped() -> None:
    """Report on stderr that the command was stopped."""
    print("Stopped.", file=sys.stderr, flush=True)


def is_interrupt(error: Exception) -> bool:
    """Check whether an error is Ctrl-C as DuckDB reports it."""
    return isinstance(error, RuntimeError) and "Query interrupted" in str(error)


def end_at_once() -> NoReturn:
    """Kill this process and all that it started, without waiting for threads that are inside DuckDB or Beam."""
    with suppress(OSError, ValueError):
        for process in _descendants(os.getpid()):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(STOPPED)


def _descendants(process: int) -> list[int]:
    """List the descendants of a process."""
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
