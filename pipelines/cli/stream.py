"""``refold stream``: follows the log and keeps the read models current."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.metrics_port import measure_generation, metered
from refold.pipelines.cli.support.options import max_outage_option, metrics_port_option, publish_every_option

if TYPE_CHECKING:
    from refold.pipelines.cli.progress import Display
    from refold.pipelines.metrics import Metrics
    from refold.pipelines.stream.stream import ProgressReport, Streamed
    from refold.warehouse.event_log.log import EventLog

_EXAMPLE = """\
refold stream
refold stream --once
refold stream --publish-every 60 --json"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option("--once", is_flag=True, help="Stop at the end of the log.")
@click.option(
    "--until", type=click.IntRange(min=1), metavar="POSITION", help="Stop when the read models show this position."
)
@publish_every_option
@max_outage_option
@click.option(
    "--no-rebuild",
    is_flag=True,
    help="Apply a large backlog by increments even where a rebuild is faster. New and changed read models are "
    "rebuilt anyway.",
)
@metrics_port_option
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def stream(
    call: Invocation,
    once: bool,
    until: int | None,
    publish_every: float,
    max_outage: float,
    no_rebuild: bool,
    metrics_port: int | None,
) -> None:
    """Follow the log and keep the read models current.

    New events are applied within a fraction of a second, and published as generations at intervals. An event that
    cannot be applied goes to refold.dead_letters. Ctrl-C and SIGTERM drain: the stream publishes what it has applied,
    then ends. After a crash, it resumes from the newest generation.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import display
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.signals import drain_when_stopped
    from refold.pipelines.stream.stream import stream as follow

    with metered(metrics_port) as metrics, display(quiet=call.quiet, bars=False) as shown:
        done = follow(
            log,
            call.domain_ref,
            call.settings.read_models,
            options,
            once=once,
            until=until,
            publish_every=publish_every,
            max_outage=max_outage,
            rebuild_if_cheaper=not no_rebuild,
            stop=drain_when_stopped(),
            report=_Reporter(call, log, metrics, shown),
        )
    if call.json:
        output.print_json(_document(done))
    else:
        batches = output.counted(done.micro_batches, "micro-batch", "micro-batches")
        output.print_text(
            f"Stopped at position {done.position:,}, generation {done.generation}: applied "
            f"{output.counted(done.events, 'event')} in {batches}."
        )
    if done.dead_letters:
        output.print_note(f"{output.counted(done.dead_letters, 'new dead letter')}: see `refold dead-letters list`.")


class _Reporter:
    """Reports a stream's progress on stderr and in the metrics.

    Args:
        call: the invocation.
        log: the log.
        metrics: the metrics to update.
        shown: shows a line now and then where there is no terminal.
    """

    def __init__(self, call: Invocation, log: EventLog, metrics: Metrics, shown: Display) -> None:
        self._call = call
        self._log = log
        self._metrics = metrics
        self._shown = shown
        shown.enter("stream")
        self._names = [model.name for model in call.domain.read_models]

    def __call__(self, progress: ProgressReport) -> None:
        """Take a report of the stream."""
        from refold.pipelines.cli.support import output
        from refold.pipelines.cli.support.status_report import lag_text

        if progress.text and not self._call.json:
            output.print_note(progress.text)
        if progress.what == "micro_batch":
            self._metrics.micro_batch(progress.events, progress.seconds)
        elif progress.what == "publish" and progress.seconds:
            self._metrics.published(progress.generation, progress.seconds)
            self._measure_dead_letters(progress.generation)
        elif progress.end and progress.lag:
            self._metrics.log_moved(progress.end.position, progress.end.appended_at, progress.end.unsealed)
            self._metrics.read_models_at(progress.position, progress.lag.events, progress.lag.seconds, self._names)
            self._shown.update(
                progress.position,
                progress.end.position,
                f"position {progress.position:,} of {progress.end.position:,}, lag {lag_text(progress.lag)}",
            )

    def _measure_dead_letters(self, number: int) -> None:
        if self._metrics.port is not None:
            generations = self._call.open_generations()
            measure_generation(self._metrics, self._log, generations, generations.get(number))


def _document(done: Streamed) -> dict[str, object]:
    return {**asdict(done), "seconds": round(done.seconds, 3)}
