"""The server: one uvicorn process, or a supervisor of many."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from refold.event_schemas import RefoldError, UsageError
from refold.pipelines.serving.app import create_app
from refold.pipelines.serving.http.protocol import BoundedProtocol
from refold.pipelines.serving.settings import ENVIRONMENT, ServeSettings

_KEEP_ALIVE_SECONDS = 30
_DRAIN_SECONDS = 30


def bind(host: str, port: int) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        UsageError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"Cannot listen at {host}:{port}: {error.strerror or error}. Give another --host or --port; port 0 takes "
            "any that is free."
        ) from error


def run(settings: ServeSettings, listening: socket.socket, *, workers: int, begin: Callable[[], None]) -> None:
    """Serve until told to stop.

    Args:
        settings: how to serve.
        listening: from :func:`bind`.
        workers: how many processes.
        begin: called when the settings are found good, just before requests are taken.

    Raises:
        RefoldError: it could not start, or its stream failed.
    """
    options = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
        "http": BoundedProtocol,
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": _DRAIN_SECONDS,
    }
    app = create_app(settings)  # for many workers too: what is wrong with the settings is said here, once
    begin()
    if workers == 1:
        server = uvicorn.Server(uvicorn.Config(app, **options))  # type: ignore[arg-type]
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises again, at its end, what it was ended by
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        server.run(sockets=[listening])
        if app.failure is not None:
            raise RefoldError(f"The stream failed: {app.failure}") from app.failure
        if not server.started:
            raise RefoldError("The server could not start; what it said above tells why.")
        return
    os.environ[ENVIRONMENT] = settings.dump()
    config = uvicorn.Config("refold.pipelines.serving.app:from_environment", factory=True, workers=workers, **options)  # type: ignore[arg-type]
    supervisor = Multiprocess(config, sockets=[listening])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise RefoldError("A worker could not start; what it said above tells why.")
