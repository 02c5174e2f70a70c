"""``refold stream``: read models follow the log."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pipelines.commands.invocation import BeamCommand, Invocation, common_options, pass_invocation

if TYPE_CHECKING:
    from pipelines.stream import Moment, Streamed

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
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def stream(call: Invocation, once: bool, until: int | None, publish_every: float, no_rebuild: bool) -> None:
    """Follow the log: apply new events within a fraction of a second, and publish them now and then.

    An event that cannot be applied goes to refold.dead_letters, and the rest goes on. Ctrl-C and SIGTERM drain: what is
    applied is published, then the stream ends. One that was killed goes on where the newest generation stands.
    """
    log, options = call.open_log(), call.beam_options()

    from pipelines.commands import output
    from pipelines.stream import stream as follow

    stop = _stop_when_told()
    url, domain = call.settings.read_models, call.settings.domain
    done = follow(
        log,
        domain,
        url,
        options,
        once=once,
        until=until,
        publish_every=publish_every,
        rebuild_if_cheaper=not no_rebuild,
        stop=stop,
        report=_tell(call.json),
    )
    if call.json:
        output.print_json(_document(done))
    else:
        output.say(
            f"Stands at position {done.position:,}, generation {done.generation}: "
            f"{output.plural(done.events, 'event')} in {output.plural(done.turns, 'turn')}."
        )
    if done.dead_letters:
        output.aside(
            f"{output.plural(done.dead_letters, 'event')} could not be applied: see "
            '`refold query "FROM refold.dead_letters"`.'
        )


def _stop_when_told() -> threading.Event:
    """Give an event that Ctrl-C and SIGTERM set; a second Ctrl-C stops at once."""
    stop = threading.Event()

    def drain(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, drain)
    return stop


def _tell(as_json: bool) -> Callable[[Moment], None]:
    from pipelines.commands import output

    def tell(moment: Moment) -> None:
        if moment.text and not as_json:
            output.aside(moment.text)

    return tell


def _document(done: Streamed) -> dict[str, object]:
    return {**asdict(done), "seconds": round(done.seconds, 3)}
