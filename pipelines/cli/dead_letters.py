"""``refold dead-letters``: events that could not be applied to read models: list, show, retry, discard."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Command,
    Invocation,
    as_epilog,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.event_schemas import RecordedEvent
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.dead_letters.dead_letters import DeadLetter, DeadLetterGroup
    from refold.warehouse.read_models.dead_letters.retry import Retried
    from refold.warehouse.read_models.generations.generations import Generation

_NO_CONTRACT = "(fits no contract)"


@click.group(name="dead-letters", epilog=as_epilog("refold dead-letters list"))
def dead_letters() -> None:
    """Show, retry and discard events that could not be applied."""


@dead_letters.command(name="list", cls=Command, example="refold dead-letters list --read-model order_summary")
@click.option("--read-model", metavar="NAME", help="Only the dead letters of this read model.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="How many reasons to show; 0 for all."
)
@common_options("domain", "read_models")
@pass_invocation
def list_letters(call: Invocation, read_model: str | None, limit: int) -> None:
    """List the dead letters of the newest generation, by read model and reason.

    Each row counts open and discarded events, and has the positions of the first few.
    """
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.published import newest_generation, open_generation
    from refold.warehouse.read_models.dead_letters.dead_letters import group_dead_letters

    if read_model:
        call.domain.read_model(read_model)
    generations = call.open_generations()
    newest = newest_generation(generations)
    with open_generation(generations, newest) as connection:
        groups = group_dead_letters(connection, read_model=read_model)
    shown = groups[:limit] if limit else groups
    undecided, discarded = sum(g.events for g in groups), sum(g.discarded for g in groups)
    if call.json:
        counts = {"open": undecided, "discarded": discarded}
        source = {"generation": newest.number, "position": newest.position}
        output.print_json({**source, **counts, "groups": [asdict(g) for g in shown]})
        return
    if not groups:
        of_model = f" of {read_model}" if read_model else ""
        output.print_text(f"No dead letters{of_model} in generation {newest.number}, at position {newest.position:,}.")
        return
    _print_groups(shown)
    if len(shown) < len(groups):
        output.print_note(f"The first {len(shown):,} of {len(groups):,} reasons; --limit 0 shows all.")


def _print_groups(groups: list[DeadLetterGroup]) -> None:
    from refold.pipelines.cli.support import output

    rows = [
        (
            g.read_model or _NO_CONTRACT,
            g.events,
            g.discarded,
            ", ".join(f"{p:,}" for p in g.positions) + (", …" if g.events + g.discarded > len(g.positions) else ""),
            g.reason,
        )
        for g in groups
    ]
    output.print_table(("read model", "open", "discarded", "positions", "reason"), rows, wrap_last=True)


@dead_letters.command(cls=Command, example="refold dead-letters show 1042")
@click.argument("position", type=click.IntRange(min=1))
@common_options("domain", "log", "read_models")
@pass_invocation
def show(call: Invocation, position: int) -> None:
    """Show one event's dead letters.

    The reasons, the envelope, and the payload as stored.
    """
    from refold.event_schemas import UsageError
    from refold.pipelines.cli.support.published import newest_generation
    from refold.warehouse.event_log.reads.read import read_positions
    from refold.warehouse.read_models.dead_letters.dead_letters import published_dead_letters

    log, generations = call.open_log(), call.open_generations()
    newest = newest_generation(generations)
    found = published_dead_letters(generations, newest, positions=[position])
    if not found:
        raise UsageError(
            f"Generation {newest.number} has no dead letter at position {position:,}. `refold dead-letters list` shows "
            "all."
        )
    event = None
    if newest.log_id == log.log_id:  # positions of another log are other events
        event = next(iter(read_positions(log, call.domain.registry, position - 1, position)), None)
    _show(call, found, event)


def _show(call: Invocation, letters: list[DeadLetter], event: RecordedEvent | None) -> None:
    from refold.pipelines.cli.events import as_document
    from refold.pipelines.cli.support import output

    letter = letters[0]
    envelope: dict[str, Any] = {
        "position": letter.position,
        "stream_id": letter.stream_id,
        "event_type": letter.event_type,
        "schema_version": letter.schema_version,
    }
    if event is not None:
        envelope = {name: value for name, value in as_document(event).items() if name != "payload"}
    reasons = [
        {"read_model": n.read_model, "reason": n.reason, "discarded_at": n.discarded_at and n.discarded_at.isoformat()}
        for n in letters
    ]
    if call.json:
        output.print_json({**envelope, "payload": letter.payload, "letters": reasons})
        return
    for name, value in envelope.items():
        text = output.format_time(value) if hasattr(value, "tzinfo") else value
        output.print_text(f"{name:<15} {'' if text is None else text}".rstrip())
    for reason in reasons:
        discarded = f" (discarded at {output.format_time(reason['discarded_at'])})" if reason["discarded_at"] else ""
        output.print_text(f"{reason['read_model'] or _NO_CONTRACT}: {reason['reason']}{discarded}")
    output.print_text(letter.payload)


@dead_letters.command(cls=BeamCommand, example="refold dead-letters retry\nrefold dead-letters retry --json")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def retry(call: Invocation) -> None:
    """Retry open dead letters after a fix.

    Once the upcaster, handler or contract is fixed, this rebuilds the read models with open dead letters and publishes
    them. Exits with code 1 if dead letters remain.
    """
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.published import newest_generation
    from refold.warehouse.read_models.dead_letters.dead_letters import published_dead_letters
    from refold.warehouse.read_models.dead_letters.retry import compare_dead_letters, plan_retry

    log, generations = call.open_log(), call.open_generations()
    newest = newest_generation(generations)
    before = published_dead_letters(generations, newest)
    planned = plan_retry(log, call.domain, newest, before)
    published, after = newest, before
    if planned.read_models:
        output.print_note(
            f"Retrying {output.counted(len(planned.letters), 'dead letter')}: this replays "
            f"{output.counted(planned.events, 'event')} to rebuild {', '.join(planned.read_models)}."
        )
        published = _rebuild(call, log, planned.read_models)
        after = published_dead_letters(generations, published)
    elif planned.letters:
        output.print_note("No read model can apply any of these events: fix the contract first. Nothing was rebuilt.")
    retried = compare_dead_letters(before, after)
    if call.json:
        rebuilt = {"generation": published.number, "read_models": planned.read_models, "events": planned.events}
        output.print_json({**rebuilt, **{name: _documents(found) for name, found in asdict(retried).items()}})
    else:
        _print_retried(retried)
    if retried.remaining or retried.new:
        raise click.exceptions.Exit(1)


def _rebuild(call: Invocation, log: EventLog, names: tuple[str, ...]) -> Generation:
    options = call.beam_options()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.rebuild.rebuild import rebuild

    domain, url = call.domain_ref, call.settings.read_models
    with rebuild_progress(quiet=call.quiet) as report:
        return rebuild(log, domain, url, options, only=names, dead_letter=True, report=report).generation


def _documents(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = ("read_model", "position", "reason")
    return [{name: letter[name] for name in shown} for letter in letters]


def _print_retried(retried: Retried) -> None:
    from refold.pipelines.cli.support import output

    if not (retried.gone or retried.remaining or retried.new):
        output.print_text("Nothing to retry: no dead letters are open.")
        return
    gone = output.counted(len(retried.gone), "dead letter")
    output.print_text(f"{gone} gone, {len(retried.remaining):,} remaining, {len(retried.new):,} new.")
    rows = [
        (state, n.position, n.read_model or _NO_CONTRACT, f"{n.event_type} v{n.schema_version}", n.reason)
        for state, found in (("gone", retried.gone), ("remains", retried.remaining), ("new", retried.new))
        for n in found
    ]
    output.print_table(("", "position", "read model", "event", "reason"), rows, wrap_last=True)


_DISCARD = "refold dead-letters discard 1042 1043\nrefold dead-letters discard --undo 1042"


@dead_letters.command(cls=Command, example=_DISCARD)
@click.argument("positions", type=click.IntRange(min=1), nargs=-1, required=True, metavar="POSITION...")
@click.option("--read-model", metavar="NAME", help="Only the dead letters of this read model.")
@click.option("--undo", is_flag=True, help="Reopen discarded dead letters.")
@common_options("domain", "read_models")
@pass_invocation
def discard(call: Invocation, positions: tuple[int, ...], read_model: str | None, undo: bool) -> None:
    """Discard dead letters for good.

    The decision is published as the next generation, with unchanged tables. Later rebuilds, even without --dead-letter,
    skip these events. The log keeps them.
    """
    from refold.pipelines.cli.support import output
    from refold.warehouse.read_models.dead_letters.dead_letters import discard as discard_letters

    generations = call.open_generations()
    published, changed = discard_letters(generations, positions, read_model=read_model, undo=undo)
    if call.json:
        letters = [{"read_model": n.read_model, "position": n.position} for n in changed]
        output.print_json({"generation": published.number, "changed": letters})
        return
    done = "reopened" if undo else "discarded"
    if not changed:
        output.print_text(f"Nothing was published: all of them are already {'open' if undo else 'discarded'}.")
        return
    output.print_text(
        f"Published generation {published.number}: {output.counted(len(changed), 'dead letter')} {done}. "
        + ("" if undo else "To reopen them, add --undo.")
    )
