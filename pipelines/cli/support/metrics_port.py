"""Prometheus metrics of a command, served at ``--metrics-port`` while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refold.pipelines.metrics import Metrics
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.generations.generations import Generation, Generations


@contextmanager
def metered(port: int | None) -> Iterator[Metrics]:
    """Yield metrics; with a port they are served, and their URL is printed on stderr."""
    from refold.pipelines.cli.support.output import print_note
    from refold.pipelines.metrics import Metrics, serve_metrics

    if port is None:
        yield Metrics()
        return
    metrics = serve_metrics(port)
    try:
        print_note(f"Metrics at http://127.0.0.1:{metrics.port}/metrics")
        yield metrics
    finally:
        metrics.close()


def measure_log(metrics: Metrics, log: EventLog) -> None:
    """Measure where the log ends."""
    from refold.warehouse.read_models.lag import find_end

    end = find_end(log)
    metrics.log_moved(end.position, end.appended_at, end.unsealed)


def measure_generation(metrics: Metrics, log: EventLog, generations: Generations, generation: Generation) -> None:
    """Measure a generation's position and lag, and its dead letters if its file is local."""
    from refold.pipelines.cli.support.published import open_generation
    from refold.warehouse.read_models.dead_letters.dead_letters import count_dead_letters
    from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of

    end = find_end(log)
    metrics.log_moved(end.position, end.appended_at, end.unsealed)
    lag = lag_of(log, end, checkpoint_of(generation))
    metrics.read_models_at(generation.position, lag.events, lag.seconds, sorted(generation.tables))
    if generations.store.is_local:
        with open_generation(generations, generation) as connection:
            metrics.dead_letters({name: undecided for name, (undecided, _) in count_dead_letters(connection).items()})
