"""Starting Beam from the command line: its options checked, and the terminal kept for what refold says.

Beam, its workers and its engines log a great deal, from their import on.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

from refold.pipelines.cli.support.signals import unwind_when_stopped

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def quiet_beam(*, debug: bool) -> None:
    """Prepare this process for Beam; call it before Beam is imported.

    What goes wrong in a pipeline comes to us as an exception, so nothing is lost with the log.

    Args:
        debug: let warnings through.
    """
    unwind_when_stopped()
    if debug:
        logging.basicConfig(level=logging.WARNING)
        return
    logging.basicConfig(handlers=[logging.NullHandler()])
    os.environ.setdefault("DASK_DISTRIBUTED__LOGGING__DISTRIBUTED", "critical")
    warnings.filterwarnings("ignore", module="apache_beam")
    _keep_stderr_to_python()


def _keep_stderr_to_python() -> None:
    """Let only Python's own ``sys.stderr`` reach the terminal.

    Worker processes and C libraries write to descriptor 2, which leads nowhere from now on.
    """
    try:
        if sys.stderr.fileno() != 2:
            return
    except (AttributeError, io.UnsupportedOperation):  # somebody captures it
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = open(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)  # noqa: SIM115


def parse_options(runner: str | None, arguments: list[str]) -> PipelineOptions:
    """Make Beam's options, and find out now what Beam would otherwise tell late, in its own way, or not at all.

    Args:
        runner: from the settings or ``--runner``.
        arguments: what followed ``--``; a ``--runner`` among them wins.

    Raises:
        UsageError: there is no such runner, or it has no such option.
    """
    from refold.event_schemas import UsageError
    from refold.pipelines.beam.runners import beam_options, make_runner

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            options = beam_options(_runner_in(arguments) or runner, arguments)
    except SystemExit as error:
        told = (said.getvalue().strip().splitlines() or [str(error)])[-1].split("error: ")[-1]
        raise UsageError(f"Beam refuses what follows --: {told}.") from error
    try:
        chosen = make_runner(options)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"There is no such runner: {error}") from error
    known = options.get_all_options(drop_default=True)
    unknown = set(options.get_all_options(drop_default=True, retain_unknown_options=True)) - set(known)
    if unknown and type(chosen).__name__ == "FnApiRunner":
        raise UsageError(f"Beam's local runner has no option --{min(unknown)}. Leave it out, or name a --runner.")
    return options


def _runner_in(arguments: list[str]) -> str | None:
    """Find a runner among Beam's own options, where it means the same as ``--runner`` before them."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--runner="):
            return argument.partition("=")[2]
        if argument == "--runner" and index + 1 < len(arguments):
            return arguments[index + 1]
    return None
