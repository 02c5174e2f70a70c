"""``refold status``: how far the log is, what is published, and how far that lags behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.cli.support.status_report import StatusReport

OBJECTIVE_MISSED = 4

_EXAMPLE = """\
refold status
refold status --json --max-lag 5s --max-idle 1h
refold status --watch --interval 1s"""


@click.command(cls=Command, example=_EXAMPLE)
@click.option(
    "--max-lag",
    type=DURATION,
    metavar="DURATION",
    help="Exit with code 4 if the read models lag further behind: 5s, 2m, 1h, or a number of seconds.",
)
@click.option(
    "--max-idle",
    type=DURATION,
    metavar="DURATION",
    help="Exit with code 4 if nothing was appended to the log for longer.",
)
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=DURATION, default=2.0, metavar="DURATION", help="Time between looks; 2s by default.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="With --watch: end after so many looks.")
@common_options("domain", "log", "read_models")
@pass_invocation
def status(
    call: Invocation,
    max_lag: float | None,
    max_idle: float | None,
    watch: bool,
    interval: float,
    count: int | None,
) -> None:
    """Show the log's end, the newest generation, the live stream, and the lag between them.

    The lag in seconds is the age of the oldest event that the read models do not show yet, and 0 when they show all.
    With --watch it is shown anew in place on a terminal, on a further line elsewhere, as a document a line with --json.
    """
    from refold.pipelines.cli.support.status_report import look

    if count is not None and not watch:
        raise click.UsageError("--count is for --watch.")
    if watch:
        from refold.pipelines.cli.support.watch import watch_standing

        seen = watch_standing(call, interval=interval, count=count)
        if seen is None:
            return
    else:
        seen = look(call)
        _print(call, seen)
    if _missed(seen, max_lag, max_idle):
        raise click.exceptions.Exit(OBJECTIVE_MISSED)


def _print(call: Invocation, seen: StatusReport) -> None:
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support import status_report as standing

    if call.json:
        output.print_json(standing.document(seen))
    else:
        for line in standing.lines(seen):
            output.say(line)
        if table := standing.rows(seen):
            output.print_table(standing.COLUMNS, table)
    if seen.newest and seen.foreign:
        output.aside(
            f"Generation {seen.newest.number} was made from another log than this one, so their positions cannot be "
            "compared. Give the --log it was made from, or run `refold rebuild`."
        )


def _missed(seen: StatusReport, max_lag: float | None, max_idle: float | None) -> bool:
    """Tell of every objective that was missed."""
    from refold.pipelines.cli.support import output

    late = max_lag is not None and (seen.lag.seconds is None or seen.lag.seconds > max_lag)
    if late:
        output.aside(f"The lag is beyond --max-lag {_seconds(max_lag)}.")
    idle = max_idle is not None and (seen.idle is None or seen.idle > max_idle)
    if idle:
        since = f"since {output.moment(seen.end.recorded_at)}" if seen.end.recorded_at else "ever"
        output.aside(f"The log is idle beyond --max-idle {_seconds(max_idle)}: nothing was appended {since}.")
    return late or idle


def _seconds(given: float | None) -> str:
    return f"{given:g} s"
