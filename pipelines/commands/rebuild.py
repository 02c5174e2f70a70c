"""``refold rebuild``: read models anew from the whole log, published at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipelines.commands.invocation import BeamCommand, Invocation, common_options, pass_invocation
from pipelines.commands.metered import metered, metrics_option, tell_generation, tell_log

if TYPE_CHECKING:
    from pipelines.rebuild import Progress, Rebuilt

_EXAMPLE = """\
refold rebuild
refold rebuild order_summary inventory_status
refold rebuild --json -- --direct_num_workers=8"""


@click.command(cls=BeamCommand, example=_EXAMPLE)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--only", multiple=True, metavar="NAME", help="Rebuild this read model; repeatable. The same as NAME.")
@click.option(
    "--dead-letter",
    is_flag=True,
    help="Keep events that cannot be applied in refold.dead_letters, in place of stopping.",
)
@metrics_option
@common_options("domain", "log", "read_models", "runner")
@pass_invocation
def rebuild(
    call: Invocation, names: tuple[str, ...], only: tuple[str, ...], dead_letter: bool, metrics_port: int | None
) -> None:
    """Rebuild read models from the log, and publish them as the next generation.

    All by default; with NAME only those, while the others are taken from the newest generation and caught up. Readers
    are served the old generation until the new one is complete. A rebuild that was killed goes on where it was.
    """
    chosen = tuple(dict.fromkeys((*names, *only)))
    for name in chosen:
        call.domain.read_model(name)
    log, options = call.open_log(), call.beam_options()

    from pipelines.commands import output
    from pipelines.progress import rebuild_bars
    from pipelines.rebuild import rebuild as rebuild_read_models

    url, domain = call.settings.read_models, call.settings.domain
    with metered(metrics_port) as metrics, rebuild_bars() as show:
        tell_log(metrics, log)

        def report(progress: Progress) -> None:
            show(progress)
            metrics.report(progress)

        rebuilt = rebuild_read_models(log, domain, url, options, only=chosen, dead_letter=dead_letter, report=report)
        metrics.published(rebuilt.generation.number, rebuilt.seconds)
        tell_generation(metrics, log, call.open_generations(), rebuilt.generation)
    if call.json:
        output.print_json(_document(rebuilt))
        return
    print_rebuilt(rebuilt)


def _document(rebuilt: Rebuilt) -> dict[str, object]:
    generation = rebuilt.generation
    return {
        "generation": generation.number,
        "position": generation.position,
        "published_at": generation.published_at,
        "events": rebuilt.events,
        "seconds": round(rebuilt.seconds, 3),
        "events_per_second": round(rebuilt.events / rebuilt.seconds),
        "resumed": rebuilt.resumed,
        "dead_letters": rebuilt.dead_letters,
        "tables": {name: table.rows for name, table in sorted(generation.tables.items())},
    }


def print_rebuilt(rebuilt: Rebuilt) -> None:
    """Tell what a rebuild did."""
    from pipelines.commands.output import aside, duration, plural, print_table, say

    generation = rebuilt.generation
    speed = round(rebuilt.events / rebuilt.seconds)
    say(
        f"Published generation {generation.number} at position {generation.position:,}: "
        f"{plural(rebuilt.events, 'event')} replayed in {duration(rebuilt.seconds)} ({speed:,} a second)."
    )
    if rebuilt.resumed:
        say(f"An earlier run had left {plural(rebuilt.resumed, 'staged object')}, not made again.")
    print_table(("read model", "rows"), [(name, t.rows) for name, t in sorted(generation.tables.items())])
    if rebuilt.dead_letters:
        aside(
            f"{plural(rebuilt.dead_letters, 'event')} could not be applied: "
            "see `refold dead-letters list`, and `refold dead-letters retry` when they can be."
        )
