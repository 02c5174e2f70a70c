"""``refold capacity``: what a system needs, by the standard formulas, or forecast from an existing log."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from refold.pipelines.cli.support.invocation import (
    Command,
    Invocation,
    common_options,
    pass_invocation,
)

if TYPE_CHECKING:
    from refold.warehouse.capacity.forecast import Forecast, Observed

_EXAMPLE = """\
refold capacity --entities 10000000 --events-per-entity 20 --payload-bytes 500 --envelope-bytes 100
refold capacity --log s3://my-shop/log --times 10"""


@click.command(cls=Command, example=_EXAMPLE)
@click.option(
    "--entities", type=click.IntRange(min=1), metavar="N", help="How many entities, such as orders. [10000000]"
)
@click.option(
    "--events-per-entity",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Average events of an entity. [20]",
)
@click.option("--payload-bytes", type=click.IntRange(min=1), metavar="N", help="Size of one event's payload. [500]")
@click.option("--envelope-bytes", type=click.IntRange(min=1), metavar="N", help="Size of one event's metadata. [100]")
@click.option(
    "--duplication-factor",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Stored bytes per raw byte, with snapshots and copies. [1.3]",
)
@click.option(
    "--seconds-per-event",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Time in which one worker replays an event. [0.001]",
)
@click.option(
    "--row-bytes", type=click.IntRange(min=1), metavar="N", help="Size of one entity in the read models. [2000]"
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers that replay in parallel. [10; a forecast shows up to 8 or all CPUs]",
)
@click.option(
    "--times",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    metavar="X",
    help="Scale the history by this factor.",
)
@common_options("domain", "log", "read_models")
@pass_invocation
def capacity(call: Invocation, /, workers: int | None, times: float, **sizes: Any) -> None:
    """Estimate what a system needs, or forecast it.

    With any size given, the standard formulas apply; sizes that are not given have the defaults in brackets. Without
    sizes, the forecast takes events, bytes and speed from your log and its last rebuild.
    """
    given = {name: value for name, value in sizes.items() if value is not None}
    if given:
        _estimate(call, given | ({"workers": workers} if workers else {}), times)
        return
    from refold.warehouse.capacity.forecast import forecast, observe

    observed = observe(call.open_log(), call.domain, call.open_generations())
    foreseen = forecast(observed, workers=workers or max(os.cpu_count() or 1, 8), times=times)
    if call.json:
        from refold.pipelines.cli.support.output import print_json

        print_json({"kind": "forecast", "observed": asdict(observed), "forecast": asdict(foreseen)})
        return
    _print_forecast(observed, foreseen)


def _estimate(call: Invocation, given: dict[str, Any], times: float) -> None:
    import dataclasses

    from refold.pipelines.cli.support.output import format_duration, print_json, print_table
    from refold.warehouse.capacity.formulas import Sizing, estimate

    sizing = Sizing(**given)
    sizing = dataclasses.replace(sizing, entities=max(round(sizing.entities * times), 1))
    found = estimate(sizing)
    if call.json:
        print_json({"kind": "estimate", "sizing": asdict(sizing), "estimate": asdict(found)})
        return
    payload, envelope, factor = sizing.payload_bytes, sizing.envelope_bytes, sizing.duplication_factor
    rows = [
        ("events", f"{found.events:,}", f"{sizing.entities:,} entities * {sizing.events_per_entity:g} events"),
        ("raw events", _decimal(found.raw_bytes), f"events * ({payload:,} + {envelope:,}) bytes"),
        ("event store", _decimal(found.stored_bytes), f"raw * {factor:g} for snapshots and copies"),
        (
            "rebuild",
            format_duration(found.rebuild_seconds),
            f"events * {sizing.seconds_per_event:g} s / {sizing.workers:,} workers "
            f"= {found.rebuild_seconds / 3600:.1f} hours",
        ),
        ("read models", _decimal(found.read_model_bytes), f"entities * {sizing.row_bytes:,} bytes"),
    ]
    print_table(("what", "needs", "formula"), rows)


def _print_forecast(observed: Observed, foreseen: Forecast) -> None:
    from refold.pipelines.cli.support.output import format_duration, print_table, print_text

    per_event, smaller = observed.stored_bytes / observed.events, observed.raw_bytes / max(observed.stored_bytes, 1)
    rows = [
        ("events", f"{observed.events:,}", f"{foreseen.events:,}"),
        ("as JSON lines", _decimal(observed.raw_bytes), _decimal(foreseen.raw_bytes)),
        ("stored", _decimal(observed.stored_bytes), _decimal(foreseen.stored_bytes)),
        ("read models", _decimal(observed.read_model_bytes), _decimal(foreseen.read_model_bytes)),
    ]
    print_table(("what", "now", f"{foreseen.times:g} times"), rows)
    row = f"; {observed.read_model_bytes / observed.rows:,.0f} bytes per read-model row" if observed.rows else ""
    print_text(f"{per_event:,.1f} bytes stored per event, {smaller:.1f} times less than as JSON lines{row}.")
    print_text()
    print_table(("workers", "rebuild of all"), [(n, format_duration(s)) for n, s in foreseen.rebuild_seconds.items()])
    for assumption in foreseen.assumptions:
        print_text(f"Assumed: {assumption}.")


def _decimal(count: int) -> str:
    """Format bytes in the units of capacity planning, powers of ten.

    Example:
        >>> _decimal(156_000_000_000), _decimal(812)
        ('156.0 GB', '812 B')
    """
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if amount < 1000 or unit == "PB":
            break
        amount /= 1000
    return f"{count} B" if unit == "B" else f"{amount:,.1f} {unit}"
