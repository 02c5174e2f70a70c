"""``refold status``: how far the log is, what is published, and how far that lags behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pipelines.commands.invocation import Command, Invocation, common_options, pass_invocation

if TYPE_CHECKING:
    from warehouse.event_log.log import EventLog, Head
    from warehouse.read_models.generations import Generation

LAG_MISSED = 4


@dataclass(frozen=True, slots=True)
class Lag:
    """How far read models are behind the log.

    Attributes:
        events: events that they do not show yet.
        seconds: age of the oldest of those; 0 when there is none, None if it cannot be known.
    """

    events: int
    seconds: float | None


@click.command(cls=Command, example="refold status\nrefold status --json --max-lag 60")
@click.option(
    "--max-lag", type=float, metavar="SECONDS", help="Exit with code 4 if the read models lag further behind."
)
@common_options("domain", "log", "read_models")
@pass_invocation
def status(call: Invocation, max_lag: float | None) -> None:
    """Show the log's end, the newest generation, and the lag between them.

    The lag in seconds is the age of the oldest event that the read models do not show yet, and 0 when they show all.
    """
    from pipelines.commands import output
    from pipelines.commands.published import last_updated

    log, generations = call.open_log(), call.open_generations()
    # The generation first: the log never ends before what was made from it.
    newest = generations.newest()
    head = log.head()
    foreign = newest is not None and newest.log_id != log.log_id
    lag = Lag(head.position, None) if foreign else lag_of(log, head, newest)
    updated = last_updated(generations, newest) if newest else None
    if call.json:
        output.print_json(_document(log, head, newest, lag, updated))
    else:
        _print(call.settings.log, log, head, newest, lag, updated)
    if newest and foreign:
        output.aside(
            f"Generation {newest.number} was made from another log than this one, so their positions cannot be "
            "compared. Give the --log it was made from, or run `refold rebuild`."
        )
    if max_lag is not None and (lag.seconds is None or lag.seconds > max_lag):
        output.aside(f"The lag is beyond --max-lag {max_lag:g}.")
        raise click.exceptions.Exit(LAG_MISSED)


def lag_of(log: EventLog, head: Head, newest: Generation | None) -> Lag:
    """Measure the lag of a generation behind the end of its log, by the footer of the first commit it does not show."""
    seen, seen_commit = (newest.position, newest.commit_number) if newest else (0, 0)
    if head.position <= seen:
        return Lag(0, 0.0)
    unseen = (info.recorded_at for info in log.commits_after(seen_commit) if info.last_position > seen)
    # A commit that was sealed and collected came after what is shown: that says at most too much.
    since = next(unseen, datetime.fromisoformat(newest.recorded_at) if newest else None)
    if since is None:
        return Lag(head.position - seen, None)
    return Lag(head.position - seen, round(max((datetime.now(UTC) - since).total_seconds(), 0.0), 3))


def _document(log: EventLog, head: Head, newest: Generation | None, lag: Lag, updated: str | None) -> dict[str, object]:
    generation = newest and {
        "number": newest.number,
        "position": newest.position,
        "published_at": newest.published_at,
        "last_updated": updated,
        "bytes": newest.bytes,
    }
    tables = sorted(newest.tables.items()) if newest else []
    return {
        "domain": log.domain_name,
        "log": {
            "url": log.url,
            "position": head.position,
            "commit": head.commit,
            "recorded_at": head.recorded_at or None,
            "sealed_position": head.sealed.sealed_position,
        },
        "generation": generation,
        "lag": asdict(lag),
        "read_models": [
            {"name": name, "rows": table.rows, "position": newest.position, "last_updated": updated}
            for name, table in tables
            if newest
        ],
    }


def _print(url: str, log: EventLog, head: Head, newest: Generation | None, lag: Lag, updated: str | None) -> None:
    from pipelines.commands.output import duration, moment, plural, print_table, say

    unsealed = head.position - head.sealed.sealed_position
    say(f"Log         {url} (domain {log.domain_name})")
    if not head.position:
        say("            holds no events yet")
    else:
        recorded = moment(head.recorded_at)
        say(f"            position {head.position:,}, recorded at {recorded}; {unsealed:,} not sealed yet")
    if newest is None:
        say("Read models nothing published yet; `refold rebuild` builds and publishes them")
        return
    say(f"Generation  {newest.number} at position {newest.position:,}, published at {moment(newest.published_at)}")
    behind = "" if lag.seconds is None else f", {duration(lag.seconds)}"
    say(
        f"Lag         {plural(lag.events, 'event')}{behind}"
        if lag.events
        else "Lag         none: the read models show every event"
    )
    rows = [(name, table.rows, newest.position, moment(updated or "")) for name, table in sorted(newest.tables.items())]
    print_table(("read model", "rows", "position", "last updated"), rows)
