"""Rebuild of all order read models against the same tables by hand-written SQL in plain DuckDB.

Both sides run in a process of their own, on the same segments, one after the other; then every row of every table is
compared. ``python -m benchmarks.rebuild --events 20000000 --json`` makes the log first, or finds it in ``--folder``.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import click

from benchmarks.order_log import DOMAIN, make_order_log
from benchmarks.sides import Measurement, comparison, differences, measured, print_result, rebuild_side, run_side
from refold.warehouse.orders import ORDERS


def _by_hand_side(folder: Path, workers: int) -> Measurement:
    from benchmarks.by_hand import build_by_hand

    build_by_hand(folder / "log" / "segments", folder / "by-hand.duckdb", threads=workers)
    return {}


@click.command()
@click.option("--events", type=int, default=2_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("benchmark-data"), show_default=True)
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["refold", "by-hand"]), hidden=True)
def main(events: int, folder: Path, workers: int, as_json: bool, side: str | None) -> None:
    """Measure a full rebuild against plain DuckDB."""
    if side == "refold":
        print(json.dumps(measured(lambda: rebuild_side(folder, DOMAIN, workers))))
        return
    if side == "by-hand":
        print(json.dumps(measured(lambda: _by_hand_side(folder, workers))))
        return
    folder = folder / f"orders-{events}"
    log = make_order_log(folder, events)
    (folder / "by-hand.duckdb").unlink(missing_ok=True)
    shutil.rmtree(folder / "read-models", ignore_errors=True)
    options = ("--workers", str(workers))
    ours = run_side("benchmarks.rebuild", "refold", folder, *options)
    theirs = run_side("benchmarks.rebuild", "by-hand", folder, *options)
    published = folder / "read-models" / DOMAIN / "current.duckdb"
    found = differences(published, folder / "by-hand.duckdb", ORDERS.read_models)
    print_result(comparison(log.manifest().sealed_position, ours, theirs, found), as_json=as_json)


if __name__ == "__main__":
    main()
