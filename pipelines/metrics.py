"""Prometheus metrics: what a pipeline that runs tells to whoever scrapes it.

Each ``Metrics`` has a registry of its own, so that one process can have several. Without a port it is kept and not
served: then callers need not ask whether anybody looks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from refold.event_schemas import UsageError

if TYPE_CHECKING:
    from refold.pipelines.rebuild.replay import RebuildProgress

_TURN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """What a pipeline tells of itself.

    Args:
        registry: where the metrics are kept; a new one by default.

    Attributes:
        registry: the same.
        port: where they are served; None if they are not.

    Example:
        >>> metrics = Metrics()
        >>> metrics.turn(events=3, seconds=0.2)
        >>> metrics.registry.get_sample_value("refold_stream_events_total")
        3.0
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.port: int | None = None
        self._served: tuple[WSGIServer, threading.Thread] | None = None
        gauge = self._gauge
        self._log_position = gauge("refold_log_position", "Position of the last event of the log.")
        self._log_recorded = gauge("refold_log_last_recorded_timestamp_seconds", "When that was recorded, Unix time.")
        self._unsealed = gauge("refold_log_unsealed_events", "Events that are not sealed yet.")
        self._position = gauge("refold_read_model_position", "Position up to which it shows events.", "read_model")
        self._lag_events = gauge("refold_read_model_lag_events", "Events that it does not show yet.", "read_model")
        self._lag_seconds = gauge("refold_read_model_lag_seconds", "Age of the oldest of those.", "read_model")
        self._turns = Counter("refold_stream_turns", "Turns of the live stream.", registry=self.registry)
        self._events = Counter("refold_stream_events", "Events that it applied.", registry=self.registry)
        self._turn_seconds = Histogram(
            "refold_stream_turn_seconds", "How long a turn took.", buckets=_TURN_BUCKETS, registry=self.registry
        )
        self._generation = gauge("refold_published_generation", "Number of the last generation published here.")
        self._publish_seconds = gauge("refold_publish_seconds", "How long it took to build and publish it.")
        self._done = gauge("refold_rebuild_units_done", "Staged objects so far.")
        self._planned = gauge("refold_rebuild_units_planned", "Staged objects in all.")
        self._replayed = gauge("refold_rebuild_events", "Events to replay in all.")
        self._letters = gauge("refold_dead_letters", "Open dead letters.", "read_model")

    def _gauge(self, name: str, text: str, *labels: str) -> Any:
        return Gauge(name, text, labels, registry=self.registry)

    def log_moved(self, head_position: int, head_recorded_at: str, unsealed: int) -> None:
        """Tell where the log ends.

        Args:
            head_position: of its last event.
            head_recorded_at: when that was recorded, RFC 3339; empty for an empty log.
            unsealed: events that are not sealed yet.
        """
        self._log_position.set(head_position)
        self._unsealed.set(unsealed)
        if head_recorded_at:
            self._log_recorded.set(datetime.fromisoformat(head_recorded_at).timestamp())

    def read_models_at(self, position: int, lag_events: int, lag_seconds: float | None, names: Iterable[str]) -> None:
        """Tell where read models stand, and how far they are behind the log; a lag of None is not known."""
        for name in names:
            self._position.labels(name).set(position)
            self._lag_events.labels(name).set(lag_events)
            self._lag_seconds.labels(name).set(float("nan") if lag_seconds is None else lag_seconds)

    def turn(self, events: int, seconds: float) -> None:
        """Tell of a turn of the live stream."""
        self._turns.inc()
        self._events.inc(events)
        self._turn_seconds.observe(seconds)

    def published(self, generation: int, seconds: float) -> None:
        """Tell that a generation was published, and how long it took to build and publish it."""
        self._generation.set(generation)
        self._publish_seconds.set(seconds)

    def rebuild_progress(self, done: int, planned: int, events: int) -> None:
        """Tell how far a rebuild is: staged objects of those planned, and events to replay in all."""
        self._done.set(done)
        self._planned.set(planned)
        self._replayed.set(events)

    def report(self, progress: RebuildProgress) -> None:
        """Take what a rebuild reports; phases that count nothing leave what was told before."""
        if progress.planned:
            self.rebuild_progress(progress.done, progress.planned, progress.events)

    def dead_letters(self, counts: Mapping[str, int]) -> None:
        """Tell how many dead letters of each read model are open; one that is not named has none."""
        self._letters.clear()
        for name, count in counts.items():
            self._letters.labels(name).set(count)

    def serve(self, port: int, host: str) -> None:
        """Serve them over HTTP from a thread of this process, until ``close``."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"Metrics cannot be served at {host}:{port}: {reason}. Give another --metrics-port; 0 takes any that "
                "is free."
            ) from error
        self._served, self.port = (server, thread), server.server_port

    def close(self) -> None:
        """Stop serving them, if they were served."""
        if self._served is None:
            return
        server, thread = self._served
        server.shutdown()
        server.server_close()
        thread.join()
        self._served, self.port = None, None


def serve_metrics(port: int, host: str = "127.0.0.1") -> Metrics:
    """Make metrics, and serve them at ``http://host:port/metrics`` until they are closed.

    Args:
        port: where; 0 takes any that is free, and ``Metrics.port`` tells which.
        host: the address to listen on; only this machine by default.

    Raises:
        UsageError: the port is taken, or out of range.
    """
    metrics = Metrics()
    metrics.serve(port, host)
    return metrics
