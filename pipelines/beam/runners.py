"""Beam runners, by the names users give, with the local default that was measured to be the fastest.

Plain ``DirectRunner`` is never handed to Beam: it would first try to download another runner. The name is accepted and
means the local default, ``FnApiRunner`` on threads.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner

from refold.pipelines.beam.watched_worker import watch_workers

_LOCAL_NAMES = {"", "directrunner", "fnapirunner", "local"}
_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
_SHORT_NAMES = {"daskrunner": _DASK, "dask": _DASK}


class LocalOptions(PipelineOptions):  # type: ignore[misc]
    """What refold notes beside Beam's own options."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--local_mode_chosen", action="store_true", help="the user named a direct_running_mode")


def beam_options(runner: str | None, arguments: Sequence[str] = ()) -> PipelineOptions:
    """Make Beam's options: the runner by name, and any Beam option.

    Args:
        runner: a Beam runner's name, or None for the local default.
        arguments: Beam options as on a command line, such as ``--direct_num_workers=4``.

    Example:
        >>> beam_options(None).view_as(DirectOptions).direct_running_mode
        'multi_threading'
    """
    options = PipelineOptions(list(arguments))
    options.view_as(StandardOptions).runner = runner or ""
    direct = options.view_as(DirectOptions)
    chosen = any(a.startswith("--direct_running_mode") for a in arguments)
    options.view_as(LocalOptions).local_mode_chosen = chosen
    if not chosen:
        direct.direct_running_mode = "multi_threading"
    if not any(a.startswith("--direct_num_workers") for a in arguments):
        direct.direct_num_workers = os.cpu_count() or 1
    return options


def for_python(options: PipelineOptions) -> PipelineOptions:
    """Give options for work that is pure Python: local workers in processes of their own, unless the user chose.

    Threads are faster while the work is DuckDB's, which lets go of Python's lock; a fold never does.
    """
    changed = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    if not options.view_as(LocalOptions).local_mode_chosen:
        changed.view_as(DirectOptions).direct_running_mode = "multi_processing"
    return changed


def is_local(options: PipelineOptions) -> bool:
    """Tell whether pipelines run on this machine, by the local default."""
    return (options.view_as(StandardOptions).runner or "").lower() in _LOCAL_NAMES


def make_runner(options: PipelineOptions) -> PipelineRunner:
    """Make the runner that options name."""
    if is_local(options):
        return _local_runner(options)
    name = options.view_as(StandardOptions).runner
    return create_runner(_SHORT_NAMES.get(name.lower(), name))


def _local_runner(options: PipelineOptions) -> FnApiRunner:
    """Build FnApiRunner so that its workers see the options: by name alone it would hand them none."""
    watch_workers()
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    return FnApiRunner(
        provision_info=ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    )


def workers_of(options: PipelineOptions) -> int:
    """Tell how many local workers a pipeline will have."""
    return int(options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1)
