"""The HTTP API under load: requests per second on a million orders while a writer appends.

``python -m benchmarks.serve --json``. A writer appends at a steady rate all the time. Two servers are measured:

- live: ``refold serve --stream``, one process that follows the log and answers from its live database.
- replica: ``refold serve`` beside a ``refold stream`` in a process of its own, answering from published generations.

Requests for random orders, customers' orders, stock and revenue alternate with those for a constant document, which
take the same way but run no query: the ratio shows what the queries cost. Then the same requests are sent at a steady
rate, each timed from the instant when it was due. At the end a sample of responses is compared with the published
tables.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import duckdb

from benchmarks.busy_shop import make_shop
from benchmarks.http_load import KINDS, Load, closed_loop, open_loop, path_of
from benchmarks.sides import Measurement, print_result
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild

DOMAIN = "orders"
_OPEN_RATE = 300
_SAMPLE = 50
_ORDER = "FROM order_summary WHERE order_id = ?"
_CUSTOMER = "FROM order_summary WHERE customer_id = ? ORDER BY placed_at DESC NULLS LAST, order_id LIMIT 50"
_INVENTORY = "FROM inventory_status WHERE sku = ?"
_REVENUE = """
SELECT date_trunc('week', day)::DATE AS period, currency, sum(orders_paid)::BIGINT AS orders_paid,
       sum(revenue)::DECIMAL(18,2) AS revenue, sum(refunds)::DECIMAL(18,2) AS refunds,
       sum(revenue - refunds)::DECIMAL(18,2) AS net_revenue
FROM revenue_by_day WHERE day >= ?::DATE GROUP BY ALL ORDER BY ALL
"""


class Server:
    """A server that runs.

    Args:
        process: its process.
        port: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> Any:
        """Send a request, and return the document."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def wait_until_current(self) -> int:
        """Wait until responses show the whole log, and return its position."""
        while True:
            answer = self.get("/reports/revenue?by=month")
            if answer["lag"]["events"] == 0 and answer["position"] >= self.get("/status")["log"]["position"]:
                return int(answer["position"])
            time.sleep(0.1)


def _refold(folder: Path, *command: str) -> list[str]:
    stores = ["--log", str(folder / "log"), "--read-models", str(folder / "read-models")]
    return [sys.executable, "-m", "refold", "--domain", DOMAIN, *stores, *command]


@contextmanager
def serving(folder: Path, *, live: bool) -> Iterator[Server]:
    """Run a server that follows the log or answers from published generations."""
    command = _refold(folder, "serve", "--port", "0", *(["--stream"] if live else []))
    environment = {**os.environ, "REFOLD_SERVE_CONSTANT": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if line.startswith("Serving"))
            server = Server(process, int(line.rsplit(":", 1)[1]))
            _wait_until_ready(server)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()


def _wait_until_ready(server: Server) -> None:
    while True:
        try:
            server.get("/readyz")
        except OSError:
            time.sleep(0.1)
        else:
            return


@contextmanager
def streaming(folder: Path) -> Iterator[None]:
    """Run a stream in a process of its own; at the end everything is published."""
    with subprocess.Popen(_refold(folder, "stream", "--no-rebuild"), stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)


@contextmanager
def writing(folder: Path, orders: int, rate: float) -> Iterator[None]:
    """Append at a steady rate, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.busy_shop", str(folder), "--orders", str(orders), "--rate", str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL):
            try:
                yield
            finally:
                assert process.stdin is not None
                process.stdin.close()


def under_load(server: Server, orders: int, seconds: float, rounds: int) -> Measurement:
    """Measure one server beside a writer."""
    constant: list[float] = []
    mixed: list[float] = []
    refused = 0
    for _ in range(rounds):
        for kind, rates in (("constant", constant), ("mixed", mixed)):
            rate = closed_loop(Load(server.port, kind, orders, seconds))
            rates.append(rate.per_second)
            refused += rate.refused + rate.lost
    alone = {}
    for kind in KINDS:
        rate = closed_loop(Load(server.port, kind, orders, max(seconds / 2, 1)))
        alone[kind] = round(rate.per_second)
        refused += rate.refused + rate.lost
    steady = open_loop(Load(server.port, "mixed", orders, 2 * seconds), _OPEN_RATE)
    return {
        "requests_per_second": round(statistics.median(mixed)),
        "constant_requests_per_second": round(statistics.median(constant)),
        "ratio": round(statistics.median(m / c for m, c in zip(mixed, constant, strict=True)), 3),
        "alone_per_second": alone,
        "refused": refused + steady.pop("refused"),
        "steady_rate": _OPEN_RATE,
        **steady,
    }


def answers(server: Server, orders: int) -> list[tuple[str, list[Any], Any]]:
    """Send a sample of requests; return SQL and values of the same meaning, and the response."""
    chance = random.Random()
    found: list[tuple[str, list[Any], Any]] = []
    for kind, sql in (("order", _ORDER), ("customer", _CUSTOMER), ("inventory", _INVENTORY)):
        for _ in range(_SAMPLE):
            path = path_of(kind, orders, chance)
            found.append((sql, [path.split("/")[2]], server.get(path)["data"]))
    for day in ("2019-12-01", "2020-01-03", "2020-02-01"):
        found.append((_REVENUE, [day], server.get(f"/reports/revenue?from={day}&by=week")["data"]))
    return found


def agree(published: Path, position: int, sample: list[tuple[str, list[Any], Any]]) -> bool:
    """Compare responses with the published tables at the same position."""
    with duckdb.connect(str(published), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        [[shown]] = connection.execute("SELECT position FROM refold.checkpoint").fetchall()
        if shown != position:
            return False
        for sql, values, answered in sample:
            cursor = connection.execute(sql, values)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            given = answered if isinstance(answered, list) else [answered]
            if [{n: _comparable(v, row[n]) for n, v in row.items()} for row in rows] != [
                {n: _comparable(v, row.get(n)) for n, v in answer.items()}
                for row, answer in zip(rows, given, strict=False)
            ] or len(rows) != len(given):
                return False
    return True


def _comparable(value: Any, like: Any) -> Any:
    """Convert a value of a response to the type of a value of a table."""
    if isinstance(like, datetime):
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(like, date):
        return date.fromisoformat(value) if isinstance(value, str) else value
    return Decimal(value) if isinstance(like, Decimal) else value


def measure(folder: Path, orders: int, seconds: float, rounds: int, rate: float, *, live: bool) -> Measurement:
    """Measure one way to serve, and check its answers."""
    published = folder / "read-models" / DOMAIN / "current.duckdb"
    with serving(folder, live=live) as server:
        if live:
            with writing(folder, orders, rate):
                found = under_load(server, orders, seconds, rounds)
        else:
            with streaming(folder), writing(folder, orders, rate):
                found = under_load(server, orders, seconds, rounds)
        position = server.wait_until_current()
        sample = answers(server, orders)
        found["resident_mib"] = _resident_mib(server.process.pid)
    return found | {"agree": agree(published, position, sample)}


def _resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) // 1024


@click.command()
@click.option("--orders", type=int, default=1_000_000, show_default=True)
@click.option("--seconds", type=float, default=10, show_default=True, help="Of each round.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--rate", type=float, default=50, show_default=True, help="Appends a second of the writer.")
@click.option("--only", type=click.Choice(["live", "replica"]), help="Measure one way to serve only.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("benchmark-data"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
def main(orders: int, seconds: float, rounds: int, rate: float, only: str | None, folder: Path, as_json: bool) -> None:
    """Measure the HTTP API."""
    folder = folder / f"serve-{orders}"
    log = make_shop(folder, orders)
    shutil.rmtree(folder / "read-models", ignore_errors=True)
    rebuild(log, DOMAIN, str(folder / "read-models"), beam_options(None))
    ways = [only] if only else ["live", "replica"]
    found = {way: measure(folder, orders, seconds, rounds, rate, live=way == "live") for way in ways}
    first = found[ways[0]]
    keys = ("requests_per_second", "constant_requests_per_second", "ratio", "p50_ms", "p99_ms")
    result: Measurement = {"orders": orders, **{key: first[key] for key in keys}}
    print_result(result | {"agree": all(f["agree"] for f in found.values())} | found, as_json=as_json)


if __name__ == "__main__":
    main()
