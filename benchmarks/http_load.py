"""Load on an HTTP server: a closed loop at full speed, or an open loop at a steady rate.

``closed_loop``
    every connection sends its next request after each response: by ``wrk`` if it is installed, else
    by a process of its own.
``open_loop``
    requests are due at a steady rate, whether or not earlier ones are answered; each is timed from the instant when it
    was due, so the latency of a server that stalls includes the wait of all delayed requests.

``python -m benchmarks.http_load closed|open …`` is that process.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

CONNECTIONS = 256
KINDS = ("order", "customer", "inventory", "revenue")
_SCRIPT = Path(__file__).with_name("paths.lua")
_STEPS = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Load:
    """The requests to send.

    Attributes:
        port: of the server, on this machine.
        kind: one of :data:`KINDS`, ``mixed`` for all of them alike, or ``constant``.
        orders: number of orders, which sets the number of customers; keys are uniform over all of them.
        seconds: duration.
    """

    port: int
    kind: str
    orders: int
    seconds: float

    @property
    def arguments(self) -> list[str]:
        """For a process of its own."""
        return [f"--port={self.port}", f"--kind={self.kind}", f"--orders={self.orders}", f"--seconds={self.seconds}"]


@dataclass(frozen=True, slots=True)
class Rate:
    """The result of a closed loop.

    Attributes:
        per_second: responses with status 200 a second.
        refused: other responses.
        lost: requests without a response.
    """

    per_second: float
    refused: int
    lost: int


def path_of(kind: str, orders: int, chance: random.Random) -> str:
    """Make a random request, as ``paths.lua`` does."""
    if kind == "mixed":
        kind = chance.choice(KINDS)
    if kind == "order":
        return f"/orders/order-{chance.randrange(orders)}"
    if kind == "customer":
        return f"/customers/customer-{chance.randrange(max(orders // 5, 1))}/orders"
    if kind == "inventory":
        return f"/products/sku-{chance.randrange(10_000):05d}/inventory"
    if kind == "revenue":
        return f"/reports/revenue?from={_day(chance)}&to={_day(chance)}&by={chance.choice(_STEPS)}"
    return "/benchmark/constant"


def _day(chance: random.Random) -> str:
    return f"20{chance.randint(19, 26)}-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}"


def closed_loop(load: Load) -> Rate:
    """Send as many requests as the server answers, over :data:`CONNECTIONS` connections at once."""
    wrk = shutil.which("wrk")
    if wrk:
        url = f"http://127.0.0.1:{load.port}"
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{max(round(load.seconds), 1)}s", "--timeout", "10s", "-s"]
        command += [str(_SCRIPT), url, "--", load.kind, str(load.orders), str(random.randrange(1 << 30))]
    else:
        command = [sys.executable, "-m", "benchmarks.http_load", "closed", *load.arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return Rate(result["answered"] / result["seconds"], result["refused"], result["lost"])


def open_loop(load: Load, rate: float) -> dict[str, float]:
    """Send requests at a steady rate, from a process of its own; return latencies in milliseconds, and reported lag."""
    command = [sys.executable, "-m", "benchmarks.http_load", "open", *load.arguments, f"--rate={rate}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Connection:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @staticmethod
    async def open(port: int) -> Connection:
        """Connect."""
        return Connection(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> tuple[int, bytes]:
        """Send a request, and return status and body."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        return int(head[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def _closed(load: Load) -> dict[str, float]:
    answered = refused = 0
    started = time.monotonic()

    async def one(number: int) -> None:
        nonlocal answered, refused
        chance = random.Random(random.randrange(1 << 62) + number)
        connection = await Connection.open(load.port)
        while time.monotonic() - started < load.seconds:
            status, _ = await connection.get(path_of(load.kind, load.orders, chance))
            answered, refused = answered + (status == 200), refused + (status != 200)
        connection.close()

    await asyncio.gather(*map(one, range(CONNECTIONS)))
    return {"answered": answered, "refused": refused, "lost": 0, "seconds": time.monotonic() - started}


async def _open(load: Load, rate: float) -> dict[str, float]:
    chance = random.Random()
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    milliseconds: list[float] = []
    events: list[float] = []
    ages: list[float] = []
    refused = 0

    async def one(due: float, path: str) -> None:
        nonlocal refused
        # Opened as they are needed: the server closes a connection that is idle for ten seconds.
        connection = await Connection.open(load.port) if free.empty() else free.get_nowait()
        status, body = await connection.get(path)
        milliseconds.append((time.monotonic() - due) * 1000)
        free.put_nowait(connection)
        if status != 200:
            refused += 1
        elif lag := json.loads(body).get("lag"):
            events.append(lag["events"])
            ages.append(lag["seconds"] or 0.0)

    started, requests = time.monotonic() + 0.1, []
    for number in range(round(load.seconds * rate)):
        due = started + number / rate
        await asyncio.sleep(max(due - time.monotonic(), 0))
        requests.append(asyncio.create_task(one(due, path_of(load.kind, load.orders, chance))))
    await asyncio.gather(*requests)
    while not free.empty():
        free.get_nowait().close()
    return {
        "requests": len(requests),
        "refused": refused,
        **_percentiles("ms", milliseconds),
        **_percentiles("lag_events", events),
        **_percentiles("lag_seconds", ages),
    }


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the maximum."""
    ordered = sorted(values) or [0.0]
    shares: Iterator[tuple[str, float]] = iter((("p50", 0.5), ("p99", 0.99), ("max", 1.0)))
    return {f"{share}_{name}": round(ordered[min(int(len(ordered) * at), len(ordered) - 1)], 3) for share, at in shares}


@click.command()
@click.argument("loop", type=click.Choice(["closed", "open"]))
@click.option("--port", type=int, required=True)
@click.option("--kind", type=str, required=True)
@click.option("--orders", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--rate", type=float, default=300)
def main(loop: str, port: int, kind: str, orders: int, seconds: float, rate: float) -> None:
    """Send requests, and print the result as JSON."""
    load = Load(port, kind, orders, seconds)
    print(json.dumps(asyncio.run(_closed(load) if loop == "closed" else _open(load, rate))))


if __name__ == "__main__":
    main()
