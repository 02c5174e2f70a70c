"""``refold plan``: what a rebuild would do, why, and how long it takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.exit_codes import WORK_TO_DO
from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.warehouse.read_models.planning.plan import RebuildPlan


@click.command(cls=Command, example="refold plan\nrefold plan --json\nrefold plan --all")
@click.option("--all", "everything", is_flag=True, help="Plan a rebuild of all, changed or not.")
@click.option(
    "--archive-price",
    type=click.FloatRange(min=0),
    metavar="PRICE",
    help="What it costs to read 1 GB from the archive; the plan shows the total.",
)
@common_options("domain", "log", "read_models")
@pass_invocation
def plan(call: Invocation, everything: bool, archive_price: float | None) -> None:
    """Show what a rebuild would do, why, and its cost.

    The plan compares the declared domain with the newest generation; layout, comments and docstrings do not count. It
    reads no event. Exits with 5 if there is anything to rebuild, drop or publish, otherwise with 0.
    """
    from refold.pipelines.cli.support.output import print_json
    from refold.warehouse.read_models.planning.plan import plan_rebuild

    made = plan_rebuild(call.open_log(), call.domain, call.open_generations(), everything=everything)
    if call.json:
        print_json(document_of(made, archive_price))
    else:
        print_plan(made, archive_price)
    if made.work:
        raise click.exceptions.Exit(WORK_TO_DO)


def document_of(made: RebuildPlan, archive_price: float | None = None) -> dict[str, Any]:
    """Return a plan as JSON values, with the cost of reading the archive at a price for 1 GB."""
    return {
        "work": made.work,
        "generation": made.generation,
        "position": made.position,
        "behind": made.behind,
        "unsealed_events": made.unsealed_events,
        "other_log": made.other_log,
        "events": made.events,
        "bytes_read": made.bytes_read,
        "archived_bytes": made.archived_bytes,
        "archive_cost": None if archive_price is None else round(archive_cost(made, archive_price), 2),
        "seconds": round(made.seconds, 3),
        "disk_bytes": made.disk_bytes,
        "working_copy_bytes": made.working_copy_bytes,
        "rate": asdict(made.rate),
        "read_models": [
            {**asdict(m), "seconds": round(m.seconds, 3), "archived": sum(m.archived.values())}
            for m in made.read_models
        ],
        "views": [asdict(v) for v in made.views],
    }


def archive_cost(made: RebuildPlan, price: float) -> float:
    """Return what it costs to read the archive, at a price for 1 GB (10^9 bytes, as stores bill it)."""
    return made.archived_bytes / 1e9 * price


def print_plan(made: RebuildPlan, archive_price: float | None = None) -> None:
    """Print a plan, with the cost of reading the archive at a price for 1 GB."""
    from refold.pipelines.cli.support.output import format_size, print_table, print_text

    if made.generation is None:
        print_text("Nothing is published yet: all read models are new.")
    elif made.other_log:
        print_text(f"Generation {made.generation} was built from another log, so all read models must be rebuilt.")
    rows = [
        (
            m.name,
            m.verdict.value,
            m.events if m.to_rebuild else None,
            format_size(m.bytes_read) if m.to_rebuild else "",
            _why(m.reasons, m.seed_position),
        )
        for m in made.read_models
    ]
    rows += [(v.name, f"{v.verdict.value} view", None, "", _why(v.reasons, None)) for v in made.views]
    print_table(("read model", "verdict", "events", "to read", "why"), rows, wrap_last=True)
    print_text(_total(made))
    if made.archived_bytes:
        cost = "" if archive_price is None else f", which costs {archive_cost(made, archive_price):,.2f}"
        print_text(f"A rebuild reads {format_size(made.archived_bytes)} from the archive{cost}.")
    if lag := lag_text(made):
        print_text(lag)


def _why(reasons: tuple[str, ...], seed_position: int | None) -> str:
    seed = () if seed_position is None else (f"only events after position {seed_position:,} are replayed",)
    return "; ".join((*reasons, *seed))


def _total(made: RebuildPlan) -> str:
    from refold.pipelines.cli.support.output import counted, format_duration, format_size

    if not made.work:
        return "Nothing to rebuild: every read model is published as declared."
    if not made.to_rebuild:
        return "Nothing to replay: `refold rebuild` only publishes a new generation."
    rate = made.rate
    basis = "measured" if rate.measured else "assumed, as no long rebuild is measured yet"
    basis += f", with {counted(rate.workers, 'worker')}"
    return (
        f"To rebuild: {counted(len(made.to_rebuild), 'read model')}, {counted(made.events, 'event')} to replay, "
        f"{format_size(made.bytes_read)} to read, about {format_duration(made.seconds)} "
        f"({round(rate.events_per_second):,} events/s, {basis}), {format_size(made.disk_bytes)} of disk."
    )


def lag_text(made: RebuildPlan) -> str:
    """Return how far the newest generation is behind, and what catches it up; empty if it is not behind."""
    from refold.pipelines.cli.support.output import counted

    if made.generation is None or made.other_log or not made.behind:
        return ""
    return (
        f"Generation {made.generation} is {counted(made.behind, 'event')} behind the log; `refold refresh` catches it "
        "up without a rebuild."
    )
