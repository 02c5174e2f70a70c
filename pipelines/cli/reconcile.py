"""``refold reconcile``: proves that what is published is what a rebuild makes of the log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.rebuild.reconcile import Reconciliation

DIFFERS = 4
_HERE, _THERE = "published", "rebuilt"


@click.command(cls=BeamCommand, example="refold reconcile\nrefold reconcile --only order_summary --json")
@click.option("--only", multiple=True, metavar="NAME", help="Compare this read model; repeatable. All by default.")
@click.option("--examples", type=click.IntRange(min=1), default=5, show_default=True, help="Keys to show of a table.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="PATH", help="Leave the rebuilt file there.")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def reconcile(call: Invocation, only: tuple[str, ...], examples: int, keep: Path | None) -> None:
    """Rebuild the newest generation as of its own position, in private, and compare every row.

    Publishes nothing. Exits with code 4 if anything differs, and tells which keys and columns, with both values.
    """
    for name in only:
        call.domain.read_model(name)
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import rebuild_bars
    from refold.pipelines.cli.support import output
    from refold.pipelines.rebuild.reconcile import reconcile as reconcile_published

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_bars() as report:
        found = reconcile_published(log, domain, url, options, only=only, keep=keep, examples=examples, report=report)
    if call.json:
        output.print_json(_document(found))
    else:
        _print(found)
    if found.differences:
        raise click.exceptions.Exit(DIFFERS)


def _document(found: Reconciliation) -> dict[str, Any]:
    from refold.pipelines.cli.support.difference_tables import as_documents

    return {
        "agree": not found.differences,
        "generation": found.generation,
        "position": found.position,
        "tables": list(found.tables),
        "skipped": found.skipped,
        "differences": as_documents(found.differences, here=_HERE, there=_THERE),
        "seconds": round(found.seconds, 3),
    }


def _print(found: Reconciliation) -> None:
    from refold.pipelines.cli.support.difference_tables import print_differences
    from refold.pipelines.cli.support.output import aside, duration, say

    where = f"generation {found.generation} at position {found.position:,}"
    if found.differences:
        say(f"A rebuild and {where} differ:")
        print_differences(found.differences, here=_HERE, there=_THERE)
    else:
        say(f"A rebuild and {where} agree in every row of {', '.join(found.tables)} ({duration(found.seconds)}).")
    for name, why in found.skipped.items():
        aside(f"Not compared: {name}, since {why}.")
