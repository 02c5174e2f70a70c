"""Keep the terminal for what refold prints: Beam, its workers and its engines log heavily, from their import on."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings

from refold.pipelines.cli.support.signals import unwind_when_stopped


def quiet_beam(*, debug: bool) -> None:
    """Prepare this process for Beam; call it before Beam is imported.

    A pipeline reports its errors as exceptions, so silencing the log loses nothing.

    Args:
        debug: keep warnings.
    """
    unwind_when_stopped()
    if debug:
        logging.basicConfig(level=logging.WARNING)
        return
    logging.basicConfig(handlers=[logging.NullHandler()])
    os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "critical")
    warnings.filterwarnings("ignore", module="apache_beam")
    _keep_stderr_to_python()
    _keep_tracebacks_of_workers()


def _keep_tracebacks_of_workers() -> None:
    """Keep Beam's worker from printing the traceback of an error, which the command reports in one paragraph."""
    from apache_beam.runners.worker import sdk_worker

    sdk_worker.print = lambda *_args, **_options: None  # its only output; there is no setting for it


def _keep_stderr_to_python() -> None:
    """Let only Python's own ``sys.stderr`` reach the terminal.

    Worker processes and C libraries write to descriptor 2, which is redirected to the null device.
    """
    try:
        if sys.stderr.fileno() != 2:
            return
    except (AttributeError, io.UnsupportedOperation):  # stderr is captured, as in a test
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = open(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115
