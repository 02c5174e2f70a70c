"""``refold events``: reads the event log."""

from __future__ import annotations

import dataclasses
import itertools
import re
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
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.event_log.log_head import Head

_POLL_SECONDS = 0.2
"""Time between two looks for the next commit: unnoticed by a reader, and five cheap requests a second."""

_MAX_CLOCKS = 20


@click.group(epilog=as_epilog("refold events tail\nrefold events stream order-1001"))
def events() -> None:
    """Read, count and verify the events of the log."""


@events.command(cls=Command, example="refold events tail --count 5\nrefold events tail --follow")
@click.option(
    "--count", "-n", type=click.IntRange(min=0), default=10, show_default=True, help="How many events to show."
)
@click.option("--follow", "-f", is_flag=True, help="Also show new events as they arrive, until Ctrl-C.")
@common_options("domain", "log")
@pass_invocation
def tail(call: Invocation, count: int, follow: bool) -> None:
    """Show the last events of the log.

    With --follow and --json, each line is one event as a JSON document.
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
    except KeyboardInterrupt:  # the way to end it
        return


@events.command(cls=Command, example="refold events stream order-1001\nrefold events stream order-1001 --from 3 --json")
@click.argument("stream_id", metavar="ID")
@click.option("--from", "first", type=click.IntRange(min=1), default=1, metavar="VERSION", help="First stream version.")
@click.option("--to", "last", type=click.IntRange(min=1), metavar="VERSION", help="Last stream version.")
@common_options("domain", "log")
@pass_invocation
def stream(call: Invocation, stream_id: str, first: int, last: int | None) -> None:
    """Show the events of one stream."""
    from refold.warehouse.event_log.reads.read import read_stream

    found = read_stream(call.open_log(), call.domain.registry, stream_id, from_version=first, to_version=last)
    _print(call, found, {"stream_id": stream_id})


@events.command(cls=Command, example="refold events trace cart-000042")
@click.argument("correlation_id", metavar="CORRELATION")
@common_options("domain", "log")
@pass_invocation
def trace(call: Invocation, correlation_id: str) -> None:
    """Show the events of one correlation id."""
    from refold.warehouse.event_log.reads.read import read_correlation

    found = read_correlation(call.open_log(), call.domain.registry, correlation_id)
    _print(call, found, {"correlation_id": correlation_id}, causes=True)


@events.command(name="stats", cls=Command, example="refold events stats --json")
@common_options("domain", "log")
@pass_invocation
def show_stats(call: Invocation) -> None:
    """Count events and bytes by schema."""
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.output import counted
    from refold.warehouse.event_log.reads.stats import stats

    found = stats(call.open_log())
    if call.json:
        output.print_json(dataclasses.asdict(found))
        return
    archived = f", {output.format_size(found.archived_bytes)} of it archived" if found.archived_bytes else ""
    output.print_text(
        f"{counted(found.events, 'event')} ({output.format_size(found.bytes)}{archived}) in "
        f"{counted(found.streams, 'stream')}, {counted(found.commits, 'commit')} and "
        f"{counted(found.segments, 'segment')}; "
        f"{found.unsealed_events:,} not sealed yet."
    )
    rows = [
        (
            f"{s.event_type} v{s.schema_version}",
            s.events,
            output.format_size(s.bytes),
            s.unsealed,
            s.untyped,
            s.last_position,
        )
        for s in found.schemas
    ]
    output.print_table(("schema", "events", "size", "not sealed", "untyped", "last position"), rows)


@events.command(name="verify", cls=Command, example="refold events verify\nrefold events verify --fast")
@click.option("--fast", is_flag=True, help="Check manifests, footers and sizes only, and read no events.")
@click.option(
    "--from",
    "head",
    metavar="COMMIT:DIGEST",
    callback=lambda _context, _parameter, value: value and parse_head(value),
    help="Also check that the log still has this commit: what `refold log head` printed earlier.",
)
@common_options("domain", "log")
@pass_invocation
def verify_log(call: Invocation, fast: bool, head: tuple[int, str] | None) -> None:
    """Check every object and event of the log.

    No object may be damaged, and no event missing, repeated or out of order. Exits with code 1 if something is wrong,
    and prints what, where, and what to do. Commits of a writer whose clock was wrong are named too, but are no damage.
    """
    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.output import counted
    from refold.warehouse.event_log.verification.verify import verify

    log = call.open_log()
    with count_progress("verify", "steps", quiet=call.quiet) as report:
        seen = verify(log, call.domain.registry, report=report, fast=fast, known=head)
    if call.json:
        output.print_json({"sound": seen.sound, **dataclasses.asdict(seen)})
    else:
        what = f"{counted(seen.commits, 'commit')} and {counted(seen.segments, 'segment')}"
        events = f"{counted(seen.events, 'event')} in {counted(seen.streams, 'stream')}, "
        found = "no problem found" if seen.sound else "problems found"
        output.print_text(f"Checked {'' if fast else events}{what}{', but not their events' if fast else ''}: {found}.")
        for finding in seen.findings:
            output.print_text(str(finding))
        if seen.more:
            output.print_text(f"… and {counted(seen.more, 'more finding')} of the same kinds.")
        for part in seen.unchecked:
            output.print_text(f"Not checked: {part}.")
        for wrong in seen.wrong_clocks[:_MAX_CLOCKS]:
            output.print_text(f"Clock: {wrong}. This is no damage: --as-of with a time passes over it.")
        if (more := len(seen.wrong_clocks) - _MAX_CLOCKS) > 0:
            output.print_text(f"… and {counted(more, 'more commit')} whose clocks were wrong.")
    if not seen.sound:
        raise click.exceptions.Exit(1)


def parse_head(text: str) -> tuple[int, str]:
    """Parse a commit and its digest, as ``refold log head`` prints them."""
    number, _, digest = text.partition(":")
    if not number.isdecimal() or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise click.BadParameter(f"{text!r} is no COMMIT:DIGEST, such as `refold log head` prints.")
    return int(number), digest


def _following(log: EventLog, registry: Registry, head: Head) -> Iterator[RecordedEvent]:
    """Yield the events of commits after the head, polling for the next number; the log is never listed."""
    from refold.warehouse.event_log.log_head import Head
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
    empty = True
    for event in found:
        _print_line(event, causes=causes)
        empty = False
    if empty:
        output.print_note("No events.")


def _print_now(call: Invocation, event: RecordedEvent) -> None:
    from refold.pipelines.cli.support import output

    if call.json:
        output.print_json(as_document(event))
    else:
        _print_line(event)


def _print_line(event: RecordedEvent, *, causes: bool = False) -> None:
    """Print one event on one line; a terminal truncates it."""
    from refold.pipelines.cli.support.output import format_time, print_line, to_json

    cause = f"  (caused by {event.causation_id})" if causes and event.causation_id else ""
    print_line(
        f"{event.position:>9,}  {format_time(event.occurred_at)}  {event.stream_id:<18} {event.stream_version:>3}  "
        f"{event.event_type} v{event.schema_version}{cause}  {to_json(event.payload).decode()}"
    )


def as_document(event: RecordedEvent) -> dict[str, Any]:
    """Return an event as JSON values, each under its column's name in the log."""
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
