"""Run the server: one uvicorn process, or a supervisor of several worker processes."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from refold.event_schemas import RefoldError, UsageError
from refold.pipelines.serving.app import Application, create_app
from refold.pipelines.serving.http.protocol import BoundedProtocol
from refold.pipelines.serving.settings import ENVIRONMENT, ServeSettings
from refold.pipelines.serving.supervisor_watch import stop_with_parent
from refold.pipelines.stop_signals import StopRequests

_OPTIONS: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "lifespan": "on",
    "http": BoundedProtocol,
    "timeout_keep_alive": 30,
    "timeout_graceful_shutdown": 30,  # as long as a request may take by default
}

_GC_THRESHOLD = 50_000
"""A request leaves almost no reference cycles, so rare collections are enough; each one delays all requests."""


def bind(host: str, port: int) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        UsageError: the address or the port is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {host}:{port}: {error.strerror or error}. Give another --host or --port; port 0 takes "
            "any free port."
        ) from error


def run(settings: ServeSettings, listening: socket.socket, *, workers: int, begin: Callable[[], None]) -> None:
    """Serve until a signal stops the process.

    Args:
        settings: of the server.
        listening: from :func:`bind`.
        workers: the number of processes.
        begin: called when the settings are valid, just before the server accepts requests.

    Raises:
        RefoldError: the server could not start, or its stream failed.
    """
    app = create_app(settings)  # also before workers start, so that an invalid setting is reported once
    begin()
    if workers > 1:
        _run_workers(settings, listening, workers)
        return
    _collect_rarely()
    server = _Server(uvicorn.Config(app, **_OPTIONS))
    server.run(sockets=[listening])
    if app.failure is not None:
        raise RefoldError(f"The stream of this server failed, so the server ended: {app.failure}") from app.failure
    if not server.started:
        raise RefoldError("The server could not start; see the messages above.")


class _Server(uvicorn.Server):
    """Drains at the first request to stop, and ends at once at a later one."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._requests = StopRequests(
            first=lambda: setattr(self, "should_exit", True), again=lambda: setattr(self, "force_exit", True)
        )
        self._requests.install()  # also for signals that come before uvicorn takes them, or after

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._requests(sig, frame)


def _run_workers(settings: ServeSettings, listening: socket.socket, workers: int) -> None:
    os.environ[ENVIRONMENT] = settings.dump()
    config = uvicorn.Config(f"{__name__}:from_environment", factory=True, workers=workers, **_OPTIONS)
    supervisor = Multiprocess(config, sockets=[listening])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise RefoldError("A worker could not start; see the messages above.")


def from_environment() -> Application:
    """Create the application of a worker process, which stops with its supervisor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor ends its workers
    stop_with_parent()
    app = create_app(ServeSettings.load(os.environ))
    _collect_rarely()
    return app


def _collect_rarely() -> None:
    """Set up the garbage collector of a process that does nothing but serve; a library function must not do this."""
    gc.freeze()  # what is loaded by now stays, so no collection needs to visit it
    gc.set_threshold(_GC_THRESHOLD)
