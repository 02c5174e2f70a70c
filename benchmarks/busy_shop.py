"""A writer beside other work: appends to the million-order log at a steady rate, most of it to orders that are there.

``python -m benchmarks.busy_shop FOLDER`` runs until its standard input is closed, and prints position and time of
each append.
"""

from __future__ import annotations

import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import click

from benchmarks.order_log import make_order_log
from refold.event_schemas.orders import (
    Address,
    ItemAdded,
    OrderDelivered,
    OrderPaid,
    OrderPlaced,
    ShippingAddressUpdated,
    StockReceived,
)
from refold.warehouse.event_log.append import Appender
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.new_events import StreamAppend
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.orders import ORDERS

CUSTOMERS_PER_HUNDRED_ORDERS = 20
SKUS = 10_000
_EVENTS_PER_HUNDRED_ORDERS = 1071


def make_shop(folder: Path, orders: int) -> EventLog:
    """Write a sealed history of this many orders, unless the folder has one."""
    return make_order_log(folder, orders * _EVENTS_PER_HUNDRED_ORDERS // 100 + 1)


def business(orders: int, seed: int) -> Iterator[StreamAppend]:
    """Yield appends without end; half of them go to random old orders.

    Args:
        orders: number of orders, which sets the number of customers.
        seed: the same seed makes the same events.
    """
    chance = random.Random(seed)
    customers = max(orders * CUSTOMERS_PER_HUNDRED_ORDERS // 100, 1)
    while True:
        old, what = f"order-{chance.randrange(orders)}", chance.random()
        if what < 0.3:
            yield StreamAppend(old, [OrderDelivered(signed_by=None, left_at_door=True)])
        elif what < 0.55:
            address = Address(street="Street 1", city=f"City {chance.randrange(500)}")
            yield StreamAppend(old, [ShippingAddressUpdated(address=address)])
        elif what < 0.9:
            yield _new_order(chance, f"customer-{chance.randrange(customers)}")
        else:
            sku = _sku(chance)
            received = StockReceived(sku=sku, quantity=50, unit_cost=Decimal("1.5000"), best_before=None)
            yield StreamAppend(f"stock-{sku}", [received])


def _new_order(chance: random.Random, customer_id: str) -> StreamAppend:
    order_id = f"order-{uuid.UUID(int=chance.getrandbits(128), version=4)}"
    placed = OrderPlaced(order_id=order_id, customer_id=customer_id, currency="EUR", deliver_on=None)
    items = [ItemAdded(sku=_sku(chance), quantity=2, unit_price=Decimal("12.50")) for _ in range(2)]
    paid = OrderPaid(
        order_id=order_id,
        customer_id=customer_id,
        payment_id=uuid.UUID(int=chance.getrandbits(128), version=4),
        amount=Decimal("50.00"),
        currency="EUR",
        method="card",
    )
    return StreamAppend(order_id, [placed, *items, paid])


def _sku(chance: random.Random) -> str:
    return f"sku-{chance.randrange(SKUS):05d}"


def write(log: EventLog, orders: int, rate: float, seed: int) -> None:
    """Append single commits at a steady rate, until standard input is closed."""
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    appender, source = Appender(log, ORDERS.registry), business(orders, seed)
    first = next(source)
    appender.append(first.stream_id, first.events)  # which reads the stream heads
    started = time.monotonic()
    for number, one in enumerate(source):
        if ended.wait(max(started + number / rate - time.monotonic(), 0)):
            return
        done = appender.append(one.stream_id, one.events)
        print(done.last_position, time.monotonic(), flush=True)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--orders", type=int, required=True)
@click.option("--rate", type=float, default=50, show_default=True, help="Commits a second.")
@click.option("--seed", type=int, default=None, help="A random one, by default, so that no order is placed twice.")
def main(folder: Path, orders: int, rate: float, seed: int | None) -> None:
    """Write until standard input is closed."""
    write(open_log(str(folder / "log")), orders, rate, random.randrange(1 << 62) if seed is None else seed)


if __name__ == "__main__":
    main()
