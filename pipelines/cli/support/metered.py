"""``--metrics-port``: Prometheus metrics of a command, for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from refold.pipelines.metrics import Metrics
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.generations.generations import Generation, Generations

F = TypeVar("F", bound=Callable[..., Any])


def metrics_option(function: F) -> F:
    """Add ``--metrics-port``; the command gets ``metrics_port``."""
    return click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve Prometheus metrics at 127.0.0.1:PORT while this runs; 0 takes any port that is free.",
    )(function)


@contextmanager
def metered(port: int | None) -> Iterator[Metrics]:
    """Give metrics, served if there is a port; where, is told on stderr."""
    from refold.pipelines.cli.support.output import aside
    from refold.pipelines.metrics import Metrics, serve_metrics

    if port is None:
        yield Metrics()
        return
    metrics = serve_metrics(port)
    try:
        aside(f"Metrics at http://127.0.0.1:{metrics.port}/metrics")
        yield metrics
    finally:
        metrics.close()


def tell_log(metrics: Metrics, log: EventLog) -> None:
    """Tell where the log ends."""
    from refold.warehouse.read_models.lag import find_end

    end = find_end(log)
    metrics.log_moved(end.position, end.recorded_at, end.unsealed)


def tell_generation(metrics: Metrics, log: EventLog, generations: Generations, generation: Generation) -> None:
    """Tell where a generation's read models stand, and what they go without if its file is at hand."""
    from refold.pipelines.cli.support.published import open_generation
    from refold.warehouse.read_models.dead_letters.dead_letters import count_dead_letters
    from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of

    end = find_end(log)
    metrics.log_moved(end.position, end.recorded_at, end.unsealed)
    lag = lag_of(log, end, checkpoint_of(generation))
    metrics.read_models_at(generation.position, lag.events, lag.seconds, sorted(generation.tables))
    if generations.store.is_local:
        with open_generation(generations, generation) as connection:
            metrics.dead_letters({name: undecided for name, (undecided, _) in count_dead_letters(connection).items()})
