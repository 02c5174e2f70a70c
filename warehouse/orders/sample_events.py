"""The events of the sample history, each in the schema version of its day.

Old schema versions and retired event types have no classes any more, only upcasters that read them: so every payload
here is a mapping.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

FIRST_DAY = date(2025, 1, 1)
DAYS = 365

_CENT = Decimal("0.01")
_CITIES = ("Berlin", "Lyon", "Porto", "Malmö", "Gdańsk", "Utrecht", "Graz", "Turku", "Bristol", "Boston")
_STREETS = ("Mill Lane", "Station Road", "Rue de la Paix", "Hafenstraße", "Long Row", "Kirkegata")
_CARRIERS = ("DHL", "UPS", "GLS")
_RETIRED_AFTER = {  # part of the year
    "OrderPlaced v1": 0.2,
    "OrderPlaced v2": 0.45,
    "ItemAdded v1": 0.35,
    "OrderDispatched": 0.25,
    "StreetChanged": 0.3,
    "StockMoved": 0.4,
}

SampleEvent = tuple[str, int, dict[str, Any]]
"""An event type, its schema version, and the payload."""


@dataclass(frozen=True, slots=True)
class Line:
    """Some pieces of one article in an order, and the price of one."""

    sku: str
    quantity: int
    cents: int

    @property
    def item(self) -> dict[str, Any]:
        """The line without its price."""
        return {"sku": self.sku, "quantity": self.quantity}


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it is placed."""

    number: int
    day: int
    customer_id: str
    currency: str
    lines: tuple[Line, ...]

    @property
    def stream_id(self) -> str:
        """The stream of the order."""
        return f"order-{self.number:06d}"

    @property
    def items(self) -> list[dict[str, Any]]:
        """The lines without their prices."""
        return [line.item for line in self.lines]

    @property
    def amount(self) -> Decimal:
        """The total price."""
        return sum(line.quantity * line.cents for line in self.lines) * _CENT

    @property
    def parties(self) -> dict[str, Any]:
        """The order and its customer, as several payloads name them."""
        return {"order_id": self.stream_id, "customer_id": self.customer_id}


def date_of(day: int) -> date:
    """Return the date of a day of the year, from 0."""
    return FIRST_DAY + timedelta(days=day)


def time_of(day: int, second: int) -> datetime:
    """Return a time of a day."""
    return datetime.combine(date_of(day), datetime.min.time(), UTC) + timedelta(seconds=second)


def in_use(schema: str, day: int) -> bool:
    """Check whether an old schema version or event type was still recorded on a day."""
    return day < DAYS * _RETIRED_AFTER[schema]


def uuid_of(chance: random.Random) -> uuid.UUID:
    """Make a UUID that the same seed makes again."""
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def received(chance: random.Random, day: int, sku: str, quantity: int, cents: int) -> SampleEvent:
    """Make the delivery of an article that sells for ``cents``."""
    best_before = date_of(day + 700) if sku.startswith("candle") else None
    unit_cost = Decimal(cents * chance.randrange(45, 60)).scaleb(-4)
    payload = {"sku": sku, "quantity": quantity, "unit_cost": unit_cost, "best_before": best_before}
    return ("StockReceived", 1, payload)


def moved(sku: str, other: str, quantity: int) -> SampleEvent:
    """Relabel pieces as another article."""
    return ("StockMoved", 1, {"from_sku": sku, "to_sku": other, "quantity": quantity})


def written_off(chance: random.Random, sku: str, quantity: int) -> SampleEvent:
    """Write off pieces that are missing in a count."""
    reason = chance.choice(("broken", "stocktaking", "sample"))
    return ("StockAdjusted", 1, {"sku": sku, "quantity": -quantity, "reason": reason})


def checkout(chance: random.Random, order: Order) -> list[SampleEvent]:
    """Place an order with its items and address, all recorded together."""
    items = [_item_added(line, order.day) for line in order.lines]
    return [_placed(chance, order), *items, *address_updated(chance, order.day)]


def _placed(chance: random.Random, order: Order) -> SampleEvent:
    wish = date_of(order.day + chance.randint(4, 12)) if chance.random() < 0.3 else None
    if not in_use("OrderPlaced v2", order.day):
        return ("OrderPlaced", 3, {**order.parties, "currency": order.currency, "deliver_on": wish})
    old = {
        "order_id": order.stream_id,
        "customer": order.customer_id,
        "deliver_on": wish.isoformat() if wish else "",
    }
    if in_use("OrderPlaced v1", order.day):
        return ("OrderPlaced", 1, {**old, "note": "a present" if chance.random() < 0.1 else None})
    return ("OrderPlaced", 2, {**old, "currency": order.currency})


def _item_added(line: Line, day: int) -> SampleEvent:
    if in_use("ItemAdded v1", day):
        return ("ItemAdded", 1, {**line.item, "price_cents": line.cents})
    return ("ItemAdded", 2, {**line.item, "unit_price": line.cents * _CENT})


def address_updated(chance: random.Random, day: int) -> list[SampleEvent]:
    """Set an address; its two halves were once events of their own, always recorded together."""
    street = f"{chance.randint(1, 120)} {chance.choice(_STREETS)}"
    city, postal_code = chance.choice(_CITIES), f"{chance.randrange(10_000, 99_999)}"
    if in_use("StreetChanged", day):
        halves = {"city": city, "postal_code": postal_code}
        return [("StreetChanged", 1, {"street": street}), ("CityChanged", 1, halves)]
    address = {"street": street, "city": city, "postal_code": postal_code}
    return [("ShippingAddressUpdated", 1, {"address": address})]


def paid(chance: random.Random, order: Order, method: str) -> SampleEvent:
    """Pay an order in full."""
    payment = {"payment_id": uuid_of(chance), "amount": order.amount, "currency": order.currency, "method": method}
    return ("OrderPaid", 1, {**order.parties, **payment})


def parcels(chance: random.Random, order: Order, day: int) -> list[list[SampleEvent]]:
    """Ship an order, day by day: early on one parcel for each article, later one parcel or, rarely, two."""
    carrier = chance.choice(_CARRIERS)
    if in_use("OrderDispatched", day):
        return [[("OrderDispatched", 1, {"carrier": carrier, **item}) for item in order.items]]
    cut = 1 if len(order.lines) > 1 and chance.random() < 0.15 else 0
    parts = [part for part in (order.items[:cut], order.items[cut:]) if part]
    return [[_shipped(chance, carrier, items)] for items in parts]


def _shipped(chance: random.Random, carrier: str, items: list[dict[str, Any]]) -> SampleEvent:
    code = f"{carrier}{chance.randrange(10**9):09d}"
    return ("OrderShipped", 1, {"carrier": carrier, "tracking_code": code, "items": items})


def delivered(chance: random.Random, order: Order) -> SampleEvent:
    """Deliver the last parcel."""
    signed_by = chance.choice((order.customer_id, "neighbour", None))
    return ("OrderDelivered", 1, {"signed_by": signed_by, "left_at_door": signed_by is None})


def cancelled(order: Order, reason: str, refund: Decimal | None) -> SampleEvent:
    """Cancel an order of which nothing was shipped."""
    ended = {"reason": reason, "items": order.items, "currency": order.currency, "refund": refund}
    return ("OrderCancelled", 1, {**order.parties, **ended})
