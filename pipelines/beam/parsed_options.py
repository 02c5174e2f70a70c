"""Beam options as a user gives them: parsed and checked before a pipeline starts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr

from apache_beam.options.pipeline_options import PipelineOptions

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import beam_options, is_local, make_runner


def parse_options(runner: str | None, arguments: Sequence[str]) -> PipelineOptions:
    """Parse and check Beam options.

    Beam itself reports these mistakes late, with its whole usage text, or not at all.

    Args:
        runner: from the settings or ``--runner``.
        arguments: what followed ``--``; a ``--runner`` among them takes precedence.

    Raises:
        UsageError: the runner does not exist, or an option is unknown or has an invalid value.

    Example:
        >>> parse_options(None, ["--direct_num_workers=many"])
        Traceback (most recent call last):
        refold.event_schemas.errors.UsageError: Invalid Beam options after --: argument --direct_num_workers: \
invalid int value: 'many'.
    """
    output = io.StringIO()
    try:
        with redirect_stderr(output):
            options = beam_options(_runner_in(arguments) or runner, arguments)
    except SystemExit as error:
        last_line = (output.getvalue().strip().splitlines() or [str(error)])[-1]
        raise UsageError(f"Invalid Beam options after --: {last_line.split('error: ')[-1]}.") from error
    try:
        make_runner(options)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"Unknown runner: {error}") from error
    known = options.get_all_options(drop_default=True)
    unknown = set(options.get_all_options(drop_default=True, retain_unknown_options=True)) - set(known)
    if unknown and is_local(options):
        raise UsageError(f"Beam's local runner has no option --{min(unknown)}. Remove it, or choose a --runner.")
    return options


def _runner_in(arguments: Sequence[str]) -> str | None:
    """Find a ``--runner`` among the Beam options."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--runner="):
            return argument.partition("=")[2]
        if argument == "--runner" and index + 1 < len(arguments):
            return arguments[index + 1]
    return None
