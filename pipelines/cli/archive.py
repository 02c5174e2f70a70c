"""``refold archive``: old events on another store, from which rebuilds still read them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import click

from refold.pipelines.cli.support.durations import parse_duration
from refold.pipelines.cli.support.invocation import Command, Invocation, as_epilog, common_options, pass_invocation

if TYPE_CHECKING:
    from refold.warehouse.event_log.archive import Moved


class PastTime(click.ParamType):  # type: ignore[type-arg]
    """A point in time as an option's value: a date in UTC, a time with its offset, or an age such as ``365d``."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse the value, or end with a usage error."""
        text = str(value).strip()
        try:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        except ValueError:
            pass
        try:
            if (found := datetime.fromisoformat(text)).tzinfo is not None:
                return found
        except ValueError:
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no time; write 2025-01-01, 2025-01-01T12:00:00Z, or an age such as 365d.", param, ctx
            )


_TIME = PastTime()


@click.group(
    invoke_without_command=True,
    epilog=as_epilog(
        "refold archive --before 2025-01-01 --to s3://my-shop-archive/log\nrefold archive --before 365d --to /cold/log "
        "--dry-run\nrefold archive restore"
    ),
)
@click.option("--before", type=_TIME, metavar="DATE|AGE", help="Move events that were recorded before this time.")
@click.option("--to", metavar="URL", help="Where to move them: a folder, or the URL of an object store.")
@click.option("--dry-run", is_flag=True, help="Only show what would be moved.")
@common_options("domain", "log")
@click.pass_context
def archive(context: click.Context, before: datetime | None, to: str | None, dry_run: bool) -> None:
    """Move old sealed events to an archive, from which rebuilds still read them.

    Whole segments are moved: those whose events were all recorded before the given time. The events of an import were
    recorded when the import began. Each copy is read back before the log relies on it, and `refold log gc` removes the
    objects that were copied once its window is over. Appends, streams and rebuilds may go on meanwhile.
    """
    if context.invoked_subcommand is not None:
        return
    if before is None or not to:
        raise click.UsageError("Give --before and --to, or the command `restore`.", context)
    from refold.pipelines.cli.progress import count_progress
    from refold.warehouse.event_log.archive import Moved, to_archive
    from refold.warehouse.event_log.archive import archive as archive_segments

    call = context.ensure_object(Invocation)
    log = call.open_log()
    if dry_run:
        moved = Moved.of(to_archive(log, before))
        _print(call, moved, f"Would move {_what(moved)} to {to}." if moved.segments else _nothing(before))
        return
    with count_progress("archive", "bytes", quiet=call.quiet) as report:
        moved = archive_segments(log, before=before, to=to, report=report)
    text = f"Moved {_what(moved)} to {to}. `refold log gc` frees the space once its window is over."
    _print(call, moved, text if moved.segments else _nothing(before))


@archive.command(cls=Command, example="refold archive restore\nrefold archive restore --after 2025-07-01")
@click.option(
    "--after", type=_TIME, metavar="DATE|AGE", help="Only segments with an event recorded at this time or later."
)
@common_options("domain", "log")
@pass_invocation
def restore(call: Invocation, after: datetime | None) -> None:
    """Move archived events back into the log; `refold log gc` removes them from the archive after its window."""
    from refold.pipelines.cli.progress import count_progress
    from refold.warehouse.event_log.archive import restore as restore_segments

    with count_progress("restore", "bytes", quiet=call.quiet) as report:
        moved = restore_segments(call.open_log(), after=after, report=report)
    _print(
        call,
        moved,
        f"Restored {_what(moved)}." if moved.segments else "Nothing to restore: no such segment is archived.",
    )


def _nothing(before: datetime) -> str:
    return (
        f"Nothing to move: no sealed segment has only events recorded before {before.isoformat(timespec='seconds')}. "
        "`refold seal` seals new commits."
    )


def _what(moved: Moved) -> str:
    from refold.pipelines.cli.support.output import counted, format_size

    return f"{counted(moved.events, 'event')} in {counted(moved.segments, 'segment')} ({format_size(moved.bytes)})"


def _print(call: Invocation, moved: Moved, text: str) -> None:
    import dataclasses

    from refold.pipelines.cli.support.output import print_json, print_text

    if call.json:
        print_json(dataclasses.asdict(moved))
    else:
        print_text(text)
