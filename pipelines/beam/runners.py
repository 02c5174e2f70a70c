"""Beam runners, by the names that users give; the default is the local runner on threads.

``DirectRunner`` is accepted and means this default (see ``local_runner``).
"""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner

from refold.pipelines.beam.local_runner import LOCAL_NAMES, LocalRunner, for_python, set_local_defaults, workers_of

__all__ = ["beam_options", "for_python", "is_local", "make_runner", "workers_of"]

_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
_SHORT_NAMES = {"daskrunner": _DASK, "dask": _DASK}


def beam_options(runner: str | None = None, arguments: Sequence[str] = ()) -> PipelineOptions:
    """Make Beam's options from a runner's name and any Beam options.

    Args:
        runner: a Beam runner's name; the local runner by default.
        arguments: Beam options as on a command line, such as ``--direct_num_workers=4``.

    Example:
        >>> workers_of(beam_options(None, ["--direct_num_workers=4"]))
        4
    """
    options = PipelineOptions(list(arguments))
    options.view_as(StandardOptions).runner = runner or ""
    set_local_defaults(options, arguments)
    return options


def is_local(options: PipelineOptions) -> bool:
    """Check whether pipelines run on the local runner."""
    return (options.view_as(StandardOptions).runner or "").lower() in LOCAL_NAMES


def make_runner(options: PipelineOptions) -> PipelineRunner:
    """Make the runner that the options name."""
    if is_local(options):
        return LocalRunner(options)
    name = options.view_as(StandardOptions).runner
    return create_runner(_SHORT_NAMES.get(name.lower(), name))
