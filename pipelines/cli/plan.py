"""``refold plan``: what a rebuild would do, why, and how long it would take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.warehouse.read_models.planning.plan import RebuildPlan

WORK_TO_DO = 5


@click.command(cls=Command, example="refold plan\nrefold plan --json\nrefold plan --all")
@click.option("--all", "everything", is_flag=True, help="Plan to rebuild all, whether they have changed or not.")
@common_options("domain", "log", "read_models")
@pass_invocation
def plan(call: Invocation, everything: bool) -> None:
    """Show which read models a rebuild would make anew, why, and what that takes.

    Compared are the domain as it is declared and the newest generation. Layout, comments and docstrings are no change.
    No event is read. Exits with 5 if there is anything to rebuild, drop or publish, and with 0 if not.
    """
    from refold.pipelines.cli.support.output import print_json
    from refold.warehouse.read_models.planning.plan import plan_rebuild

    made = plan_rebuild(call.open_log(), call.domain, call.open_generations(), everything=everything)
    if call.json:
        print_json(document_of(made))
    else:
        print_plan(made)
    if made.work:
        raise click.exceptions.Exit(WORK_TO_DO)


def document_of(made: RebuildPlan) -> dict[str, Any]:
    """Write a plan as plain JSON values."""
    return {
        "work": made.work,
        "generation": made.generation,
        "position": made.position,
        "behind": made.behind,
        "unsealed_events": made.unsealed_events,
        "other_log": made.other_log,
        "events": made.events,
        "bytes_read": made.bytes_read,
        "seconds": round(made.seconds, 3),
        "disk_bytes": made.disk_bytes,
        "working_copy_bytes": made.working_copy_bytes,
        "rate": asdict(made.rate),
        "read_models": [{**asdict(m), "seconds": round(m.seconds, 3)} for m in made.read_models],
        "views": [asdict(v) for v in made.views],
    }


def print_plan(made: RebuildPlan) -> None:
    """Show a plan to people."""
    from refold.pipelines.cli.support.output import print_table, say, size

    if made.generation is None:
        say("Nothing is published yet: all read models are new.")
    elif made.other_log:
        say(f"Generation {made.generation} was built from another log, so all read models must be rebuilt.")
    rows = [
        (
            m.name,
            m.verdict.value,
            m.events if m.to_rebuild else None,
            size(m.bytes_read) if m.to_rebuild else "",
            _why(m.reasons, m.seed_position),
        )
        for m in made.read_models
    ]
    rows += [(v.name, f"{v.verdict.value} view", None, "", _why(v.reasons, None)) for v in made.views]
    print_table(("read model", "verdict", "events", "to read", "why"), rows, wrap_last=True)
    say(_total(made))
    if lag := lag_told(made):
        say(lag)


def _why(reasons: tuple[str, ...], seed_position: int | None) -> str:
    seed = () if seed_position is None else (f"only events after position {seed_position:,} are replayed",)
    return "; ".join((*reasons, *seed))


def _total(made: RebuildPlan) -> str:
    from refold.pipelines.cli.support.output import duration, plural, size

    if not made.work:
        return "Nothing to rebuild: every read model is published as it is declared."
    if not made.to_rebuild:
        return "Nothing to replay: `refold rebuild` only publishes anew what is there."
    rate = made.rate
    basis = "measured" if rate.measured else "assumed, since no long rebuild was measured yet"
    basis += f", with {plural(rate.workers, 'worker')}"
    return (
        f"To rebuild: {plural(len(made.to_rebuild), 'read model')}, {plural(made.events, 'event')} to replay, "
        f"{size(made.bytes_read)} to read, about {duration(made.seconds)} ({round(rate.events_per_second):,} events a "
        f"second, {basis}), {size(made.disk_bytes)} of disk."
    )


def lag_told(made: RebuildPlan) -> str:
    """Tell how far the newest generation is behind, and what brings it forward; empty if it is not."""
    from refold.pipelines.cli.support.output import plural

    if made.generation is None or made.other_log or not made.behind:
        return ""
    return (
        f"Generation {made.generation} is {plural(made.behind, 'event')} behind the log; `refold refresh` brings it "
        "forward without a rebuild."
    )
