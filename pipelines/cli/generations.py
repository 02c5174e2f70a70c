"""``refold generations``: the published versions of the read models."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.durations import DURATION
from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    as_epilog,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.options import examples_option

if TYPE_CHECKING:
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.event_log.orphaned_objects import Leftover
    from refold.warehouse.read_models.comparison.differences import TableDifference
    from refold.warehouse.read_models.generations.garbage_collection import Collected
    from refold.warehouse.read_models.generations.generations import Generation


@click.group(epilog=as_epilog("refold generations list\nrefold generations rollback"))
def generations() -> None:
    """List, compare, roll back and remove published generations."""


@generations.command(name="list", cls=Command, example="refold generations list --json")
@common_options("domain", "read_models")
@pass_invocation
def list_generations(call: Invocation) -> None:
    """List the generations that are kept, the newest last."""
    from refold.pipelines.cli.support import output

    found = call.open_generations().all()
    if call.json:
        output.print_json({"generations": [_document(g) for g in found]})
        return
    if not found:
        output.print_text("Nothing is published yet; `refold rebuild` builds and publishes the read models.")
        return
    rows = [
        (
            g.number,
            _kind(g),
            g.position,
            output.format_time(g.published_at),
            output.format_size(g.bytes),
            len(g.tables),
            sum(table.rows for table in g.tables.values()),
        )
        for g in found
    ]
    output.print_table(("generation", "kind", "position", "published at", "size", "read models", "rows"), rows)


@generations.command(cls=Command, example="refold generations show\nrefold generations show 3 --json")
@click.argument("number", type=click.IntRange(min=1), required=False)
@common_options("domain", "read_models")
@pass_invocation
def show(call: Invocation, number: int | None) -> None:
    """Show one generation, with the rows of each read model; by default the newest."""
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.published import newest_generation

    published = call.open_generations()
    found = published.get(number) if number else newest_generation(published)
    if call.json:
        output.print_json(_document(found))
        return
    output.print_text(
        f"Generation {found.number} ({_kind(found)}) at position {found.position:,}, published at "
        f"{output.format_time(found.published_at)}, {output.format_size(found.bytes)}: "
        f"{published.store.url}/{found.file}"
    )
    output.print_table(("read model", "rows"), [(name, table.rows) for name, table in sorted(found.tables.items())])


def _kind(generation: Generation) -> str:
    return f"rollback to {generation.parent}" if generation.kind == "rollback" else generation.kind


def _document(generation: Generation) -> dict[str, Any]:
    return {
        "number": generation.number,
        "kind": generation.kind,
        "parent": generation.parent or None,
        "position": generation.position,
        "published_at": generation.published_at,
        "bytes": generation.bytes,
        "tables": {name: table.rows for name, table in sorted(generation.tables.items())},
    }


@generations.command(cls=Command, example="refold generations diff 3 4\nrefold generations diff 3 4 --json")
@click.argument("a", type=click.IntRange(min=1))
@click.argument("b", type=click.IntRange(min=1))
@examples_option
@common_options("domain", "read_models")
@pass_invocation
def diff(call: Invocation, a: int, b: int, examples: int) -> None:
    """Compare generations A and B: rows, columns, and the keys and values that differ."""
    from refold.warehouse.read_models.comparison.compare import compare_files, compared_published

    published = call.open_generations()
    first, second = published.get(a), published.get(b)
    tables = compared_published(call.domain, [*first.tables, *second.tables])
    with tempfile.TemporaryDirectory(prefix="refold-") as spill:
        paths = published.path(first), published.path(second)
        found = compare_files(*paths, tables, spill=Path(spill), examples=examples)
    _print_diff(call, first, second, found)


def _print_diff(call: Invocation, a: Generation, b: Generation, found: list[TableDifference]) -> None:
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.difference_tables import as_documents, print_differences

    if call.json:
        sides = {side: {"generation": g.number, "position": g.position} for side, g in (("a", a), ("b", b))}
        differences = as_documents(found, here="a", there="b")
        output.print_json({**sides, "equal": not found, "differences": differences})
        return
    output.print_text(
        f"a: generation {a.number} at position {a.position:,}; b: generation {b.number} at position {b.position:,}."
    )
    if found:
        print_differences(found, here="a", there="b")
    else:
        output.print_text("Both hold the same rows.")


@generations.command(cls=Command, example="refold generations rollback\nrefold generations rollback 3")
@click.argument("number", type=click.IntRange(min=1), required=False)
@common_options("domain", "read_models")
@pass_invocation
def rollback(call: Invocation, number: int | None) -> None:
    """Publish generation NUMBER again as the newest; by default the one before the newest.

    The new generation names the same file: nothing is copied, and open readers are not disturbed.
    """
    from refold.pipelines.cli.support import output
    from refold.warehouse.read_models.generations.rollback import roll_back

    made = roll_back(call.open_generations(), number)
    if call.json:
        output.print_json(
            {"generation": made.number, "shows": made.parent, "position": made.position, "file": made.file}
        )
        return
    output.print_text(
        f"Published generation {made.number}, which is generation {made.parent} again, at position "
        f"{made.position:,}. `refold rebuild` brings the read models to the end of the log."
    )


@generations.command(cls=Command, example="refold generations gc\nrefold generations gc --keep 5 --yes")
@click.option(
    "--keep", type=click.IntRange(min=1), default=3, show_default=True, help="How many of the newest to keep."
)
@click.option(
    "--min-age",
    type=DURATION,
    default="1h",
    show_default=True,
    help="Keep a generation that was superseded more recently.",
)
@click.option(
    "--leftover-age",
    type=DURATION,
    default="24h",
    show_default=True,
    help="Keep leftovers of dead rebuilds, seals and imports that changed more recently.",
)
@click.option("--yes", is_flag=True, help="Remove; without it, only list what would be removed.")
@common_options("domain", "log", "read_models")
@pass_invocation
def gc(call: Invocation, keep: int, min_age: float, leftover_age: float, yes: bool) -> None:
    """Remove old generations and the leftovers of dead runs.

    A file that a reader has open is kept, and so is its generation. Leftovers are files of rebuilds, seals and imports
    that died. Without --yes nothing is removed.
    """
    from datetime import UTC, datetime

    from refold.warehouse.event_log.orphaned_objects import delete_leftovers, log_leftovers
    from refold.warehouse.read_models.generations.garbage_collection import collect, plan_collection

    published = call.open_generations()
    log = _log_if_there(call)
    age = timedelta(seconds=leftover_age)
    planned = plan_collection(published, keep=keep, min_age=timedelta(seconds=min_age), leftover_age=age)
    left = log_leftovers(log, before=datetime.now(UTC) - age) if log else []
    freed = sum(f.bytes for f in (*planned.files, *planned.leftovers, *left))
    if yes:
        freed = collect(published, planned) + delete_leftovers(left)
    _print_collected(call, planned, left, freed, done=yes)


def _log_if_there(call: Invocation) -> EventLog | None:
    """Open the log, if there is one; read models may be where their log is not."""
    from refold.pipelines.cli.support import output
    from refold.warehouse.event_log.layout import CONFIG_KEY
    from refold.warehouse.object_store import open_store

    if open_store(call.settings.log).exists(CONFIG_KEY):
        return call.open_log()
    output.print_note(f"There is no log at {call.settings.log}, so only the read models are examined.")
    return None


def _print_collected(call: Invocation, planned: Collected, left: list[Leftover], freed: int, *, done: bool) -> None:
    from refold.pipelines.cli.support import output

    everything = [*planned.files, *planned.leftovers, *left]
    if call.json:
        output.print_json(
            {
                "done": done,
                "generations": planned.generations,
                "held": planned.held,
                "bytes": freed,
                "objects": [_object(o) for o in everything],
            }
        )
        return
    for number in planned.held:
        output.print_text(f"Generation {number} is kept: a reader has its file open.")
    if not planned.generations and not everything:
        output.print_text("There is nothing to remove.")
        return
    numbers = ", ".join(map(str, planned.generations)) or "none"
    output.print_table(
        ("object", "size", "why"), [(f"{o.store_url}/{o.key}", output.format_size(o.bytes), o.why) for o in everything]
    )
    output.print_text(
        f"{'Removed' if done else 'Would remove'} generations: {numbers}; {output.counted(len(everything), 'object')}, "
        f"{output.format_size(freed)}.{'' if done else ' Nothing is removed without --yes.'}"
    )


def _object(left: Leftover) -> dict[str, Any]:
    return {"url": f"{left.store_url}/{left.key}", "bytes": left.bytes, "why": left.why}
