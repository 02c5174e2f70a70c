"""A made-up shop's year: an order history for the demo, the same for the same seed.

Every schema version and retired event type of the order domain occurs in its time. Money and stock add up: a payment is the
sum of its order's items, a refund what was paid, and no article is ever sold or written off that is not there.

The history comes in rounds of appends to different streams, which may be made side by side: whatever their order within a
round, the read models come out the same. To that end a day's deliveries come before its stocktaking and that before its
orders, and no customer orders twice a day.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from warehouse.event_log.append import NewEvent

FIRST_DAY = date(2025, 1, 1)
DAYS = 365

_EVENTS_AN_ORDER = 9
_MONDAY = 0
_CENT = Decimal("0.01")
_GOODS = ("mug", "bowl", "plate", "teapot", "vase", "lamp", "candle", "cushion", "blanket", "basket", "clock", "tray")
_COLOURS = ("white", "black", "blue", "green", "sand", "rose", "grey", "oak")
_CITIES = ("Berlin", "Lyon", "Porto", "Malmö", "Gdańsk", "Utrecht", "Graz", "Turku", "Bristol", "Boston")
_STREETS = ("Mill Lane", "Station Road", "Rue de la Paix", "Hafenstraße", "Long Row", "Kirkegata")
_CARRIERS = ("DHL", "UPS", "GLS")
_ABROAD = ("GBP", "USD", "SEK")

Told = tuple[str, int, dict[str, Any]]
"""An event type, its schema version, and the payload."""


@dataclass(frozen=True, slots=True)
class Append:
    """Events that are appended to one stream together.

    Attributes:
        stream_id: the stream.
        expected_version: where it stands before.
        events: what is appended.
    """

    stream_id: str
    expected_version: int
    events: tuple[NewEvent, ...]


def history(events: int, seed: int) -> Iterator[list[Append]]:
    """Make the history, round by round.

    Args:
        events: how many events at least; the last order is told to its end, so a few more.
        seed: of all that is left to chance.

    Example:
        >>> rounds = list(history(200, seed=1))
        >>> sum(len(append.events) for appends in rounds for append in appends) >= 200
        True
    """
    return _Shop(events, random.Random(seed)).year()


@dataclass(frozen=True, slots=True)
class _Line:
    """Some pieces of one article in an order."""

    sku: str
    quantity: int
    cents: int

    @property
    def item(self) -> dict[str, Any]:
        return {"sku": self.sku, "quantity": self.quantity}


@dataclass(slots=True)
class _Order:
    """An order that is told from its placing on."""

    number: int
    day: int
    customer_id: str
    currency: str
    lines: list[_Line]

    @property
    def stream_id(self) -> str:
        return f"order-{self.number:06d}"

    @property
    def items(self) -> list[dict[str, Any]]:
        return [line.item for line in self.lines]

    @property
    def amount(self) -> Decimal:
        return sum(line.quantity * line.cents for line in self.lines) * _CENT

    @property
    def parties(self) -> dict[str, Any]:
        return {"order_id": self.stream_id, "customer_id": self.customer_id}


class _Shop:
    """What the shop knows while its year is told."""

    def __init__(self, events: int, chance: random.Random) -> None:
        self._events = events
        self._chance = chance
        self._told = 0
        self._numbers = itertools.count(1)
        self._customers = max(events // (_EVENTS_AN_ORDER * 5), 20)
        self._agenda: dict[int, list[Append]] = defaultdict(list)
        self._skus = [f"{goods}-{colour}" for goods in _GOODS for colour in _COLOURS]
        self._cents = {sku: chance.randrange(390, 8990, 10) for sku in self._skus}
        self._weights = [1 / (rank + 5) for rank in range(len(self._skus))]
        chance.shuffle(self._weights)
        pieces_a_day = 4 * events / (_EVENTS_AN_ORDER * DAYS)
        share = pieces_a_day / sum(self._weights)
        self._wanted_stock = {s: round(30 * share * w) + 15 for s, w in zip(self._skus, self._weights, strict=True)}
        self._available = dict.fromkeys(self._skus, 0)
        self._freed: list[tuple[int, _Line]] = []
        self._stock_versions = dict.fromkeys(self._skus, 0)

    def year(self) -> Iterator[list[Append]]:
        """Tell day after day."""
        for day, share in enumerate(_shares_of_the_year()):
            for due, line in self._freed:
                self._available[line.sku] += line.quantity if due < day else 0
            self._freed = [(due, line) for due, line in self._freed if due >= day]
            yield self._deliveries(day)
            yield self._stocktaking(day)
            yield self._orders(day, up_to=self._events * share)

    # Stock

    def _deliveries(self, day: int) -> list[Append]:
        """Order what runs low; nothing runs out within a day."""
        low = [s for s in self._skus if self._available[s] < self._wanted_stock[s] / 2]
        return [self._delivery(day, sku) for sku in low]

    def _delivery(self, day: int, sku: str) -> Append:
        quantity = self._wanted_stock[sku] - self._available[sku]
        self._available[sku] += quantity
        unit_cost = Decimal(self._cents[sku] * self._chance.randrange(45, 60)).scaleb(-4)
        candle = sku.startswith("candle")
        payload = {
            "sku": sku,
            "quantity": quantity,
            "unit_cost": unit_cost,
            "best_before": FIRST_DAY + timedelta(days=day + 700) if candle else None,
        }
        return self._stock(day, 6, sku, ("StockReceived", 1, payload), f"delivery-{_date(day)}")

    def _stocktaking(self, day: int) -> list[Append]:
        """Count some articles every Monday; what is missing was broken, or was relabelled."""
        if _date(day).weekday() != _MONDAY:
            return []
        counted = self._chance.sample(self._skus, 2 + len(self._skus) // 12)
        return [self._count(day, sku) for sku in counted if self._available[sku] > 3]

    def _count(self, day: int, sku: str) -> Append:
        missing = self._chance.randrange(4)
        if day < 0.4 * DAYS and self._chance.random() < 0.5:
            other = self._chance.choice(self._skus)
            self._available[sku] -= missing
            self._available[other] += missing
            told: Told = ("StockMoved", 1, {"from_sku": sku, "to_sku": other, "quantity": missing})
        else:
            missing = missing or 1
            self._available[sku] -= missing
            reason = self._chance.choice(("broken", "stocktaking", "sample"))
            told = ("StockAdjusted", 1, {"sku": sku, "quantity": -missing, "reason": reason})
        return self._stock(day, 7, sku, told, f"stocktaking-{_date(day)}")

    def _stock(self, day: int, hour: int, sku: str, told: Told, correlation_id: str) -> Append:
        version = self._stock_versions[sku]
        self._stock_versions[sku] += 1
        at = _moment(day, hour * 3600 + self._chance.randrange(3600))
        return self._append(f"stock-{sku}", version, at, [told], correlation_id)

    # Orders

    def _orders(self, day: int, *, up_to: float) -> list[Append]:
        """Tell what is due today, and place orders until the year has had its share of events."""
        ordered: set[str] = set()
        while self._told + sum(len(a.events) for a in self._agenda[day] if False) < up_to:
            order = self._new_order(day, ordered)
            if order is None:
                break
            self._tell(order)
        return self._agenda.pop(day, [])
