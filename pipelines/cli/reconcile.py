"""``refold reconcile``: checks that the published rows equal those of a rebuild, or of a second way to them."""

from __future__ import annotations

import random
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
    from refold.pipelines.rebuild.reconciliation import Reconciliation

_HERE = "published"
_SEEDS = 1_000_000


@click.command(
    cls=BeamCommand,
    example="refold reconcile --only order_summary --json\nrefold reconcile --independent --sample 50",
)
@click.option("--only", multiple=True, metavar="NAME", help="Compare this read model; repeatable. All by default.")
@click.option(
    "--independent",
    is_flag=True,
    help="Recompute the rows from the recorded events, one by one, with code that rebuilds and streams do not use.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --independent: compare about N keys of each read model, chosen at random. All by default.",
)
@click.option("--seed", type=int, metavar="N", help="With --sample: choose the same keys as the run that printed N.")
@examples_option
@click.option("--keep", type=click.Path(path_type=Path), metavar="PATH", help="Keep the rebuilt file at this path.")
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def reconcile(
    call: Invocation,
    only: tuple[str, ...],
    independent: bool,
    sample: int | None,
    seed: int | None,
    examples: int,
    keep: Path | None,
) -> None:
    """Compare the published rows with a rebuild.

    The rebuild ends at the position of the newest generation and stays private: nothing is published. Exits with code 4
    if any row differs, and shows keys and columns with both values.

    With --independent, a sequential fold takes the place of the rebuild. It handles a few hundred events a second.
    """
    if sample is not None and not independent:
        raise click.UsageError("--sample needs --independent: a rebuild compares all keys.")
    if seed is not None and sample is None:
        raise click.UsageError("--seed needs --sample: without one, all keys are compared.")
    for name in only:
        call.domain.read_model(name)

    from refold.pipelines.cli.support import output

    if independent:
        chosen = random.randrange(_SEEDS) if seed is None else seed
        found = _independently(call, only, sample, chosen, examples, keep)
    else:
        found = _with_rebuild(call, only, examples, keep)
    there = "recomputed" if independent else "rebuilt"
    if call.json:
        output.print_json(_document(found, there))
    else:
        _print(found, there)
    if found.differences:
        raise click.exceptions.Exit(OBJECTIVE_MISSED)


def _with_rebuild(call: Invocation, only: tuple[str, ...], examples: int, keep: Path | None) -> Reconciliation:
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.rebuild.reconcile import reconcile as reconcile_published

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_progress(quiet=call.quiet) as report:
        return reconcile_published(log, domain, url, options, only=only, keep=keep, examples=examples, report=report)


def _independently(
    call: Invocation, only: tuple[str, ...], sample: int | None, seed: int, examples: int, keep: Path | None
) -> Reconciliation:
    log, url = call.open_log(), call.settings.read_models

    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.rebuild.independent import reconcile_independently

    with count_progress("fold", "events", quiet=call.quiet) as report:
        return reconcile_independently(
            log,
            call.domain_ref,
            url,
            only=only,
            sample=sample,
            seed=seed,
            keep=keep,
            examples=examples,
            report=report,
        )


def _document(found: Reconciliation, there: str) -> dict[str, Any]:
    from refold.pipelines.cli.support.difference_tables import as_documents

    return {
        "agree": not found.differences,
        "generation": found.generation,
        "position": found.position,
        "tables": list(found.tables),
        "skipped": found.skipped,
        "differences": as_documents(found.differences, here=_HERE, there=there),
        "sample_seed": found.sample_seed,
        "seconds": round(found.seconds, 3),
    }


def _print(found: Reconciliation, there: str) -> None:
    from refold.pipelines.cli.support.difference_tables import print_differences
    from refold.pipelines.cli.support.output import format_duration, print_note, print_text

    other = "A rebuild" if there == "rebuilt" else "A sequential fold of the recorded events"
    where = f"generation {found.generation} at position {found.position:,}"
    if found.differences:
        print_text(f"{other} and {where} differ:")
        print_differences(found.differences, here=_HERE, there=there)
    else:
        rows = "every row" if found.sample_seed is None else "every row of the sample"
        print_text(f"{other} equals {where} in {rows} of {', '.join(found.tables)} ({format_duration(found.seconds)}).")
    if found.sample_seed is not None:
        print_note(f"The sample of keys has the seed {found.sample_seed}; repeat it with --seed {found.sample_seed}.")
    for name, why in found.skipped.items():
        print_note(f"Not compared: {name}, since {why}.")
