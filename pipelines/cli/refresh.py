"""``refold refresh``: plan, rebuild or catch up, publish, reconcile; the one command for a scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    BeamCommand,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.pipelines.rebuild.refresh import Refreshed
    from refold.warehouse.read_models.generations.generations import Generation

DIFFERS = 4

_EXAMPLE = """\
refold refresh
refold refresh --verify --json
refold refresh --json -- --direct_num_workers=8"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.option("--verify", is_flag=True, help="Compare with a rebuild in the end; exit with code 4 if any row differs.")
@click.option(
    "--dead-letter",
    is_flag=True,
    help="Keep events that cannot be applied in refold.dead_letters, in place of stopping.",
)
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def refresh(call: Invocation, verify: bool, dead_letter: bool) -> None:
    """Bring the read models to their declarations and to the end of the log, for a scheduler to run.

    What `refold plan` finds new or changed is rebuilt, the others are caught up, and one generation is published; if
    there is nothing to do, nothing is. Run twice, or by two schedulers at once, it does no harm; killed, it left the
    old generation, and the next run goes on where it was. Exits with 0 when the read models are fresh, 4 when --verify
    finds a difference, and 1 when it failed.
    """
    log, options = call.open_log(), call.beam_options()

    from refold.pipelines.cli.progress import rebuild_bars
    from refold.pipelines.cli.support.output import print_json
    from refold.pipelines.rebuild.refresh import refresh as refresh_read_models

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_bars() as report:
        done = refresh_read_models(log, domain, url, options, dead_letter=dead_letter, verify=verify, report=report)
    newest = done.published or call.open_generations().newest()
    if call.json:
        print_json(_document(done, newest))
    else:
        _print(done, newest)
    if done.reconciliation and done.reconciliation.differences:
        raise click.exceptions.Exit(DIFFERS)


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
        duration,
        plural,
        print_table,
        say,
    )

    if newest is None:
        return
    if done.published is None:
        say(f"Nothing to do: generation {newest.number} shows every event, as it is declared.")
    else:
        told = []
        if done.rebuilt:
            told.append(f"rebuilt {', '.join(done.rebuilt)}")
        if done.plan.removed:
            told.append(f"dropped {', '.join(done.plan.removed)}")
        if done.caught_up:
            told.append(f"caught up with {plural(done.caught_up, 'event')}")
        say(
            f"Published generation {newest.number} at position {newest.position:,} in {duration(done.seconds)}: "
            f"{'; '.join(told) or 'views made anew'}."
        )
        print_table(("read model", "rows"), [(name, t.rows) for name, t in sorted(newest.tables.items())])
    if done.dead_letters:
        say(
            f'{plural(done.dead_letters, "event")} could not be applied: see `refold query "FROM refold.dead_letters"`.'
        )
    found = done.reconciliation
    if found and found.differences:
        say(f"A rebuild and generation {found.generation} differ:")
        print_differences(found.differences, here="published", there="rebuilt")
    elif found:
        say(f"A rebuild of generation {found.generation} agrees in every row of {', '.join(found.tables)}.")
