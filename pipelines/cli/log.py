"""``refold log``: what concerns the event log as a whole."""

from __future__ import annotations

from datetime import timedelta

import click

from refold.pipelines.cli.support.durations import parse_duration
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Command,
    Invocation,
    as_epilog,
    common_options,
    pass_invocation,
)


@click.group(name="log", epilog=as_epilog("refold log head --json\nrefold log upgrade\nrefold log rebucket 256"))
def log() -> None:
    """Show the head of the log's chain, repair or rewrite the log, or bring it to a newer format."""


@log.command(cls=Command, example="refold log head --json")
@common_options("domain", "log")
@pass_invocation
def head(call: Invocation) -> None:
    """Show the end of the log, and the digest of its last commit.

    Each commit has the digest of the one before it, so this digest proves the whole history. Keep it elsewhere: later,
    `refold events verify --from COMMIT:DIGEST` shows whether anything before it was changed.
    """
    from refold.pipelines.cli.support import output

    found = call.open_log()
    end = found.head().end
    if call.json:
        output.print_json(
            {
                "log_id": found.log_id,
                "commit_number": end.commit_number,
                "position": end.position,
                "digest": end.digest,
                "head": f"{end.commit_number}:{end.digest}",
            }
        )
        return
    output.print_text(f"Log       {found.log_id} (domain {found.domain_name})")
    output.print_text(f"Position  {end.position:,}, commit {end.commit_number:,}")
    output.print_text(f"Head      {end.commit_number}:{end.digest}")


@log.command(cls=BeamCommand, example="refold log upgrade")
@common_options("domain", "log", "runner")
@pass_invocation
def upgrade(call: Invocation) -> None:
    """Bring the log to the current format. End all its writers first.

    The log is sealed, and what is sealed gets digests. Nothing is rewritten; a log that has the current format stays as
    it is.
    """
    found, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.support import output
    from refold.pipelines.upgrade_log import upgrade_log

    upgraded = upgrade_log(found, call.domain_ref, options)
    if call.json:
        output.print_json({"from": found.format_version, "to": upgraded.format_version})
    elif upgraded.format_version == found.format_version:
        output.print_text(f"The log has format {found.format_version} already.")
    else:
        output.print_text(f"The log now has format {upgraded.format_version}; it had {found.format_version}.")


@log.command(
    cls=BeamCommand,
    example="refold log rewrite --erase OrderPlaced.note --subject customer_id=7 --to data/rewritten",
)
@click.option("--erase", "fields", multiple=True, metavar="TYPE.FIELD", help="A field to replace; may be repeated.")
@click.option("--subject", "subjects", multiple=True, metavar="FIELD=VALUE", help="Whose values; may be repeated.")
@click.option("--to", required=True, metavar="URL", help="Where to write the new log.")
@common_options("domain", "log", "runner")
@pass_invocation
def rewrite(call: Invocation, fields: tuple[str, ...], subjects: tuple[str, ...], to: str) -> None:
    """Write a new log without the values of some fields, for events that were written without marks of personal data.

    The new log has the same positions, commit numbers, ids and times. A file rewrite.jsonl in it maps the digest of
    each old segment to that of the new one, and the chain of digests begins with it. Fields that are marked as personal
    need no rewrite: see `refold erase`.
    """
    chosen = [_pair(field, ".", "--erase", "OrderPlaced.note") for field in fields]
    named = [_pair(subject, "=", "--subject", "customer_id=7") for subject in subjects]
    if not chosen or not named:
        raise click.UsageError("Give --erase and --subject: which values to replace, and whose.")
    found, options = call.open_log(), call.beam_options()

    import dataclasses

    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.rewrite_log import MAP, rewrite_log
    from refold.warehouse.personal.key_store import Subject

    with count_progress("rewrite", "segments", quiet=call.quiet) as report:
        done = rewrite_log(
            found,
            call.domain_ref,
            to,
            options,
            fields=chosen,
            subjects=[Subject(*pair) for pair in named],
            report=report,
        )
    if call.json:
        output.print_json(dataclasses.asdict(done))
        return
    output.print_text(f"Replaced {output.counted(done.values, 'value')} in {output.counted(done.segments, 'segment')}.")
    output.print_text(f"The new log is at {to}, with {MAP}. Its chain begins at {done.head}.")


def _pair(text: str, separator: str, option: str, example: str) -> tuple[str, str]:
    first, found, second = text.rpartition(separator) if separator == "." else text.partition(separator)
    if not (first and found and second):
        raise click.UsageError(f"{option} {text} is invalid; write {option} {example}.")
    return first, second


@log.command(cls=Command, example="refold log repair")
@common_options("domain", "log")
@pass_invocation
def repair(call: Invocation) -> None:
    """Make damaged segments again from their commits, and damaged stream heads from the segments.

    Exits with code 1 if something is damaged that cannot be made again. The damaged objects stay where they are.
    """
    import dataclasses

    from refold.pipelines.cli.support import output
    from refold.warehouse.event_log.repair import repair as repair_log

    done = repair_log(call.open_log(), call.domain.registry)
    if call.json:
        output.print_json(dataclasses.asdict(done))
    else:
        for key in done.segments:
            output.print_text(f"Made again from its commits: {key}")
        for bucket in done.heads:
            output.print_text(f"Made again from the segments: the stream heads of bucket {bucket}")
        for lost in done.lost:
            output.print_text(lost)
        if not done.segments and not done.heads and not done.lost:
            output.print_text("No segment and no stream heads are damaged.")
    if done.lost:
        raise click.exceptions.Exit(1)


def _window(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except ValueError as error:
        raise click.UsageError(f"The window: {error}") from error


@log.command(name="gc", cls=Command, example="refold log gc\nrefold log gc --window 30d --yes")
@click.option("--yes", is_flag=True, help="Remove it; without this, only show what would be removed.")
@common_options("log", "window")
@pass_invocation
def collect(call: Invocation, yes: bool) -> None:
    """Remove commits that were sealed long ago, and objects that newer ones have replaced.

    No event is removed: sealed events are in segments. A time for --as-of must then be later than the first commit that
    is kept; a position may be any. Without --yes nothing is removed.
    """
    from refold.pipelines.cli.support import output
    from refold.warehouse.event_log.retention import apply_retention, plan_retention

    found = call.open_log()
    planned = plan_retention(found, window=_window(call.settings.window))
    freed = apply_retention(found, planned) if yes else sum(left.bytes for left in planned.objects)
    if call.json:
        output.print_json({"removed": yes, "bytes": freed, "objects": [left.key for left in planned.objects]})
        return
    counted = output.counted(len(planned.objects), "object")
    done = "Removed" if yes else "Would remove"
    output.print_text(f"{done} {counted} of {output.format_size(freed)}.")
    if planned.objects and not yes:
        output.print_text("Add --yes to remove them.")


@log.command(cls=Command, example="refold log rebucket 256")
@click.argument("bucket_count", type=int)
@common_options("domain", "log")
@pass_invocation
def rebucket(call: Invocation, bucket_count: int) -> None:
    """Divide the buckets of a log that has grown, for more parallel work.

    Every segment is rewritten on this machine, into a multiple of the buckets that the log has. Appends, seals, streams
    and rebuilds may go on meanwhile; an import that is under way must be run again. `refold log gc` removes the old
    segments once its window is over.
    """
    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.cli.support import output
    from refold.warehouse.event_log.rebucket import rebucket as rewrite

    with count_progress("rewrite", "bytes", quiet=call.quiet) as report:
        done = rewrite(call.open_log(), bucket_count, report=report)
    if call.json:
        output.print_json(done)
    elif done.manifest is None:
        output.print_text(f"The log has {done.after} buckets already.")
    else:
        output.print_text(
            f"The log has {done.after} buckets now (before: {done.before}), in {done.segments:,} segments."
        )
