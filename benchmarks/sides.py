"""Two sides of a comparison: each runs in a process of its own, then every row of their tables is compared."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from refold.warehouse.declarations.projection import ReadModel

Measurement = dict[str, Any]


def run_side(module: str, side: str, folder: Path, *arguments: str) -> Measurement:
    """Run one side of a benchmark in a new process, and read the JSON object on its last line."""
    command = [sys.executable, "-m", module, "--side", side, "--folder", str(folder), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(work: Callable[[], Measurement | None]) -> Measurement:
    """Run one side in this process; return its seconds and the process's peak memory."""
    started = time.perf_counter()
    result = work() or {}
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_memory_mib": peak_memory_mib(), **result}


def peak_memory_mib() -> int:
    """Return this process's peak resident memory; ``getrusage`` would include that of the process that forked it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def rebuild_side(folder: Path, domain_ref: str, workers: int, only: Sequence[str] = ()) -> Measurement:
    """Rebuild with refold, and note when each phase began."""
    from refold.pipelines.beam.runners import beam_options
    from refold.pipelines.rebuild.rebuild import rebuild
    from refold.pipelines.rebuild.replay import RebuildProgress
    from refold.warehouse.event_log.opening import open_log

    started = time.perf_counter()
    phases: dict[str, float] = {}

    def note(progress: RebuildProgress) -> None:
        phases.setdefault(progress.phase, round(time.perf_counter() - started, 2))

    rebuilt = rebuild(
        open_log(str(folder / "log")),
        domain_ref,
        str(folder / "read-models"),
        beam_options(None, [f"--direct_num_workers={workers}"]),
        only=only,
        report=note,
    )
    return {"replayed": rebuilt.events, "phases": phases}


def differences(ours: Path, theirs: Path, models: Iterable[ReadModel]) -> dict[str, int]:
    """Count, for each table, the rows that differ between two DuckDB files."""
    found = {}
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{ours}' AS ours (READ_ONLY); ATTACH '{theirs}' AS theirs (READ_ONLY)")
        for model in models:
            key = " AND ".join(f"o.{k} = t.{k}" for k in model.key)
            same = " AND ".join(f"o.{c} IS NOT DISTINCT FROM t.{c}" for c in model.table)
            some = next(iter(model.key))
            row = connection.execute(
                f"SELECT count(*) FROM ours.{model.name} o FULL JOIN theirs.{model.name} t ON {key} "
                f"WHERE NOT ({same}) OR o.{some} IS NULL OR t.{some} IS NULL"
            ).fetchone()
            found[model.name] = int(row[0]) if row else -1
    return found


def comparison(events: int, ours: Measurement, theirs: Measurement, found: dict[str, int]) -> Measurement:
    """Return both sides under the keys that all benchmarks share."""
    return {
        "events": events,
        "rebuild_seconds": round(ours["seconds"], 2),
        "duckdb_seconds": round(theirs["seconds"], 2),
        "ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "events_per_second": round(events / ours["seconds"]),
        "peak_memory_mib": ours["peak_memory_mib"],
        "duckdb_peak_memory_mib": theirs["peak_memory_mib"],
        "agree": not any(found.values()),
        "differences": found,
        "phases": ours["phases"],
    }


def print_result(result: Measurement, *, as_json: bool) -> None:
    """Print a result: one readable line per value, and one JSON object as the last line."""
    if not as_json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))
