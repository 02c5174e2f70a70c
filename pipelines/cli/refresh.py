"""``refold refresh``: plan, rebuild or catch up, publish, verify; the one command for a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.exit_codes import OBJECTIVE_MISSED
from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)
from refold.pipelines.cli.support.options import dead_letter_option

if TYPE_CHECKING:
    from refold.pipelines.rebuild.refresh import Refreshed
    from refold.warehouse.read_models.generations.generations import Generation

_EXAMPLE = """\
refold refresh
refold refresh --verify --json
refold refresh --json -- --direct_num_workers=8"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option(
    "--verify", is_flag=True, help="After publishing, compare with a rebuild; exit with code 4 if any row differs."
)
@dead_letter_option
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def refresh(call: Invocation, verify: bool, dead_letter: bool) -> None:
    """Bring the read models up to date, for a scheduler to run.

    Read models that `refold plan` finds new or changed are rebuilt, the others are caught up to the end of the log, and
    one generation is published; without work to do, none is. It is safe to run twice, or by two schedulers at once. If
    it is killed, the old generation stays and the next run resumes. Exits with 0 when the read models are current, 4
    when --verify finds a difference, and 1 when it failed.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.cli.support.output import print_json
    from refold.pipelines.rebuild.refresh import refresh as refresh_read_models

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_progress(quiet=call.quiet) as report:
        done = refresh_read_models(log, domain, url, options, dead_letter=dead_letter, verify=verify, report=report)
    newest = done.published or call.open_generations().newest()
    if call.json:
        print_json(_document(done, newest))
    else:
        _print(done, newest)
    if done.reconciliation and done.reconciliation.differences:
        raise click.exceptions.Exit(OBJECTIVE_MISSED)


def _document(done: Refreshed, newest: Generation | None) -> dict[str, Any]:
    from refold.pipelines.cli.support.difference_tables import as_documents

    found = done.reconciliation
    return {
        "published": done.published is not None,
        "generation": newest and newest.number,
        "position": newest.position if newest else 0,
        "published_at": newest and newest.published_at,
        "rebuilt": [
            {"name": m.name, "verdict": m.verdict.value, "reasons": m.reasons}
            for m in done.plan.read_models
            if m.name in done.rebuilt
        ],
        "removed": list(done.plan.removed),
        "caught_up": done.caught_up,
        "dead_letters": done.dead_letters,
        "tables": {name: table.rows for name, table in sorted(newest.tables.items())} if newest else {},
        "verified": found
        and {
            "agree": not found.differences,
            "tables": list(found.tables),
            "skipped": found.skipped,
            "differences": as_documents(found.differences, here="published", there="rebuilt"),
        },
        "seconds": round(done.seconds, 3),
    }


def _print(done: Refreshed, newest: Generation | None) -> None:
    from refold.pipelines.cli.support.difference_tables import print_differences
    from refold.pipelines.cli.support.output import (
        counted,
        format_duration,
        print_table,
        print_text,
    )

    if newest is None:
        return
    if done.published is None:
        print_text(f"Nothing to do: generation {newest.number} is current.")
    else:
        done_parts = []
        if done.rebuilt:
            done_parts.append(f"rebuilt {', '.join(done.rebuilt)}")
        if done.plan.removed:
            done_parts.append(f"dropped {', '.join(done.plan.removed)}")
        if done.caught_up:
            done_parts.append(f"caught up with {counted(done.caught_up, 'event')}")
        print_text(
            f"Published generation {newest.number} at position {newest.position:,} in {format_duration(done.seconds)}: "
            f"{'; '.join(done_parts) or 'updated views'}."
        )
        print_table(("read model", "rows"), [(name, t.rows) for name, t in sorted(newest.tables.items())])
    if done.dead_letters:
        print_text(f"{counted(done.dead_letters, 'open dead letter')}: see `refold dead-letters list`.")
    found = done.reconciliation
    if found and found.differences:
        print_text(f"A rebuild and generation {found.generation} differ:")
        print_differences(found.differences, here="published", there="rebuilt")
    elif found:
        print_text(f"A rebuild equals generation {found.generation} in every row of {', '.join(found.tables)}.")
