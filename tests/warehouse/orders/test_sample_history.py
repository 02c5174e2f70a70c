"""The sample history of the order domain: money and stock add up, and every schema version occurs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal

import pytest

from refold.warehouse.event_log.new_events import NewEvent, StreamAppend
from refold.warehouse.orders import ORDERS
from refold.warehouse.orders.sample_history import sample_history

SIZES = [(100, 1), (1_000, 2), (6_000, 3)]


def appends(events: int, seed: int) -> Iterator[StreamAppend]:
    """Yield the appends of all rounds."""
    return (append for appends in sample_history(events, seed) for append in appends)


def events_of(append: StreamAppend) -> list[NewEvent]:
    """Return the events of an append; a sample history has no bare instances."""
    return [e for e in append.events if isinstance(e, NewEvent)]


def of_types(append: StreamAppend, *event_types: str) -> list[NewEvent]:
    """Pick the events of some types."""
    return [e for e in events_of(append) if e.event_type in event_types]


def movements(event: NewEvent) -> list[tuple[str, int, int]]:
    """Return what an event does to stock: article, pieces on hand, pieces available."""
    payload = event.payload
    match event.event_type:
        case "StockReceived" | "StockAdjusted":
            return [(payload["sku"], payload["quantity"], payload["quantity"])]
        case "StockMoved":
            moved = payload["quantity"]
            return [(payload["from_sku"], -moved, -moved), (payload["to_sku"], moved, moved)]
        case "ItemAdded":
            return [(payload["sku"], 0, -payload["quantity"])]
        case "OrderDispatched":
            return [(payload["sku"], -payload["quantity"], 0)]
        case "OrderShipped":
            return [(item["sku"], -item["quantity"], 0) for item in payload["items"]]
        case "OrderCancelled":
            return [(item["sku"], 0, item["quantity"]) for item in payload["items"]]
    return []


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_it_has_as_many_events_as_requested_and_few_more(events: int, seed: int) -> None:
    """The history ends when the last order is complete."""
    made = sum(len(append.events) for append in appends(events, seed))
    assert events <= made <= events + 30


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_appends_of_a_round_go_to_different_streams_and_expect_their_versions(events: int, seed: int) -> None:
    """A round can be appended concurrently, and no event is appended twice."""
    versions: Counter[str] = Counter()
    for appends_of_round in sample_history(events, seed):
        assert len({a.stream_id for a in appends_of_round}) == len(appends_of_round)
        for append in appends_of_round:
            assert append.expected_version == versions[append.stream_id]
            versions[append.stream_id] += len(append.events)


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_stock_is_never_negative_in_any_order_of_a_round(events: int, seed: int) -> None:
    """Stock stays non-negative even if all removals of a round come before all receipts."""
    on_hand: Counter[str] = Counter()
    available: Counter[str] = Counter()
    for appends_of_round in sample_history(events, seed):
        moved = [m for a in appends_of_round for e in events_of(a) for m in movements(e)]
        for stock, changes in ((on_hand, [(s, h) for s, h, _ in moved]), (available, [(s, a) for s, _, a in moved])):
            for sku, change in sorted(changes, key=lambda c: c[1]):
                stock[sku] += change
                assert stock[sku] >= 0, sku


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_payments_equal_prices_and_refunds_equal_payments(events: int, seed: int) -> None:
    """Amounts agree to the cent, in one currency per customer."""
    cost: defaultdict[str, Decimal] = defaultdict(Decimal)
    paid: dict[str, Decimal] = {}
    currencies: dict[str, str] = {}
    for append in appends(events, seed):
        for placed in of_types(append, "OrderPlaced"):
            customer = placed.payload["customer_id" if placed.schema_version == 3 else "customer"]
            currency = placed.payload.get("currency", "EUR")  # as the upcaster of version 1 has it
            assert currencies.setdefault(customer, currency) == currency
        for item in of_types(append, "ItemAdded"):
            price = item.payload.get("unit_price") or Decimal(item.payload["price_cents"]) / 100
            cost[append.stream_id] += item.payload["quantity"] * price
        for payment in of_types(append, "OrderPaid"):
            assert append.stream_id not in paid
            paid[append.stream_id] = payment.payload["amount"]
            assert payment.payload["amount"] == cost[append.stream_id] > 0
            assert payment.payload["currency"] == currencies[payment.payload["customer_id"]]
        for end in of_types(append, "OrderCancelled"):
            assert end.payload["refund"] == paid.get(append.stream_id)


def test_every_schema_of_the_domain_occurs() -> None:
    """Old schema versions and retired event types too; this shop only has no subscriptions."""
    schema_keys = {(e.event_type, e.schema_version) for append in appends(6_000, 7) for e in events_of(append)}
    subscriptions = {("SubscriptionStarted", 1), ("SubscriptionCancelled", 1)}
    assert schema_keys == set(ORDERS.registry.schema_keys) - subscriptions


def test_halves_of_an_address_are_recorded_together() -> None:
    """A merger joins them only within one commit."""
    halves = [[e.event_type for e in of_types(a, "StreetChanged", "CityChanged")] for a in appends(1_000, 7)]
    assert {tuple(h) for h in halves} == {(), ("StreetChanged", "CityChanged")}


def test_the_same_seed_makes_the_same_history() -> None:
    """A seed determines event ids and times too; another seed makes another history."""
    assert list(sample_history(500, 7)) == list(sample_history(500, 7))
    assert list(sample_history(500, 7)) != list(sample_history(500, 8))
