"""``refold stream``: read models follow the log."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.metered import metered, metrics_option, tell_generation

if TYPE_CHECKING:
    from refold.pipelines.metrics import Metrics
    from refold.pipelines.stream.stream import ProgressReport, Streamed
    from refold.warehouse.event_log.log import EventLog

_EXAMPLE = """\
refold stream
refold stream --once
refold stream --publish-every 60 --json"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option("--once", is_flag=True, help="Stop when the end of the log is reached.")
@click.option("--until", type=click.IntRange(min=1), metavar="POSITION", help="Stop when this position is shown.")
@click.option(
    "--publish-every",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How often a generation is published, if anything changed.",
)
@click.option(
    "--no-rebuild",
    is_flag=True,
    help="Catch up by increments, however large the backlog; by default a rebuild comes first when it is cheaper.",
)
@metrics_option
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def stream(
    call: Invocation, once: bool, until: int | None, publish_every: float, no_rebuild: bool, metrics_port: int | None
) -> None:
    """Follow the log: apply new events within a fraction of a second, and publish them now and then.

    An event that cannot be applied goes to refold.dead_letters, and the rest goes on. Ctrl-C and SIGTERM drain: what is
    applied is published, then the stream ends. One that was killed goes on where the newest generation stands.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.support import output
    from refold.pipelines.stream.stream import stream as follow

    with metered(metrics_port) as metrics:
        done = follow(
            log,
            call.domain_ref,
            call.settings.read_models,
            options,
            once=once,
            until=until,
            publish_every=publish_every,
            rebuild_if_cheaper=not no_rebuild,
            stop=_told_to_stop(),
            report=_Telling(call, log, metrics),
        )
    if call.json:
        output.print_json(_document(done))
    else:
        batches = f"{done.micro_batches:,} micro-batch{'' if done.micro_batches == 1 else 'es'}"
        output.say(
            f"The read models are at position {done.position:,}, generation {done.generation}: applied "
            f"{output.plural(done.events, 'event')} in {batches}."
        )
    if done.dead_letters:
        output.aside(
            f"{output.plural(done.dead_letters, 'event')} could not be applied: see `refold dead-letters list`."
        )


def _told_to_stop() -> Callable[[], bool]:
    """Give a function that says whether Ctrl-C or SIGTERM came; a second one stops at once.

    A handler runs in the middle of anything, so it takes no lock: it leaves a note.
    """
    told: list[int] = []

    def drain(number: int, _frame: object) -> None:
        told.append(number)
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, drain)
    return lambda: bool(told)


class _Telling:
    """Tells people on stderr, and whoever scrapes metrics, what happens.

    Args:
        call: of the command.
        log: the log.
        metrics: where to tell it.
    """

    def __init__(self, call: Invocation, log: EventLog, metrics: Metrics) -> None:
        self._call = call
        self._log = log
        self._metrics = metrics
        self._names = [model.name for model in call.domain.read_models]

    def __call__(self, moment: ProgressReport) -> None:
        """Take what the stream reports."""
        from refold.pipelines.cli.support import output

        if moment.text and not self._call.json:
            output.aside(moment.text)
        if moment.what == "micro_batch":
            self._metrics.micro_batch(moment.events, moment.seconds)
        elif moment.what == "publish" and moment.seconds:
            self._metrics.published(moment.generation, moment.seconds)
            self._tell_dead_letters(moment.generation)
        elif moment.end and moment.lag:
            self._metrics.log_moved(moment.end.position, moment.end.recorded_at, moment.end.unsealed)
            self._metrics.read_models_at(moment.position, moment.lag.events, moment.lag.seconds, self._names)

    def _tell_dead_letters(self, number: int) -> None:
        if self._metrics.port is not None:
            generations = self._call.open_generations()
            tell_generation(self._metrics, self._log, generations, generations.get(number))


def _document(done: Streamed) -> dict[str, object]:
    return {**asdict(done), "seconds": round(done.seconds, 3)}
