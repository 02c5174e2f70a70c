"""Prometheus metrics: one table declares every metric of refold, and each process exposes those of its kind.

A ``Metrics`` object has its own registry, so one process can have several. Without a port it records and serves
nothing: callers need not check whether somebody scrapes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from refold.event_schemas import UsageError

if TYPE_CHECKING:
    from refold.pipelines.rebuild.replay import RebuildProgress

_MICRO_BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The declaration of one metric.

    Attributes:
        name: as Prometheus reads it; ``_total`` ends a counter's name.
        kind: its Prometheus type.
        help: one sentence.
        labels: names of its labels.
        buckets: of a histogram, in seconds.
        server_only: only ``refold serve`` exposes it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    server_only: bool = False

    def reference_row(self) -> str:
        """Return the row of the metric in ``docs/reference/metrics.md``.

        Example:
            >>> METRICS[0].reference_row()
            '| `refold_log_position` | gauge | Position of the last event in the log. |'
        """
        labels = f"{{{','.join(self.labels)}}}" if self.labels else ""
        return f"| `{self.name}{labels}` | {self.kind} | {self.help} |"

    def create(self, registry: CollectorRegistry) -> Any:
        """Create the metric in a registry."""
        if self.kind == "histogram":
            return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)
        return (Counter if self.kind == "counter" else Gauge)(self.name, self.help, self.labels, registry=registry)


def _gauge(name: str, text: str, *labels: str, server_only: bool = False) -> Metric:
    return Metric(name=name, kind="gauge", help=text, labels=labels, server_only=server_only)


def _counter(name: str, text: str, *labels: str, server_only: bool = False) -> Metric:
    return Metric(name=name, kind="counter", help=text, labels=labels, server_only=server_only)


METRICS = (
    _gauge("refold_log_position", "Position of the last event in the log."),
    _gauge(
        "refold_log_last_recorded_timestamp_seconds",
        "Unix time at which that event was appended, also if the clock of its writer was ahead.",
    ),
    _gauge("refold_log_unsealed_events", "Events that are not sealed yet."),
    _gauge("refold_read_model_position", "Position of the last event that the read model shows.", "read_model"),
    _gauge("refold_read_model_lag_events", "Events that the read model does not show yet.", "read_model"),
    _gauge("refold_read_model_lag_seconds", "Age of the oldest of those events; NaN if it is unknown.", "read_model"),
    _counter("refold_stream_micro_batches_total", "Micro-batches of the stream."),
    _counter("refold_stream_events_total", "Events that the stream applied."),
    Metric(
        name="refold_stream_micro_batch_seconds",
        kind="histogram",
        help="Duration of a micro-batch in seconds.",
        buckets=_MICRO_BATCH_BUCKETS,
    ),
    _gauge("refold_published_generation", "Number of the last generation that this process published."),
    _gauge("refold_publish_seconds", "Time to build and publish that generation, in seconds."),
    _gauge("refold_rebuild_units_done", "Staged objects that the rebuild has finished."),
    _gauge("refold_rebuild_units_planned", "Staged objects that the rebuild plans."),
    _gauge("refold_rebuild_events", "Events to replay, counted once for each read model that reads them."),
    _gauge("refold_dead_letters", "Open dead letters.", "read_model"),
    _counter("refold_http_requests_total", "HTTP responses.", "route", "status", server_only=True),
    Metric(
        name="refold_http_request_seconds",
        kind="histogram",
        help="Duration of a request in seconds.",
        labels=("route",),
        buckets=_REQUEST_BUCKETS,
        server_only=True,
    ),
    _gauge("refold_served_position", "Position of the last event that responses show.", server_only=True),
    _gauge("refold_served_lag_events", "Events that responses do not show yet.", server_only=True),
    _gauge("refold_served_lag_seconds", "Age of the oldest of those events; NaN if it is unknown.", server_only=True),
)
"""Every metric of refold."""


class Metrics:
    """The metrics of one pipeline or server process.

    Args:
        server: include the metrics of ``refold serve``.

    Attributes:
        registry: holds the metrics.
        port: where they are served; None if they are not.

    Example:
        >>> metrics = Metrics()
        >>> metrics.micro_batch(events=3, seconds=0.2)
        >>> metrics.registry.get_sample_value("refold_stream_events_total")
        3.0
    """

    def __init__(self, *, server: bool = False) -> None:
        self.registry = CollectorRegistry()
        self.port: int | None = None
        self._exporter: tuple[WSGIServer, threading.Thread] | None = None
        self._metrics = {m.name: m.create(self.registry) for m in METRICS if server or not m.server_only}

    def __getitem__(self, name: str) -> Any:
        """Return a metric by its name in :data:`METRICS`."""
        return self._metrics[name]

    def log_moved(self, head_position: int, head_appended_at: str, unsealed: int) -> None:
        """Record the end of the log.

        Args:
            head_position: of the last event.
            head_appended_at: when that event was appended, RFC 3339; empty for an empty log, or if it is unknown.
            unsealed: events that are not sealed yet.
        """
        self["refold_log_position"].set(head_position)
        self["refold_log_unsealed_events"].set(unsealed)
        if head_appended_at:
            recorded = datetime.fromisoformat(head_appended_at).timestamp()
            self["refold_log_last_recorded_timestamp_seconds"].set(recorded)

    def read_models_at(self, position: int, lag_events: int, lag_seconds: float | None, names: Iterable[str]) -> None:
        """Record the position of read models and their lag; a lag of None seconds is unknown."""
        for name in names:
            self["refold_read_model_position"].labels(name).set(position)
            self["refold_read_model_lag_events"].labels(name).set(lag_events)
            self["refold_read_model_lag_seconds"].labels(name).set(nan_if_unknown(lag_seconds))

    def micro_batch(self, events: int, seconds: float) -> None:
        """Record a micro-batch of the stream."""
        self["refold_stream_micro_batches_total"].inc()
        self["refold_stream_events_total"].inc(events)
        self["refold_stream_micro_batch_seconds"].observe(seconds)

    def published(self, generation: int, seconds: float) -> None:
        """Record that a generation was published, and the time to build and publish it."""
        self["refold_published_generation"].set(generation)
        self["refold_publish_seconds"].set(seconds)

    def report(self, progress: RebuildProgress) -> None:
        """Record the progress of a rebuild; a phase that plans no objects changes nothing."""
        if progress.planned:
            self["refold_rebuild_units_done"].set(progress.done)
            self["refold_rebuild_units_planned"].set(progress.planned)
            self["refold_rebuild_events"].set(progress.events)

    def dead_letters(self, counts: Mapping[str, int]) -> None:
        """Record the number of open dead letters of each read model; a read model that is not named has none."""
        self["refold_dead_letters"].clear()
        for name, count in counts.items():
            self["refold_dead_letters"].labels(name).set(count)

    def serve(self, port: int, host: str) -> None:
        """Serve the metrics over HTTP from a thread of this process, until ``close``."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"Metrics cannot be served at {host}:{port}: {reason}. Give another --metrics-port; 0 takes any free "
                "port."
            ) from error
        self._exporter, self.port = (server, thread), server.server_port

    def close(self) -> None:
        """Stop serving the metrics, if they are served."""
        if self._exporter is None:
            return
        server, thread = self._exporter
        server.shutdown()
        server.server_close()
        thread.join()
        self._exporter, self.port = None, None


def nan_if_unknown(seconds: float | None) -> float:
    """Return a duration as Prometheus shows it: NaN if it is unknown."""
    return float("nan") if seconds is None else seconds


def serve_metrics(port: int, host: str = "127.0.0.1") -> Metrics:
    """Serve new metrics at ``http://host:port/metrics`` until they are closed.

    Args:
        port: 0 takes any free port, which ``Metrics.port`` names.
        host: the address to listen on; loopback by default.

    Raises:
        UsageError: the port is in use or out of range.
    """
    metrics = Metrics()
    metrics.serve(port, host)
    return metrics
