"""Rebuild of all order read models against the same tables by hand-written SQL in plain DuckDB.

Both sides run in a process of their own, on the same segments, one after the other; then every row of every table is
compared. ``python -m benchmarks.rebuild --events 20000000 --json`` makes the log first, or finds it in ``--folder``.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import duckdb

from benchmarks.order_log import DOMAIN, make_order_log
from warehouse.event_log.log import open_log
from warehouse.orders import ORDERS


def _run_side(side: str, folder: Path, threads: int) -> dict[str, float]:
    """Run one side in a process of its own; its last line of output is its measurement."""
    command = [sys.executable, "-m", "benchmarks.rebuild", "--side", side, "--folder", str(folder)]
    done = subprocess.run([*command, "--workers", str(threads)], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure_refold(folder: Path, workers: int) -> dict[str, float]:
    from pipelines.rebuild import rebuild
    from pipelines.runners import make_options

    started = time.perf_counter()
    log = open_log(str(folder / "log"))
    options = make_options(None, [f"--direct_num_workers={workers}"])
    phases: dict[str, float] = {}
    rebuilt = rebuild(
        log,
        DOMAIN,
        str(folder / "read-models"),
        options,
        report=lambda p: phases.setdefault(p.phase, round(time.perf_counter() - started, 2)),
    )
    return {"seconds": time.perf_counter() - started, "applied": rebuilt.events, **_peak(), "phases": phases}  # type: ignore[dict-item]


def _measure_by_hand(folder: Path, workers: int) -> dict[str, float]:
    from benchmarks.by_hand import build_by_hand

    started = time.perf_counter()
    build_by_hand(folder / "log" / "segments", folder / "by-hand.duckdb", threads=workers)
    return {"seconds": time.perf_counter() - started, **_peak()}


def _peak() -> dict[str, float]:
    return {"peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}


def _differences(ours: Path, theirs: Path) -> dict[str, int]:
    """Count, a table, the rows that are not the same on both sides."""
    found = {}
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{ours}' AS ours (READ_ONLY); ATTACH '{theirs}' AS theirs (READ_ONLY)")
        for model in ORDERS.read_models:
            key = " AND ".join(f"o.{k} = t.{k}" for k in model.key)
            same = " AND ".join(f"o.{c} IS NOT DISTINCT FROM t.{c}" for c in model.table)
            row = connection.execute(
                f"SELECT count(*) FROM ours.{model.name} o FULL JOIN theirs.{model.name} t ON {key} "
                f"WHERE NOT ({same}) OR o.{next(iter(model.key))} IS NULL OR t.{next(iter(model.key))} IS NULL"
            ).fetchone()
            found[model.name] = int(row[0]) if row else -1
    return found


@click.command()
@click.option("--events", type=int, default=2_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where logs are made and kept.")
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["refold", "by-hand"]), hidden=True)
def main(events: int, folder: Path | None, workers: int, as_json: bool, side: str | None) -> None:
    """Measure a full rebuild against plain DuckDB."""
    if side is not None and folder is not None:
        measure = _measure_refold if side == "refold" else _measure_by_hand
        print(json.dumps(measure(folder, workers)))
        return
    folder = (folder or Path("benchmark-data")) / f"orders-{events}"
    log = make_order_log(folder, events)
    made = log.manifest().sealed_position
    (folder / "by-hand.duckdb").unlink(missing_ok=True)
    shutil.rmtree(folder / "read-models", ignore_errors=True)
    ours = _run_side("refold", folder, workers)
    theirs = _run_side("by-hand", folder, workers)
    differences = _differences(folder / "read-models" / DOMAIN / "current.duckdb", folder / "by-hand.duckdb")
    result = {
        "events": made,
        "rebuild_seconds": round(ours["seconds"], 2),
        "duckdb_seconds": round(theirs["seconds"], 2),
        "ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "events_per_second": round(made / ours["seconds"]),
        "peak_memory_mib": ours["peak_memory_mib"],
        "duckdb_peak_memory_mib": theirs["peak_memory_mib"],
        "agree": not any(differences.values()),
        "differences": differences,
        "phases": ours["phases"],
    }
    if not as_json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
