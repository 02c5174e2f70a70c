"""The sample history of the order domain: a shop's year, generated from a seed.

Every schema version and retired event type of the domain occurs in its time. Money and stock add up: a payment is the
sum of its order's items, a refund is the payment, and no article is sold or written off that is not in stock.

The history comes in rounds of appends to different streams. The appends of a round may be concurrent: their order does
not change the read models. For that, a day's deliveries come before its stocktaking and its orders come last, and no
customer orders twice a day.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.orders import sample_events as make
from refold.warehouse.orders.sample_events import (
    DAYS,
    Line,
    Order,
    SampleEvent,
    date_of,
    in_use,
    time_of,
    uuid_of,
)

_EVENTS_PER_ORDER = 8
_EVENTS_PER_COUNT = 200
_PIECES_PER_ORDER = 4
_DELIVERY_DAYS = (0, 3)
_DAYS_IN_STOCK = 12
_STOCKTAKING_DAY = 0
_ABROAD = ("GBP", "USD", "SEK")
_RATES = {"EUR": 100, "GBP": 85, "USD": 108, "SEK": 1130}
_GOODS = ("mug", "bowl", "plate", "teapot", "vase", "lamp", "candle", "cushion", "blanket", "basket", "clock", "tray")
_COLOURS = ("white", "black", "blue", "green", "sand", "rose", "grey", "oak")


def sample_history(events: int, seed: int) -> Iterator[list[StreamAppend]]:
    """Generate the history, round by round.

    Args:
        events: how many events at least; the last order is completed, so there are a few more.
        seed: the same seed makes the same history.

    Example:
        >>> rounds = list(sample_history(200, seed=1))
        >>> sum(len(append.events) for appends in rounds for append in appends) >= 200
        True
    """
    return _Shop(events, random.Random(seed)).year()


class _Shop:
    """The state of the shop on its way through the year.

    ``_available`` has the pieces of each article that can be sold or written off; ``_freed`` the pieces that become
    available on the next day; ``_agenda`` the appends of days to come.
    """

    def __init__(self, events: int, chance: random.Random) -> None:
        self._events = events
        self._chance = chance
        self._made = 0
        self._counts = 0
        self._numbers = itertools.count(1)
        self._customers = max(events // (_EVENTS_PER_ORDER * 5), 20)
        every_sku = [f"{goods}-{colour}" for goods in _GOODS for colour in _COLOURS]
        self._skus = every_sku[: max(events // _EVENTS_PER_COUNT, 4)]
        self._cents = {sku: chance.randrange(390, 8990, 10) for sku in self._skus}
        self._weights = [1 / (rank + 5) for rank in range(len(self._skus))]
        chance.shuffle(self._weights)
        pieces = _DAYS_IN_STOCK * _PIECES_PER_ORDER * events / _EVENTS_PER_ORDER / DAYS / sum(self._weights)
        self._enough = {s: round(pieces * w) + 4 for s, w in zip(self._skus, self._weights, strict=True)}
        self._available = dict.fromkeys(self._skus, 0)
        self._stock_versions = dict.fromkeys(self._skus, 0)
        self._freed: list[tuple[int, str, int]] = []
        self._agenda: dict[int, list[StreamAppend]] = defaultdict(list)

    def year(self) -> Iterator[list[StreamAppend]]:
        """Yield the rounds of each day."""
        for day, share in enumerate(_shares_of_the_year()):
            self._take_back(day)
            if date_of(day).weekday() in _DELIVERY_DAYS or day == 0:
                yield self._deliveries(day)
            if date_of(day).weekday() == _STOCKTAKING_DAY:
                yield self._stocktaking(day, up_to=self._events * share)
            yield self._orders(day, up_to=self._events * share)

    def _take_back(self, day: int) -> None:
        """Sell what became free on earlier days; not on the same day, since a round has no order."""
        for due, sku, quantity in self._freed:
            self._available[sku] += quantity if due < day else 0
        self._freed = [freed for freed in self._freed if freed[0] >= day]

    def _deliveries(self, day: int) -> list[StreamAppend]:
        """Restock what runs low; some of it sells out before the next delivery."""
        low = [sku for sku in self._skus if self._available[sku] < self._enough[sku] / 2]
        return [self._delivery(day, sku) for sku in low]

    def _delivery(self, day: int, sku: str) -> StreamAppend:
        quantity = self._enough[sku] - self._available[sku]
        self._available[sku] += quantity
        delivery = make.received(self._chance, day, sku, quantity, self._cents[sku])
        return self._stock(day, 6, sku, delivery, f"delivery-{date_of(day)}")

    def _stocktaking(self, day: int, *, up_to: float) -> list[StreamAppend]:
        """Count some articles; missing pieces broke or were relabelled."""
        due = min(int(up_to / _EVENTS_PER_COUNT) - self._counts, len(self._skus))
        self._counts += due
        counted = self._chance.sample(self._skus, due)
        return [self._count(day, sku) for sku in counted if self._available[sku] >= 3]

    def _count(self, day: int, sku: str) -> StreamAppend:
        missing = self._chance.randrange(4)
        if in_use("StockMoved", day) and self._chance.random() < 0.5:
            other = self._chance.choice([s for s in self._skus if s != sku])
            self._freed.append((day, other, missing))
            count = make.moved(sku, other, missing)
        else:
            missing = max(missing, 1)
            count = make.written_off(self._chance, sku, missing)
        self._available[sku] -= missing
        return self._stock(day, 7, sku, count, f"stocktaking-{date_of(day)}")

    def _stock(self, day: int, hour: int, sku: str, event: SampleEvent, correlation_id: str) -> StreamAppend:
        version = self._stock_versions[sku]
        self._stock_versions[sku] += 1
        at = time_of(day, hour * 3600 + self._chance.randrange(3600))
        return self._append(f"stock-{sku}", version, at, [event], correlation_id)

    def _orders(self, day: int, *, up_to: float) -> list[StreamAppend]:
        """Place orders until the year has its share of events, and return all appends that are due today."""
        ordered: set[str] = set()
        while self._made < up_to and (order := self._new_order(day, ordered)):
            self._plan(order)
        return self._agenda.pop(day, [])

    def _plan(self, order: Order) -> None:
        """Put the life of an order on the agenda, as far as it falls into the year."""
        version = 0
        for day, events in self._life(order):
            if day >= DAYS:
                return
            at = time_of(day, self._chance.randrange(8 * 3600, 22 * 3600))
            self._agenda[day].append(self._append(order.stream_id, version, at, events, f"cart-{order.number:06d}"))
            version += len(events)
            if events[0][0] == "OrderCancelled":
                self._freed += [(day, line.sku, line.quantity) for line in order.lines]

    def _life(self, order: Order) -> Iterator[tuple[int, list[SampleEvent]]]:
        """Decide the life of an order: each step is a day, and the events that are recorded together on it."""
        chance, day, fate = self._chance, order.day, self._chance.random()
        never_paid, refunded, under_way = fate < 0.08, 0.08 <= fate < 0.13, 0.13 <= fate < 0.16
        by_card = not never_paid and chance.random() < 0.7
        yield day, [*make.checkout(chance, order), *([make.paid(chance, order, "card")] if by_card else [])]
        if never_paid:
            if fate < 0.05:
                yield day + chance.randint(2, 6), [make.cancelled(order, "never paid", None)]
            return
        if not by_card:
            day += chance.randint(1, 7)
            yield day, [make.paid(chance, order, chance.choice(("invoice", "transfer")))]
        if refunded:
            yield day + chance.randint(1, 3), [make.cancelled(order, "changed their mind", order.amount)]
            return
        if chance.random() < 0.06:
            day += 1
            yield day, make.address_updated(chance, day)
        day += chance.randint(1, 3)
        for parcel in make.parcels(chance, order, day):
            yield day, parcel
            day += 1
        if not under_way:
            yield day + chance.randint(0, 3), [make.delivered(chance, order)]

    def _new_order(self, day: int, ordered: set[str]) -> Order | None:
        """Let a customer who has not ordered today fill a cart from the stock; None if next to nothing is left."""
        for _ in range(50):
            customer = int(self._customers * self._chance.random() ** 2)
            customer_id, currency = f"customer-{customer:05d}", _currency(customer)
            if customer_id in ordered or (currency != "EUR" and in_use("OrderPlaced v1", day)):
                continue
            picked = self._chance.choices(self._skus, self._weights, k=self._chance.choice((1, 1, 2, 2, 3, 4, 6)))
            lines = tuple(line for sku in dict.fromkeys(picked) if (line := self._reserve(sku, currency)))
            if lines:
                ordered.add(customer_id)
                return Order(next(self._numbers), day, customer_id, currency, lines)
        return None

    def _reserve(self, sku: str, currency: str) -> Line | None:
        quantity = min(self._chance.choice((1, 1, 1, 2, 2, 3)), self._available[sku])
        self._available[sku] -= quantity
        return Line(sku, quantity, self._cents[sku] * _RATES[currency] // 100) if quantity else None

    def _append(
        self, stream_id: str, version: int, at: datetime, events: list[SampleEvent], correlation_id: str
    ) -> StreamAppend:
        causation_id = str(uuid_of(self._chance))
        made = tuple(
            NewEvent(
                payload=payload,
                event_type=event_type,
                schema_version=schema_version,
                event_id=str(uuid_of(self._chance)),
                occurred_at=at + timedelta(milliseconds=index),
                correlation_id=correlation_id,
                causation_id=causation_id,
            )
            for index, (event_type, schema_version, payload) in enumerate(events)
        )
        self._made += len(made)
        return StreamAppend(stream_id, made, version)


def _currency(customer: int) -> str:
    return _ABROAD[customer // 5 % len(_ABROAD)] if customer % 5 == 4 else "EUR"


def _shares_of_the_year() -> list[float]:
    """Return, for each day, the share of the year's business until its end: with growth, weekends and Christmas."""
    days = []
    for day in range(DAYS):
        weekend, christmas = date_of(day).weekday() >= 5, 325 <= day < 358
        days.append((1 + 0.6 * day / DAYS) * (0.6 if weekend else 1.0) * (1.7 if christmas else 1.0))
    done = list(itertools.accumulate(days))
    return [share / done[-1] for share in done]
