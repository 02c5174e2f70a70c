"""The events of the golden files: each domain's past and present schemas, twice, before and after the publish."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

Described = tuple[str, int, dict[str, Any]]
"""An event type, its schema version, and the payload."""


@dataclass(frozen=True, slots=True)
class SampleAppend:
    """Events that go into one stream together.

    Attributes:
        stream_id: the stream.
        number: of the first of them in its history, which gives ids and times.
        events: the events.
    """

    stream_id: str
    number: int
    events: tuple[Described, ...]

    def event_id(self, index: int) -> str:
        """Name an event."""
        return f"golden-{self.number + index:04d}"

    def occurred_at(self, index: int) -> datetime:
        """Return when it happened: an hour and a microsecond apart, so that some cross a day."""
        return datetime(2024, 2, 28, 20, tzinfo=UTC) + (self.number + index) * timedelta(hours=1, microseconds=1)


@dataclass(frozen=True, slots=True)
class History:
    """One domain's history, in the four ways that it gets into the log.

    Attributes:
        sealed: appended, then sealed.
        sealed_import: imported in bulk, then sealed.
        tail_import: imported in bulk after the publish; stays the import's own segments.
        tail: appended after that, to streams that were sealed; stays in commits.
    """

    sealed: tuple[SampleAppend, ...]
    sealed_import: tuple[SampleAppend, ...]
    tail_import: tuple[SampleAppend, ...]
    tail: tuple[SampleAppend, ...]


def _history(*parts: list[tuple[str, list[Described]]]) -> History:
    number, numbered = 1, []
    for part in parts:
        appends = []
        for stream_id, events in part:
            appends.append(SampleAppend(stream_id, number, tuple(events)))
            number += len(events)
        numbered.append(tuple(appends))
    return History(*numbered)


def _orders(suffix: str) -> list[tuple[str, list[Described]]]:
    """Return three orders and the stock, in every schema that the order domain ever had."""
    old, older, new, stock = (f"{name}-{suffix}" for name in ("order-old", "order-older", "order-new", "stock-cup"))
    cup, pot = f"cup-{suffix}", f"pot-{suffix}"
    parties = {"order_id": new, "customer_id": "Zoë"}
    stocked = [
        ("StockReceived", 1, {"sku": cup, "quantity": 9, "unit_cost": Decimal("1.2345"), "best_before": None}),
        (
            "StockReceived",
            1,
            {"sku": pot, "quantity": 4, "unit_cost": Decimal("7.0001"), "best_before": date(2026, 1, 31)},
        ),
        ("StockMoved", 1, {"from_sku": cup, "to_sku": pot, "quantity": 2}),
        ("StockMoved", 1, {"from_sku": cup, "to_sku": pot, "quantity": 0}),
        ("StockReceived", 1, {"sku": cup, "quantity": 3, "unit_cost": Decimal("2.0000"), "best_before": None}),
        ("StockAdjusted", 1, {"sku": cup, "quantity": -1, "reason": "broken \u201cglaze\u201d"}),
    ]
    oldest: list[Described] = [
        ("OrderPlaced", 1, {"order_id": older, "customer": "ada", "deliver_on": "", "note": "ring twice"}),
        ("ItemAdded", 1, {"sku": cup, "quantity": 2, "price_cents": 1999}),
        ("StreetChanged", 1, {"street": "1 Mill Lane"}),
        ("CityChanged", 1, {"city": "Graz", "postal_code": None}),
    ]
    dispatched = [("OrderDispatched", 1, {"carrier": "DHL", "sku": cup, "quantity": 2})]
    second: list[Described] = [
        ("OrderPlaced", 2, {"order_id": old, "customer": "bob", "deliver_on": "2024-03-09", "currency": "SEK"}),
        ("ItemAdded", 1, {"sku": pot, "quantity": 1, "price_cents": 5}),
        ("CityChanged", 1, {"city": "Malmö", "postal_code": "211 22"}),
        ("StreetChanged", 1, {"street": "Långgatan 7"}),
    ]
    paid = {"payment_id": UUID("6f1c2a34-0000-4000-8000-00000000abcd"), "amount": Decimal("12.30"), "method": "card"}
    cancelled = {"reason": "", "items": [{"sku": pot, "quantity": 1}], "currency": "EUR", "refund": Decimal("12.30")}
    third: list[Described] = [
        ("OrderPlaced", 3, {**parties, "currency": "EUR", "deliver_on": date(2024, 2, 29)}),
        ("ItemAdded", 2, {"sku": pot, "quantity": 3, "unit_price": Decimal("4.10")}),
        ("ShippingAddressUpdated", 1, {"address": {"street": "Rue 1", "city": "Lyon", "postal_code": None}}),
        ("OrderPaid", 1, {**parties, **paid, "currency": "EUR"}),
        ("OrderShipped", 1, {"carrier": "UPS", "tracking_code": None, "items": [{"sku": pot, "quantity": 2}]}),
    ]
    ended: list[Described] = [
        ("OrderDelivered", 1, {"signed_by": None, "left_at_door": True}),
        ("OrderCancelled", 1, {**parties, **cancelled}),
    ]
    return [(stock, stocked), (older, oldest), (old, second), (new, third), (older, dispatched), (new, ended)]


def _trades(suffix: str) -> list[tuple[str, list[Described]]]:
    """Return two traders' days, in every schema that the trading domain ever had."""
    ada, bob = f"trader-ada-s{suffix}", f"trader-bob-s{suffix}"

    def old(trader: str, quantity: int, price: str) -> Described:
        payload = {"trader_id": trader, "symbol": "ÖL", "quantity": quantity, "price": Decimal(price)}
        return ("TradeExecuted", 1, payload)

    def new(trader: str, side: str, quantity: int, price: str) -> Described:
        payload = {"trader_id": trader, "instrument": "ÖL", "side": side, "quantity": quantity, "price": Decimal(price)}
        return ("TradeExecuted", 2, payload)

    closed = {"trader_id": "ada", "instrument": "ÖL", "realised_profit": Decimal("-3.25")}
    won = {"trader_id": "bob", "instrument": "ÖL", "realised_profit": Decimal("0.01")}
    return [
        (ada, [("CashDeposited", 1, {"trader_id": "ada", "amount": Decimal("1000.00")}), old("ada", 30, "10.05")]),
        (bob, [old("bob", -7, "10.00"), new("bob", "buy", 9, "9.9999"), ("PositionClosed", 1, won)]),
        (ada, [old("ada", -10, "11.00"), new("ada", "buy", 1, "0.0001"), new("ada", "sell", 22, "10.5000")]),
        (ada, [("PositionClosed", 1, closed), ("CashWithdrawn", 1, {"trader_id": "ada", "amount": Decimal("0.99")})]),
    ]


HISTORIES = {
    "orders": _history(_orders("1"), _orders("2"), _orders("3"), _orders("1")),
    "trading": _history(_trades("1"), _trades("2"), _trades("3"), _trades("1")),
}
"""By domain."""
