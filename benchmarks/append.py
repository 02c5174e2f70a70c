"""Single appends to a log on local disk: one writer, one event per commit, fsynced.

``python -m benchmarks.append --events 2000 --json``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click

from benchmarks.sides import peak_memory_mib, print_result
from refold import Appender, create_log, load_domain
from refold.event_schemas.orders import OrderDelivered


@click.command()
@click.option("--events", type=int, default=2_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="On the disk to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
def main(events: int, folder: Path | None, as_json: bool) -> None:
    """Measure single appends."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        log = create_log(place, domain_name="orders")
        appender = Appender(log, load_domain("orders").registry)
        delivered = OrderDelivered(signed_by=None, left_at_door=True)
        seconds = []
        for i in range(events):
            started = time.perf_counter()
            appender.append(f"order-{i % 1000}", [delivered])
            seconds.append(time.perf_counter() - started)
    cuts = statistics.quantiles(seconds, n=100)
    result = {
        "events": events,
        "events_per_second": round(events / sum(seconds)),
        "p50_ms": round(cuts[49] * 1000, 2),
        "p99_ms": round(cuts[98] * 1000, 2),
        "peak_memory_mib": peak_memory_mib(),
    }
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
