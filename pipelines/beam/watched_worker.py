"""Local worker processes whose death is an error, and not the end of all news.

Beam starts a worker process and waits for its answers for ever, also when the process is gone: killed by the system for
its memory, by a user, or by a crash in native code. Here the thread that waits for the process then answers in its
place, so that the pipeline fails as if the worker had said so.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

DIED = "a worker process died"
"""What is answered in place of a dead process."""

_ANSWER_EVERY = 0.1
"""Seconds between looks for a question that came in after the death."""


class WatchedWorker(SubprocessSdkWorkerHandler):  # type: ignore[misc]
    """A worker process; every question to it that is open when it dies, or comes later, is answered with an error."""

    def start_worker(self) -> None:
        """Start the process, and the thread that waits for it."""
        self._stopped = threading.Event()
        self.worker = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._watch)
        self.worker_thread.start()

    def close(self) -> None:
        """Tell the process to go, and wait for it; first of all end the watch, since the rest fails for a dead one."""
        self._stopped.set()
        super().close()

    def _watch(self) -> None:
        with suppress(RuntimeError):  # how it ended: died is died
            self.worker.run()
        while not self._stopped.wait(_ANSWER_EVERY):
            self._answer_all(DIED)

    def _answer_all(self, error: str) -> None:
        pending = self.control_conn._futures_by_id
        for instruction in list(pending):
            with suppress(KeyError):
                pending.pop(instruction).set(
                    beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=error)
                )


def watch_workers() -> None:
    """Have Beam start its local worker processes as watched ones."""
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(WatchedWorker)
