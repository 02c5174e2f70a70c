"""``refold demo``: shows refold from the first event to a query, in one command."""

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
  cd {folder}                 # its refold.toml points all commands to the demo
  refold status
  refold query "FROM revenue_dashboard ORDER BY day DESC LIMIT 14"
  refold events stream order-000042
  refold events trace cart-000042
  refold schemas list
  refold rebuild inventory_status"""


@click.command(cls=BeamCommand, example="refold demo\nrefold demo --events 1000000 --folder big-demo")
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    default="demo-data",
    show_default=True,
    help="Folder for the demo's log and read models.",
)
@click.option(
    "--events", type=click.IntRange(min=100), metavar="N", help="How many events to make; 100,000 by default."
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same seed makes the same history.")
@common_options("runner")
@pass_invocation
def demo(call: Invocation, folder: str, events: int | None, seed: int | None) -> None:
    """Make an order history and show its read models.

    A year of a shop, with every schema version that its events ever had, is appended to a log in a separate folder,
    sealed, and replayed into read models. A demo that was stopped resumes in the same folder; a complete history is
    kept, and the read models are rebuilt from it.
    """
    from refold.event_schemas import UsageError
    from refold.pipelines.cli.progress import count_progress
    from refold.pipelines.demo.demo import make_history, prepare

    if "://" in folder:
        raise UsageError(
            f"--folder is {folder!r}, but the demo needs a folder on this machine. For a log on an object store, use "
            "`refold ingest --log URL`."
        )
    started = time.perf_counter()
    prepared = prepare(Path(folder), events=events, seed=seed)
    with count_progress("append", "events", quiet=call.quiet) as report:
        made = make_history(prepared, report=lambda there: report(there, max(there, prepared.events)))
        report(made.made, made.made)
    appended = time.perf_counter() - started
    rebuilt = _rebuild(call, made, call.beam_options())
    shown = _read(made, rebuilt)
    seconds = {"append": appended, "rebuild": rebuilt.seconds, "all": time.perf_counter() - started}
    if call.json:
        _print_json(made, rebuilt, shown, seconds)
    else:
        _print(made, rebuilt, shown, seconds)


def _rebuild(call: Invocation, made: Demo, options: PipelineOptions) -> Rebuilt:
    from refold.pipelines.cli.progress import count_progress, rebuild_progress
    from refold.pipelines.demo.demo import DOMAIN
    from refold.pipelines.rebuild.rebuild import rebuild
    from refold.pipelines.seal import seal
    from refold.warehouse.event_log.opening import open_log

    log: EventLog = open_log(made.log_url, domain_name=DOMAIN)
    with count_progress("seal", "events", quiet=call.quiet) as report:
        report(seal(log, DOMAIN, options).events, None)
    with rebuild_progress(without="seal", quiet=call.quiet) as report_phase:
        return rebuild(log, DOMAIN, made.read_models_url, options, report=report_phase)


def _read(made: Demo, rebuilt: Rebuilt) -> dict[str, Any]:
    """Query the published generation, as an analyst would."""
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
        format_duration,
        format_time,
        print_table,
        print_text,
    )

    position, updated = rebuilt.generation.position, format_time(shown["last_updated"] or "")
    print_text(
        f"{made.made:,} events are in {made.log_url}; all read models were rebuilt from them in "
        f"{format_duration(rebuilt.seconds)}. Generation {rebuilt.generation.number} is published in "
        f"{made.read_models_url}. The demo took {format_duration(seconds['all'])}."
    )
    for name, title in _TITLES.items():
        print_text()
        print_text(f"{title} — position {position:,}, last updated {updated}")
        print_table(*shown[name])
    print_text()
    print_text(_NEXT.format(folder=made.folder))
