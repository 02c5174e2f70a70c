"""``refold rebuild``: builds read models from the whole log, and publishes them together."""

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
from refold.pipelines.cli.support.metrics_port import measure_generation, measure_log, metered
from refold.pipelines.cli.support.options import dead_letter_option, metrics_port_option

if TYPE_CHECKING:
    from refold.event_schemas import DisagreementError
    from refold.pipelines.rebuild.as_of import AsOf
    from refold.pipelines.rebuild.rebuild import RebuildProgress, Rebuilt
    from refold.warehouse.event_log.log import EventLog
    from refold.warehouse.read_models.comparison.cut_over_check import Verified
    from refold.warehouse.read_models.planning.plan import RebuildPlan

_EXAMPLE = """\
refold rebuild
refold rebuild order_summary inventory_status
refold rebuild --all
refold rebuild --verify
refold rebuild --as-of 2026-01-31T12:00:00Z --to january.duckdb
refold rebuild --json -- --direct_num_workers=8"""
_HERE, _THERE = "rebuilt", "published"


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--only", multiple=True, metavar="NAME", help="Rebuild this read model; repeatable. The same as NAME.")
@click.option("--all", "everything", is_flag=True, help="Rebuild all read models, changed or not.")
@dead_letter_option
@click.option(
    "--verify",
    is_flag=True,
    help="Publish only if the rebuilt rows equal those published, caught up to the same position; otherwise exit with "
    "code 4. Without NAME all are rebuilt.",
)
@click.option(
    "--as-of",
    metavar="POSITION|TIME",
    help="Build the read models as they were at this position, or at the last commit recorded by this time; "
    "needs --to.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="With --as-of: the file to build; nothing is published.",
)
@click.option("--hot-only", is_flag=True, help="Refuse to read the archive: only read models that need none of it.")
@metrics_port_option
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def rebuild(
    call: Invocation,
    names: tuple[str, ...],
    only: tuple[str, ...],
    everything: bool,
    dead_letter: bool,
    verify: bool,
    as_of: str | None,
    to: Path | None,
    hot_only: bool,
    metrics_port: int | None,
) -> None:
    """Rebuild read models and publish the next generation.

    By default the rebuild covers read models that are new or changed, as `refold plan` shows; with NAME only those,
    with --all all of them. The others are copied from the newest generation and caught up; those that are no longer
    declared are dropped. Readers see the old generation until the new one is complete. A rebuild that was killed
    resumes.
    """
    chosen = tuple(dict.fromkeys((*names, *only)))
    for name in chosen:
        call.domain.read_model(name)
    if chosen and everything:
        raise click.UsageError("--all and NAME exclude each other.")
    if hot_only and (as_of is not None or to is not None):
        raise click.UsageError("--hot-only and --as-of exclude each other.")
    if as_of is not None or to is not None:
        _rebuild_as_of(call, chosen, as_of, to, dead_letter=dead_letter, verify=verify)
        return
    log = call.open_log()
    if not (chosen or everything or verify):
        from refold.warehouse.read_models.planning.plan import plan_rebuild

        plan = plan_rebuild(log, call.domain, call.open_generations())
        if not plan.work:
            _say_nothing_to_do(call, plan)
            return
        chosen = plan.to_rebuild
        if not chosen:
            _republish(call, log, plan, dead_letter)
            return
    options = call.beam_options()

    from refold.event_schemas import DisagreementError
    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.rebuild.rebuild import rebuild as rebuild_read_models

    url, domain = call.settings.read_models, call.domain_ref
    try:
        with metered(metrics_port) as metrics, rebuild_progress(quiet=call.quiet) as show:
            measure_log(metrics, log)

            def report(progress: RebuildProgress) -> None:
                show(progress)
                metrics.report(progress)

            rebuilt = rebuild_read_models(
                log,
                domain,
                url,
                options,
                only=chosen,
                dead_letter=dead_letter,
                verify=verify,
                hot_only=hot_only,
                report=report,
            )
            metrics.published(rebuilt.generation.number, rebuilt.seconds)
            measure_generation(metrics, log, call.open_generations(), rebuilt.generation)
    except DisagreementError as error:
        _print_differences(call, error)
        raise
    if call.json:
        output.print_json(_document(rebuilt))
        return
    print_rebuilt(rebuilt)


def _say_nothing_to_do(call: Invocation, plan: RebuildPlan) -> None:
    from refold.pipelines.cli.plan import lag_text
    from refold.pipelines.cli.support.output import print_json, print_text

    if call.json:
        print_json({"generation": plan.generation, "published": False, "rebuilt": [], "behind": plan.behind})
        return
    if plan.generation is None:
        print_text(f"Nothing to rebuild: domain {call.domain.name} declares no read models.")
        return
    print_text(
        f"Nothing to rebuild: generation {plan.generation} has every read model as declared. `refold rebuild --all` "
        "rebuilds them nevertheless."
    )
    if lag := lag_text(plan):
        print_text(lag)


def _republish(call: Invocation, log: EventLog, plan: RebuildPlan, dead_letter: bool) -> None:
    """Publish again without a replay: only views changed, or read models are no longer declared."""
    options = call.beam_options()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.cli.support.output import print_json, print_text
    from refold.pipelines.rebuild.publisher import republish

    url, domain = call.settings.read_models, call.domain_ref
    with rebuild_progress(quiet=call.quiet) as report:
        generation = republish(log, domain, url, options, dead_letter=dead_letter, report=report)
    changed = [*plan.removed, *(v.name for v in plan.views)]
    if call.json:
        document = {"generation": generation.number, "position": generation.position, "published": True}
        print_json({**document, "rebuilt": [], "removed": list(plan.removed), "views": [v.name for v in plan.views]})
        return
    print_text(
        f"Published generation {generation.number} at position {generation.position:,} without a replay; changed or "
        f"dropped: {', '.join(changed)}."
    )


def _rebuild_as_of(
    call: Invocation, names: tuple[str, ...], as_of: str | None, to: Path | None, *, dead_letter: bool, verify: bool
) -> None:
    """Build a private file, and publish nothing."""
    if as_of is None or to is None:
        raise click.UsageError("--as-of and --to need each other: what to build, and in which file.")
    if verify:
        raise click.UsageError("--verify needs a publish, and --as-of publishes nothing.")
    log, options, generations = call.open_log(), call.beam_options(), call.open_generations()

    from refold.pipelines.cli.progress import rebuild_progress
    from refold.pipelines.cli.support import output
    from refold.pipelines.rebuild.as_of import rebuild_as_of
    from refold.pipelines.rebuild.new_file import refuse_existing
    from refold.warehouse.event_log.reads.seek import find_place
    from refold.warehouse.read_models.dead_letters.dead_letters import published_discards

    refuse_existing(to)
    with rebuild_progress(quiet=call.quiet) as report:
        built = rebuild_as_of(
            log,
            call.domain_ref,
            options,
            position=find_place(log, call.domain.registry, as_of).position,
            to=to,
            staging_url=generations.store.url,
            only=names,
            dead_letter=dead_letter,
            discarded=published_discards(generations, generations.newest(), log_id=log.log_id),
            report=report,
        )
    if call.json:
        output.print_json(_as_of_document(built))
        return
    output.print_text(
        f"Built {built.path} as of position {built.at.position:,}, recorded at "
        f"{output.format_time(built.at.recorded_at)} ({output.format_duration(built.seconds)}). Nothing was published."
    )
    output.print_table(("read model", "rows"), sorted(built.rows.items()))


def _as_of_document(built: AsOf) -> dict[str, Any]:
    return {
        "path": str(built.path),
        "position": built.at.position,
        "commit": built.at.commit_number,
        "recorded_at": built.at.recorded_at,
        "seconds": round(built.seconds, 3),
        "resumed": built.resumed,
        "dead_letters": built.dead_letters,
        "tables": dict(sorted(built.rows.items())),
    }


def _print_differences(call: Invocation, error: DisagreementError) -> None:
    from refold.pipelines.cli.support import output
    from refold.pipelines.cli.support.difference_tables import as_documents, print_differences

    if call.json:
        documents = as_documents(error.differences, here=_HERE, there=_THERE)
        output.print_json({"published": False, "differences": documents})
    else:
        print_differences(error.differences, here=_HERE, there=_THERE)


def _document(rebuilt: Rebuilt) -> dict[str, object]:
    from refold.pipelines.cli.support.difference_tables import as_documents

    generation, verified = rebuilt.generation, rebuilt.verified
    return {
        "generation": generation.number,
        "published": True,
        "rebuilt": list(rebuilt.names),
        "seeded": list(rebuilt.seeded),
        "position": generation.position,
        "published_at": generation.published_at,
        "events": rebuilt.events,
        "seconds": round(rebuilt.seconds, 3),
        "events_per_second": round(rebuilt.events / rebuilt.seconds),
        "resumed": rebuilt.resumed,
        "dead_letters": rebuilt.dead_letters,
        "tables": {name: table.rows for name, table in sorted(generation.tables.items())},
        "verified": verified
        and {
            "against": verified.parent or None,
            "agreed": verified.agreed,
            "changed": as_documents(verified.changed, here=_HERE, there=_THERE),
        },
    }


def print_rebuilt(rebuilt: Rebuilt) -> None:
    """Print what a rebuild did."""
    from refold.pipelines.cli.support.output import (
        counted,
        format_duration,
        print_note,
        print_table,
        print_text,
    )

    generation = rebuilt.generation
    speed = round(rebuilt.events / rebuilt.seconds)
    print_text(
        f"Published generation {generation.number} at position {generation.position:,}: "
        f"{counted(rebuilt.events, 'event')} replayed in {format_duration(rebuilt.seconds)} ({speed:,} a second)."
    )
    if rebuilt.seeded:
        print_text(f"Started from an earlier generation: {', '.join(rebuilt.seeded)}.")
    if rebuilt.resumed:
        print_text(f"Resumed: {counted(rebuilt.resumed, 'staged object')} of an earlier run used again.")
    print_table(("read model", "rows"), [(name, t.rows) for name, t in sorted(generation.tables.items())])
    if rebuilt.verified:
        _print_verified(rebuilt.verified)
    if rebuilt.dead_letters:
        print_note(
            f"{counted(rebuilt.dead_letters, 'open dead letter')}: "
            "see `refold dead-letters list`; once the cause is fixed, run `refold dead-letters retry`."
        )


def _print_verified(verified: Verified) -> None:
    from refold.pipelines.cli.support.difference_tables import print_differences
    from refold.pipelines.cli.support.output import print_text

    if not verified.parent:
        print_text("Not verified: nothing was published before.")
    elif verified.agreed:
        print_text(
            f"Verified against generation {verified.parent}: every row of {', '.join(verified.agreed)} is equal."
        )
    if verified.changed:
        print_text(f"Not verified, since the declaration changed after generation {verified.parent}:")
        print_differences(verified.changed, here=_HERE, there=_THERE)
