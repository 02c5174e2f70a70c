"""``refold demo``: shows the whole of refold in one command."""

from __future__ import annotations

import time
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
    from apache_beam.options.pipeline_options import PipelineOptions

    from refold.pipelines.demo.demo import Demo
    from refold.pipelines.rebuild.rebuild import Rebuilt
    from refold.warehouse.event_log.log import EventLog

_TABLES = {
    "orders_by_customer": """
        SELECT customer_id, currency, orders, paid_orders, cancelled_orders, spent, last_order_id
        FROM orders_by_customer ORDER BY spent DESC, customer_id LIMIT 8
    """,
    "revenue_by_month": """
        SELECT month, currency, orders_paid, revenue, refunds, net_revenue
        FROM revenue_by_month WHERE currency = 'EUR' ORDER BY month
    """,
    "inventory_status": """
        SELECT sku, on_hand, reserved, available, CAST(last_movement_at AS DATE) AS last_movement_on
        FROM inventory_status ORDER BY available, sku LIMIT 8
    """,
}
_TITLES = {
    "orders_by_customer": "Orders by customer: who spent most",
    "revenue_by_month": "Revenue dashboard: euros by month",
    "inventory_status": "Inventory status: what runs low",
}
_NEXT = """\
Try next:
  cd {folder}                 # its refold.toml points every command to the demo
  refold status
  refold query "FROM revenue_dashboard ORDER BY day DESC LIMIT 14"
  refold events stream order-000042
  refold events trace cart-000042
  refold schemas list
  refold rebuild inventory_status"""


@click.command(cls=BeamCommand, example="refold demo\nrefold demo --events 1000000 --folder big-demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Where the demo's log and read models go.",
)
@click.option("--events", type=click.IntRange(min=100), metavar="N", help="How many events; 100,000 by default.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed makes the same history.")
@common_options("runner")
@pass_invocation
def demo(call: Invocation, folder: Path, events: int | None, seed: int | None) -> None:
    """Make an order history, seal it, rebuild its read models, and show them.

    A shop's year, with every schema version that its events ever had, goes through ordinary appends into a log in its
    own folder. Run again on the same folder, it goes on where it was stopped; a finished history is kept, and read
    models are rebuilt from it.
    """
    from refold.pipelines.cli.progress import bar
    from refold.pipelines.demo.demo import make_history, prepare

    started = time.perf_counter()
    prepared = prepare(folder, events=events, seed=seed)
    with bar("append", "events") as report:
        made = make_history(prepared, report=lambda there: report(there, max(there, prepared.events)))
        report(made.made, made.made)
    appended = time.perf_counter() - started
    rebuilt = _rebuild(made, call.beam_options())
    shown = _read(made, rebuilt)
    seconds = {"append": appended, "rebuild": rebuilt.seconds, "all": time.perf_counter() - started}
    if call.json:
        _print_json(made, rebuilt, shown, seconds)
    else:
        _print(made, rebuilt, shown, seconds)


def _rebuild(made: Demo, options: PipelineOptions) -> Rebuilt:
    from refold.pipelines.cli.progress import bar, rebuild_bars
    from refold.pipelines.demo.demo import DOMAIN
    from refold.pipelines.rebuild.rebuild import rebuild
    from refold.pipelines.seal import seal
    from refold.warehouse.event_log.log import open_log

    log: EventLog = open_log(made.log_url, domain_name=DOMAIN)
    with bar("seal", "events") as report:
        report(seal(log, DOMAIN, options).events, None)
    with rebuild_bars(without="seal") as report_phase:
        return rebuild(log, DOMAIN, made.read_models_url, options, report=report_phase)


def _read(made: Demo, rebuilt: Rebuilt) -> dict[str, Any]:
    """Read what is shown from the published generation, as an analyst would."""
    from refold.pipelines.cli.support.published import open_generation, read_last_updated
    from refold.pipelines.demo.demo import DOMAIN
    from refold.warehouse.read_models.generations.generations import open_generations

    generations = open_generations(made.read_models_url, DOMAIN)
    with open_generation(generations, rebuilt.generation) as connection:
        shown: dict[str, Any] = {"last_updated": read_last_updated(connection)}
        for name, sql in _TABLES.items():
            rows = connection.execute(sql).fetchall()
            shown[name] = ([column[0] for column in connection.description or ()], rows)
    return shown


def _print_json(made: Demo, rebuilt: Rebuilt, shown: dict[str, Any], seconds: dict[str, float]) -> None:
    from refold.pipelines.cli.support.output import print_json

    tables = {name: [dict(zip(shown[name][0], row, strict=True)) for row in shown[name][1]] for name in _TABLES}
    print_json(
        {
            "folder": str(made.folder),
            "events": made.made,
            "generation": rebuilt.generation.number,
            "position": rebuilt.generation.position,
            "last_updated": shown["last_updated"],
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "read_models": tables,
        }
    )


def _print(made: Demo, rebuilt: Rebuilt, shown: dict[str, Any], seconds: dict[str, float]) -> None:
    from refold.pipelines.cli.support.output import (
        duration,
        moment,
        print_table,
        say,
    )

    position, updated = rebuilt.generation.position, moment(shown["last_updated"] or "")
    say(
        f"{made.made:,} events are in {made.log_url}; all read models were rebuilt from them in "
        f"{duration(rebuilt.seconds)}. Generation {rebuilt.generation.number} is published in {made.read_models_url}. "
        f"All this took {duration(seconds['all'])}."
    )
    for name, title in _TITLES.items():
        say()
        say(f"{title} — position {position:,}, last updated {updated}")
        print_table(*shown[name])
    say()
    say(_NEXT.format(folder=made.folder))
