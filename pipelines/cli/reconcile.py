"""``refold reconcile``: checks that the published rows equal those of a rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.exit_codes import OBJECTIVE_MISSED
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.options import examples_option

if TYPE_CHECKING:
    from refold.pipelines.rebuild.reconcile import Reconciliation

_HERE, _THERE = "published", "rebuilt"


@click.command(cls=BeamCommand, example="refold reconcile\nrefold reconcile --only order_summary --json")
@click.option("--only", multiple=True, metavar="NAME", help="Compare this read model; repeatable. All by default.")
@examples_option
@click.option("--keep", type=click.Path(path_type=Path), metavar="PATH", help="Keep the rebuilt file at this path.")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def reconcile(call: Invocation, only: tuple[str, ...], examples: int, keep: Path | None) -> None:
    """Compare the published rows with a rebuild.

    The rebuild ends at the position of the newest generation and stays private: nothing is published. Exits with code 4
    if any row differs, and shows keys and columns with both values.
    """
    for name in only:
        call.domain.read_model(name)
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.rebuild.reconcile import reconcile as reconcile_published

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_progress(quiet=call.quiet) as report:
        found = reconcile_published(log, domain, url, options, only=only, keep=keep, examples=examples, report=report)
    if call.json:
        output.print_json(_document(found))
    else:
        _print(found)
    if found.differences:
        raise click.exceptions.Exit(OBJECTIVE_MISSED)


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
    from refold.pipelines.cli.support.output import format_duration, print_note, print_text

    where = f"generation {found.generation} at position {found.position:,}"
    if found.differences:
        print_text(f"A rebuild and {where} differ:")
        print_differences(found.differences, here=_HERE, there=_THERE)
    else:
        print_text(
            f"A rebuild equals {where} in every row of {', '.join(found.tables)} ({format_duration(found.seconds)})."
        )
    for name, why in found.skipped.items():
        print_note(f"Not compared: {name}, since {why}.")
