"""Beam's local runner, ``FnApiRunner``: its options, its worker processes, and a pipeline that runs many times.

Plain ``DirectRunner`` is never handed to Beam: it would first try to download another runner.

Beam starts a worker process and waits for its answers for ever, even if the process is gone: killed for its memory, by
a user, or by a crash in native code. Here, the thread that waits for the process then answers in its place, so the
pipeline fails as if the worker had reported the error.
"""

from __future__ import annotations

import os
import threading
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_provision_api_pb2, beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms import environments

LOCAL_NAMES = {"", "directrunner", "fnapirunner", "local"}
"""Names that users give the local runner, in lower case."""

WORKER_DIED = ("a worker process died", "Channel closed prematurely")
"""How a dead worker shows in an error: by ``WatchedWorker``, or by Beam's data channel, whichever notices first."""

_WATCHED_PROCESS = "refold:env:watched_subprocess_python:v1"
_ANSWER_EVERY = 0.1
"""Seconds between looks for requests that arrive after a worker's death."""


class _LocalOptions(PipelineOptions):  # type: ignore[misc]
    """What refold keeps beside Beam's own options."""

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--local_mode_chosen", action="store_true", help="the user named a direct_running_mode")


def set_local_defaults(options: PipelineOptions, arguments: Sequence[str]) -> None:
    """Choose threads, one for each core, unless the arguments choose otherwise.

    Threads are faster than processes while the work is DuckDB's, which releases Python's lock.
    """
    direct = options.view_as(DirectOptions)
    chosen = any(a.startswith("--direct_running_mode") for a in arguments)
    options.view_as(_LocalOptions).local_mode_chosen = chosen
    if not chosen:
        direct.direct_running_mode = "multi_threading"
    if not any(a.startswith("--direct_num_workers") for a in arguments):
        direct.direct_num_workers = os.cpu_count() or 1


def for_python(options: PipelineOptions) -> PipelineOptions:
    """Return options for work in pure Python: local workers are processes, unless the user chose a mode.

    A fold never releases Python's lock, so threads would run it one after the other.
    """
    changed = PipelineOptions.from_dictionary(options.get_all_options(drop_default=True))
    if not options.view_as(_LocalOptions).local_mode_chosen:
        changed.view_as(DirectOptions).direct_running_mode = "multi_processing"
    return changed


def workers_of(options: PipelineOptions) -> int:
    """Return the number of local workers of a pipeline."""
    return int(options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1)


class LocalRunner(FnApiRunner):  # type: ignore[misc]
    """FnApiRunner whose workers get the pipeline's options, and whose worker processes are watched.

    Args:
        options: of the pipeline; by name alone, FnApiRunner would hand workers none.
    """

    def __init__(self, options: PipelineOptions) -> None:
        encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
        provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        super().__init__(provision_info=ExtendedProvisionInfo(provision))

    def run_via_runner_api(
        self, pipeline_proto: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> PipelineResult:
        """Run a pipeline; worker processes of it are watched ones, those of other pipelines stay Beam's."""
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.urn = _WATCHED_PROCESS
        return super().run_via_runner_api(pipeline_proto, options)


@WorkerHandler.register_environment(_WATCHED_PROCESS, bytes)
class WatchedWorker(SubprocessSdkWorkerHandler):  # type: ignore[misc]
    """A worker process; when it dies, every request to it, open or new, is answered with an error."""

    def start_worker(self) -> None:
        """Start the process, and the thread that waits for it."""
        self._stopped = threading.Event()
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._watch)
        self.worker_thread.start()

    def close(self) -> None:
        """Stop the process and wait for it; the watch ends first, since the rest fails for a dead process."""
        self._stopped.set()
        super().close()

    def _watch(self) -> None:
        with suppress(RuntimeError):  # its exit code does not matter here
            self.worker.run()
        while not self._stopped.wait(_ANSWER_EVERY):
            self._answer_all(WORKER_DIED[0])

    def _answer_all(self, error: str) -> None:
        pending = self.control_conn._futures_by_id
        for instruction in list(pending):
            with suppress(KeyError):
                pending.pop(instruction).set(
                    beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=error)
                )


class EmbeddedPipeline:
    """A pipeline that is built once and runs in this process, any number of times.

    Building the graph takes two thirds of the time of a small run.

    Args:
        transform: the whole pipeline.
    """

    def __init__(self, transform: beam.PTransform) -> None:
        here = environments.EmbeddedPythonEnvironment.default()
        self._runner = FnApiRunner(default_environment=here)
        self._options = PipelineOptions(["--direct_running_mode=in_memory", "--direct_num_workers=1"])
        pipeline = beam.Pipeline(runner=self._runner, options=self._options)
        _ = pipeline | transform
        self._graph = pipeline.to_runner_api(default_environment=here)

    def run(self) -> None:
        """Run it to its end."""
        self._runner.run_via_runner_api(self._graph, self._options).wait_until_finish()
