"""The demo: a history in which money and stock add up, made through real appends, and never made twice or by half."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from refold.event_schemas import LogError, UsageError
from refold.pipelines.demo.demo import Demo, make_history, prepare
from refold.pipelines.demo.order_history import Append, history
from refold.warehouse.event_log.log import open_log
from refold.warehouse.event_log.new_events import NewEvent
from refold.warehouse.event_log.reads.read import read_positions
from refold.warehouse.orders import ORDERS

SIZES = [(100, 1), (1_000, 2), (6_000, 3)]


def appends(events: int, seed: int) -> Iterator[Append]:
    """Give the appends of all rounds."""
    return (append for appends in history(events, seed) for append in appends)


def told(append: Append, *event_types: str) -> list[NewEvent]:
    """Pick the events of some types."""
    return [e for e in append.events if e.event_type in event_types]


def movements(event: NewEvent) -> list[tuple[str, int, int]]:
    """Say what an event does to stock: article, pieces on hand, pieces available."""
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
def test_there_are_as_many_events_as_asked_for_and_few_more(events: int, seed: int) -> None:
    """The last order is told to its end, no more."""
    made = sum(len(append.events) for append in appends(events, seed))
    assert events <= made <= events + 30


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_appends_of_a_round_go_to_different_streams_and_expect_where_they_stand(events: int, seed: int) -> None:
    """So a round can be appended side by side, and nothing is ever appended twice."""
    versions: Counter[str] = Counter()
    for appends_of_round in history(events, seed):
        assert len({a.stream_id for a in appends_of_round}) == len(appends_of_round)
        for append in appends_of_round:
            assert append.expected_version == versions[append.stream_id]
            versions[append.stream_id] += len(append.events)


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_stock_is_never_negative_in_whatever_order_a_round_comes(events: int, seed: int) -> None:
    """All that leaves a round's stock is taken first, all that comes is given last: still nothing is below zero."""
    on_hand: Counter[str] = Counter()
    available: Counter[str] = Counter()
    for appends_of_round in history(events, seed):
        moved = [m for a in appends_of_round for e in a.events for m in movements(e)]
        for stock, changes in ((on_hand, [(s, h) for s, h, _ in moved]), (available, [(s, a) for s, _, a in moved])):
            for sku, change in sorted(changes, key=lambda c: c[1]):
                stock[sku] += change
                assert stock[sku] >= 0, sku


@pytest.mark.parametrize(("events", "seed"), SIZES)
def test_payments_are_what_orders_cost_and_refunds_what_was_paid(events: int, seed: int) -> None:
    """To the cent, in one currency a customer."""
    cost: defaultdict[str, Decimal] = defaultdict(Decimal)
    paid: dict[str, Decimal] = {}
    currencies: dict[str, str] = {}
    for append in appends(events, seed):
        for placed in told(append, "OrderPlaced"):
            customer = placed.payload["customer_id" if placed.schema_version == 3 else "customer"]
            currency = placed.payload.get("currency", "EUR")  # as the upcaster of version 1 has it
            assert currencies.setdefault(customer, currency) == currency
        for item in told(append, "ItemAdded"):
            price = item.payload.get("unit_price") or Decimal(item.payload["price_cents"]) / 100
            cost[append.stream_id] += item.payload["quantity"] * price
        for payment in told(append, "OrderPaid"):
            assert append.stream_id not in paid
            paid[append.stream_id] = payment.payload["amount"]
            assert payment.payload["amount"] == cost[append.stream_id] > 0
            assert payment.payload["currency"] == currencies[payment.payload["customer_id"]]
        for end in told(append, "OrderCancelled"):
            assert end.payload["refund"] == paid.get(append.stream_id)


def test_every_shape_that_the_domain_ever_had_occurs() -> None:
    """Old schema versions and retired event types, too; only subscriptions are none of this shop's."""
    schema_keys = {(e.event_type, e.schema_version) for append in appends(6_000, 7) for e in append.events}
    subscriptions = {("SubscriptionStarted", 1), ("SubscriptionCancelled", 1)}
    assert schema_keys == set(ORDERS.registry.schema_keys) - subscriptions


def test_halves_of_an_address_are_recorded_together() -> None:
    """A merger joins them only within one commit."""
    halves = [[e.event_type for e in told(a, "StreetChanged", "CityChanged")] for a in appends(1_000, 7)]
    assert {tuple(h) for h in halves} == {(), ("StreetChanged", "CityChanged")}


def test_the_same_seed_makes_the_same_history() -> None:
    """Event ids, times and all; another seed makes another."""
    assert list(history(500, 7)) == list(history(500, 7))
    assert list(history(500, 7)) != list(history(500, 8))


def test_prepare_lays_down_settings_and_finds_the_demo_again(tmp_path: Path) -> None:
    """Without --events and --seed a second run means the demo that is there."""
    first = prepare(tmp_path / "demo", events=200, seed=3)
    assert prepare(tmp_path / "demo") == first == Demo(tmp_path / "demo", 200, 3)
    assert 'domain = "orders"' in (tmp_path / "demo" / "refold.toml").read_text()


@pytest.mark.parametrize("asked", [{"events": 300}, {"seed": 4}])
def test_prepare_refuses_another_demo_in_the_same_folder(tmp_path: Path, asked: dict[str, int]) -> None:
    """Nothing is overwritten."""
    prepare(tmp_path / "demo", events=200, seed=3)
    with pytest.raises(UsageError, match="holds a demo of 200 events with seed 3"):
        prepare(tmp_path / "demo", **asked)


def test_prepare_refuses_a_log_that_is_no_demos(tmp_path: Path) -> None:
    """It may be somebody's work."""
    (tmp_path / "log").mkdir()
    with pytest.raises(UsageError, match="no demo's"):
        prepare(tmp_path)


def test_prepare_refuses_a_description_that_it_cannot_read(tmp_path: Path) -> None:
    """And says which file."""
    (tmp_path / "demo.json").write_text('{"events": 3, "more": 1}')
    with pytest.raises(UsageError, match="describes no demo"):
        prepare(tmp_path)


class Killed(Exception):
    """Stands for a kill in the middle."""


def contents(demo: Demo) -> list[tuple[str, int, str]]:
    """List the events of a demo's log, by stream."""
    log = open_log(demo.log_url)
    found = [(e.stream_id, e.stream_version, e.event_id) for e in read_positions(log, ORDERS.registry, 0)]
    return sorted(found)


def test_a_demo_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Nothing lost, nothing doubled: the log holds the history, event by event."""
    demo = prepare(tmp_path / "demo", events=400, seed=3)

    def kill(there: int) -> None:
        if there > 200:
            raise Killed

    with pytest.raises(Killed):
        make_history(demo, report=kill)
    assert prepare(tmp_path / "demo").made == 0
    made = make_history(prepare(tmp_path / "demo"))
    expected = [
        (a.stream_id, a.expected_version + index, e.event_id)
        for a in appends(400, 3)
        for index, e in enumerate(a.events, 1)
    ]
    assert contents(made) == sorted(expected)
    assert made.made == len(expected)
    assert prepare(tmp_path / "demo") == made == make_history(made)


def test_a_finished_demo_whose_log_is_gone_is_an_error(tmp_path: Path) -> None:
    """It is not made again in silence."""
    with pytest.raises(LogError, match="lost events"):
        make_history(Demo(tmp_path / "demo", 400, 3, made=400))


def test_the_command_makes_rebuilds_and_shows_and_does_so_again(tmp_path: Path) -> None:
    """The second run keeps the history and publishes the next generation; what it shows stays the same."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "refold", "demo", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)

    first = run("--events", "200")
    assert (first.returncode, first.stderr) == (0, "")
    for part in ("Orders by customer", "Revenue dashboard", "Inventory status", "last updated", "refold query"):
        assert part in first.stdout
    again = run("--json", "--", "--direct_num_workers=1")
    assert (again.returncode, again.stderr) == (0, "")
    document = json.loads(again.stdout)
    assert document["generation"] == 2
    assert document["position"] == document["events"] >= 200
    assert document["read_models"]["inventory_status"][0]["sku"] in first.stdout
