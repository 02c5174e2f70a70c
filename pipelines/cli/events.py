"""``refold events``: looks at the log."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    as_epilog,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.event_schemas import RecordedEvent, Registry
    from refold.warehouse.event_log.log import EventLog, Head

_POLL_SECONDS = 0.2


@click.group(epilog=as_epilog("refold events tail\nrefold events stream order-1001"))
def events() -> None:
    """Look at the event log."""


@events.command(cls=Command, example="refold events tail --count 5\nrefold events tail --follow")
@click.option("--count", "-n", type=click.IntRange(min=0), default=10, show_default=True, help="How many events.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new events as they come, until Ctrl-C.")
@common_options("domain", "log")
@pass_invocation
def tail(call: Invocation, count: int, follow: bool) -> None:
    """Show the last events of the log.

    With --follow and --json together, each event is a JSON document on a line of its own.
    """
    from refold.warehouse.event_log.reads.read import tail as read_tail

    log, registry = call.open_log(), call.domain.registry
    head = log.head()
    last = read_tail(log, registry, count, head=head)
    if not follow:
        _print(call, last, {"position": head.position})
        return
    try:
        for event in itertools.chain(last, _following(log, registry, head)):
            _print_now(call, event)
    except KeyboardInterrupt:  # how one stops following
        return


@events.command(cls=Command, example="refold events stream order-1001\nrefold events stream order-1001 --from 3 --json")
@click.argument("stream_id", metavar="ID")
@click.option("--from", "first", type=click.IntRange(min=1), default=1, metavar="VERSION", help="First stream version.")
@click.option("--to", "last", type=click.IntRange(min=1), metavar="VERSION", help="Last stream version.")
@common_options("domain", "log")
@pass_invocation
def stream(call: Invocation, stream_id: str, first: int, last: int | None) -> None:
    """Show the events of one stream, in order."""
    from refold.warehouse.event_log.reads.read import read_stream

    found = read_stream(call.open_log(), call.domain.registry, stream_id, from_version=first, to_version=last)
    _print(call, found, {"stream_id": stream_id})


@events.command(cls=Command, example="refold events trace cart-000042")
@click.argument("correlation_id", metavar="CORRELATION")
@common_options("domain", "log")
@pass_invocation
def trace(call: Invocation, correlation_id: str) -> None:
    """Show all events of one correlation id, across streams."""
    from refold.warehouse.event_log.reads.read import read_correlation

    found = read_correlation(call.open_log(), call.domain.registry, correlation_id)
    _print(call, found, {"correlation_id": correlation_id}, causes=True)


@events.command(name="stats", cls=Command, example="refold events stats --json")
@common_options("domain", "log")
@pass_invocation
def show_stats(call: Invocation) -> None:
    """Count events and bytes of every event type and schema version."""
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.output import plural
    from refold.warehouse.event_log.reads.stats import stats

    found = stats(call.open_log())
    if call.json:
        output.print_json(dataclasses.asdict(found))
        return
    output.say(
        f"{plural(found.events, 'event')} ({output.size(found.bytes)}) in {plural(found.streams, 'stream')}, "
        f"{plural(found.commits, 'commit')} and {plural(found.segments, 'segment')}; "
        f"{found.unsealed_events:,} not sealed yet."
    )
    rows = [
        (f"{s.event_type} v{s.schema_version}", s.events, output.size(s.bytes), s.unsealed, s.untyped, s.last_position)
        for s in found.schemas
    ]
    output.print_table(("event", "events", "size", "not sealed", "raw", "last position"), rows)


@events.command(name="verify", cls=Command, example="refold events verify")
@common_options("domain", "log")
@pass_invocation
def verify_log(call: Invocation) -> None:
    """Check every object of the log, and that no event is missing, double or out of place.

    Exits with code 1 if something is wrong, and tells what, where, and what to do.
    """
    from refold.pipelines.cli.progress import bar
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.output import plural
    from refold.warehouse.event_log.verification.verify import verify

    log = call.open_log()
    with bar("verify", "steps") as report:
        seen = verify(log, call.domain.registry, report=report)
    if call.json:
        output.print_json({"sound": seen.sound, **dataclasses.asdict(seen)})
    else:
        output.say(
            f"Checked {plural(seen.events, 'event')} in {plural(seen.streams, 'stream')}, "
            f"{plural(seen.commits, 'commit')} and {plural(seen.segments, 'segment')}: "
            f"{'all is sound' if seen.sound else 'something is wrong'}."
        )
        for finding in seen.findings:
            output.say(str(finding))
        if seen.more:
            output.say(f"… and {plural(seen.more, 'further finding')} of the same kinds.")
        for part in seen.unchecked:
            output.say(f"Not checked: {part}.")
    if not seen.sound:
        raise click.exceptions.Exit(1)


def _following(log: EventLog, registry: Registry, head: Head) -> Iterator[RecordedEvent]:
    """Wait for commits after the head, by asking for the next number: nothing is ever listed."""
    from refold.warehouse.event_log.log import Head
    from refold.warehouse.event_log.manifest import Manifest
    from refold.warehouse.event_log.reads.read import read_positions

    number = head.commit + 1
    while True:
        info = log.commit_info(number)
        if info is None:
            time.sleep(_POLL_SECONDS)
            continue
        only = Head(Manifest(), (info,))
        yield from read_positions(log, registry, info.first_position - 1, info.last_position, head=only)
        number += 1


def _print(call: Invocation, found: Iterable[RecordedEvent], head: dict[str, Any], *, causes: bool = False) -> None:
    from refold.pipelines.cli.support import output

    if call.json:
        output.print_json_stream(head, "events", map(as_document, found))
        return
    none = True
    for event in found:
        _print_line(event, causes=causes)
        none = False
    if none:
        output.aside("No events.")


def _print_now(call: Invocation, event: RecordedEvent) -> None:
    from refold.pipelines.cli.support import output

    if call.json:
        output.print_json(as_document(event))
    else:
        _print_line(event)


def _print_line(event: RecordedEvent, *, causes: bool = False) -> None:
    """Print one event on one line; a terminal cuts it off at its edge."""
    from refold.pipelines.cli.support.output import moment, say_line, to_json

    cause = f"  (caused by {event.causation_id})" if causes and event.causation_id else ""
    say_line(
        f"{event.position:>9,}  {moment(event.occurred_at)}  {event.stream_id:<18} {event.stream_version:>3}  "
        f"{event.event_type} v{event.schema_version}{cause}  {to_json(event.payload).decode()}"
    )


def as_document(event: RecordedEvent) -> dict[str, Any]:
    """Give an event as JSON shows it, every column under its name in the log."""
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
