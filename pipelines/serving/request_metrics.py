"""Metrics of a server process: ASGI middleware that measures each request, and the text that Prometheus reads."""

from __future__ import annotations

import time

from prometheus_client import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refold.pipelines.metrics import Metrics, nan_if_unknown
from refold.pipelines.serving.log_tail import LogTail
from refold.warehouse.queries.read_source import ReadPosition

_NO_RESPONSE = 499
"""The status of a request whose client disconnected before the response."""


class MetricsMiddleware:
    """ASGI middleware that counts and times each request.

    Args:
        app: the application to measure.
        metrics: those of the server process.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._requests = metrics["refold_http_requests_total"]
        self._seconds = metrics["refold_http_request_seconds"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record its route, status and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _NO_RESPONSE
        started = time.perf_counter()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except BaseException:
            status = 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "none")  # the template of the path, so there are few
            self._requests.labels(route, str(status)).inc()
            self._seconds.labels(route).observe(time.perf_counter() - started)


def exposition(metrics: Metrics, tail: LogTail, shown: ReadPosition | None) -> bytes:
    """Return the metrics in the text format of Prometheus.

    Args:
        metrics: those of the server process.
        tail: knows the end of the log.
        shown: what responses show; None if nothing is published.
    """
    end = tail.end
    metrics.log_moved(end.position, end.appended_at, end.unsealed)
    if shown is not None:
        lag = tail.lag(shown.position)
        metrics["refold_served_position"].set(shown.position)
        metrics["refold_served_lag_events"].set(lag.events)
        metrics["refold_served_lag_seconds"].set(nan_if_unknown(lag.seconds))
    return generate_latest(metrics.registry)
