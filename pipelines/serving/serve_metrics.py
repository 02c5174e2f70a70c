"""Measuring: Prometheus metrics of a server process."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refold.pipelines.metrics import Metrics
from refold.pipelines.serving.log_tail import LogWatch
from refold.warehouse.queries.readers import ReadPosition

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Measured:
    """What a server process tells of itself; what it serves is told as all pipelines tell it.

    Attributes:
        registry: where the metrics are kept.
        pipeline: those that every pipeline has; a stream in this process tells of its turns there.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pipeline = Metrics(self.registry)
        self._requests = Counter(
            "refold_http_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "refold_http_request_seconds",
            "How long they took.",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._served = Gauge(
            "refold_served_position", "Position up to which answers show events.", registry=self.registry
        )
        self._lag_events = Gauge("refold_served_lag_events", "Events that answers do not show.", registry=self.registry)
        self._lag_seconds = Gauge("refold_served_lag_seconds", "Age of the oldest of those.", registry=self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Tell of a request; a route is its template, so that there are few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, watch: LogWatch, standing: ReadPosition | None) -> bytes:
        """Give everything as Prometheus reads it."""
        end = watch.end
        self.pipeline.log_moved(end.position, end.recorded_at, end.unsealed)
        if standing is not None:
            lag = watch.lag(standing.position)
            self._served.set(standing.position)
            self._lag_events.set(lag.events)
            self._lag_seconds.set(float("nan") if lag.seconds is None else lag.seconds)
        return generate_latest(self.registry)


class Measuring:
    """ASGI middleware that tells of each request."""

    def __init__(self, app: ASGIApp, measured: Callable[[], Measured]) -> None:
        self._app = app
        self._measured = measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and take its time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._measured().answered(route, status, time.perf_counter() - started)
