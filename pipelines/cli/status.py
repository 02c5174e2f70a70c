"""``refold status``: the end of the log, the newest generation, the live stream, and the lag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.cli.support.exit_codes import OBJECTIVE_MISSED
from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.cli.support.status_report import StatusReport

_EXAMPLE = """\
refold status
refold status --json --max-lag 5s --max-idle 1h
refold status --watch --interval 1s"""


@click.command(cls=Command, example=_EXAMPLE)
@click.option(
    "--max-lag",
    type=DURATION,
    metavar="DURATION",
    help="Exit with code 4 if the lag is longer: 5s, 2m, 1h, or a number of seconds.",
)
@click.option(
    "--max-idle",
    type=DURATION,
    metavar="DURATION",
    help="Exit with code 4 if the last append is longer ago.",
)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=DURATION,
    default=2.0,
    metavar="DURATION",
    help="With --watch: time between two reads; 2s by default.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="With --watch: end after N reads.")
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
    """Show how far the read models lag behind the log.

    The lag in seconds is the age of the oldest event that the read models do not show yet; 0 if they show all. With
    --watch the status is updated in place on a terminal; elsewhere each read is a line, with --json a JSON document.
    """
    from refold.pipelines.cli.support.status_report import read_status

    if count is not None and not watch:
        raise click.UsageError("--count needs --watch.")
    if watch:
        from refold.pipelines.cli.support.watch import watch_status

        seen = watch_status(call, interval=interval, count=count)
        if seen is None:
            return
    else:
        seen = read_status(call)
        _print(call, seen)
    if _missed(seen, max_lag, max_idle):
        raise click.exceptions.Exit(OBJECTIVE_MISSED)


def _print(call: Invocation, seen: StatusReport) -> None:
    from refold.pipelines.cli.support import output, status_report

    if call.json:
        output.print_json(status_report.document(seen))
    else:
        for line in status_report.lines(seen):
            output.print_text(line)
        if table := status_report.rows(seen):
            output.print_table(status_report.COLUMNS, table)
    if seen.newest and seen.foreign:
        output.print_note(
            f"Generation {seen.newest.number} was built from another log, so its position cannot be compared with this "
            "one's. Give the --log that it was built from, or run `refold rebuild`."
        )


def _missed(seen: StatusReport, max_lag: float | None, max_idle: float | None) -> bool:
    """Report every objective that was missed."""
    from refold.pipelines.cli.support import output

    late = max_lag is not None and (seen.lag.seconds is None or seen.lag.seconds > max_lag)
    if late:
        unknown = f"unknown, so not below --max-lag {_seconds(max_lag)}: {seen.lag.ahead}" if seen.lag.ahead else ""
        unknown = unknown if seen.lag.seconds is None else ""
        output.print_note(f"The lag is {unknown or f'above --max-lag {_seconds(max_lag)}'}.")
    idle = max_idle is not None and (seen.idle is None or seen.idle > max_idle)
    if idle:
        at = output.format_time(seen.end.recorded_at)
        last = f"the last append was at {at}" if at else "nothing was appended yet"
        if seen.idle is None and seen.end.ahead:
            last = f"it is unknown when the last append was, since {seen.end.ahead}"
        output.print_note(f"The log is idle for longer than --max-idle {_seconds(max_idle)}: {last}.")
    return late or idle


def _seconds(given: float | None) -> str:
    return f"{given:g} s"
