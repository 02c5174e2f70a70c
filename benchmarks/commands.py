"""Commands handled by one process on local disk: one client after another, then many at once, which share commits.

``python -m benchmarks.commands --json``.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import uuid
from decimal import Decimal
from pathlib import Path

import click

from benchmarks.sides import peak_memory_mib, print_result
from refold import create_log, load_domain
from refold.event_schemas.orders import AddItem, PayOrder, PlaceOrder
from refold.warehouse.commands.decisions import Handled
from refold.warehouse.commands.handler import CommandHandler

PRICE = Decimal("2.50")


def commands_of(client: int, order: int) -> list[object]:
    """Return the commands of one order: it is placed, filled and paid."""
    order_id = f"order-{client}-{order}"
    return [
        PlaceOrder(order_id=order_id, customer_id=f"customer-{client}", currency="EUR"),
        AddItem(order_id=order_id, sku="cup", quantity=2, unit_price=PRICE),
        AddItem(order_id=order_id, sku="bowl", quantity=1, unit_price=PRICE),
        PayOrder(order_id=order_id, payment_id=uuid.uuid4(), amount=3 * PRICE, method="card"),
    ]


def work(handler: CommandHandler, client: int, commands: int, seconds: list[float]) -> None:
    """Run one client, which sends a command when the previous one is handled."""
    sent = 0
    while sent < commands:
        for command in commands_of(client, sent)[: commands - sent]:
            started = time.perf_counter()
            answer = handler.handle(command, command_id=str(uuid.uuid4()))
            seconds.append(time.perf_counter() - started)
            assert isinstance(answer, Handled)
            sent += 1


def measured(clients: int, commands: int, folder: Path | None) -> tuple[float, list[float]]:
    """Let clients work concurrently; return the seconds in all, and those of each command."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        handler = CommandHandler(create_log(place, domain_name="orders"), load_domain("orders"))
        work(handler, -1, 40, [])
        seconds: list[list[float]] = [[] for _ in range(clients)]
        threads = [
            threading.Thread(target=work, args=(handler, client, commands // clients, seconds[client]))
            for client in range(clients)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started, [s for mine in seconds for s in mine]


@click.command()
@click.option("--commands", type=int, default=20_000, show_default=True, help="Of all clients together.")
@click.option("--clients", type=int, default=32, show_default=True)
@click.option("--single", type=int, default=1_000, show_default=True, help="Commands of the one client.")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="On the disk to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
def main(commands: int, clients: int, single: int, folder: Path | None, as_json: bool) -> None:
    """Measure commands."""
    _, alone = measured(1, single, folder)
    took, together = measured(clients, commands, folder)
    one, many = statistics.quantiles(alone, n=100), statistics.quantiles(together, n=100)
    result = {
        "clients": clients,
        "commands": len(together),
        "commands_per_second": round(len(together) / took),
        "p50_ms": round(many[49] * 1000, 2),
        "p99_ms": round(many[98] * 1000, 2),
        "one_client_p50_ms": round(one[49] * 1000, 2),
        "one_client_p99_ms": round(one[98] * 1000, 2),
        "peak_memory_mib": peak_memory_mib(),
    }
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
