"""The two included domains: the effect of each event, the folds, and the views."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.event_schemas import ENVELOPE, event_type_of, schema_of
from refold.event_schemas.orders import (
    Address,
    ItemAdded,
    OrderCancelled,
    OrderDelivered,
    OrderItem,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    ShippingAddressUpdated,
    StockAdjusted,
    StockReceived,
)
from refold.event_schemas.trading import (
    CashDeposited,
    CashWithdrawn,
    PositionClosed,
    TradeExecuted,
)
from refold.warehouse.declarations.domain import Domain, load_domain
from refold.warehouse.declarations.handlers import arrow_type
from refold.warehouse.declarations.projection import (
    Fold,
    create_table_sql,
    create_view,
    keyed_by_stream,
)
from refold.warehouse.declarations.upcaster_sql import event_relation_schema
from refold.warehouse.engine.connections import connect
from refold.warehouse.orders import ORDERS
from refold.warehouse.trading import TRADING

LATE = datetime(2024, 5, 1, 23, 30, tzinfo=UTC)

PLACED = OrderPlaced(order_id="order-1", customer_id="c7", currency="EUR", deliver_on=date(2024, 5, 4))
ADDED = ItemAdded(sku="cup", quantity=2, unit_price=Decimal("19.99"))
PAID = OrderPaid(
    order_id="order-1", customer_id="c7", payment_id=UUID(int=1), amount=Decimal("39.98"), currency="EUR", method="card"
)
SHIPPED = OrderShipped(
    carrier="DHL", tracking_code=None, items=[OrderItem(sku="cup", quantity=2), OrderItem(sku="pot", quantity=1)]
)
CANCELLED = OrderCancelled(
    order_id="order-1",
    customer_id="c7",
    reason="too late",
    items=[OrderItem(sku="cup", quantity=2)],
    currency="EUR",
    refund=Decimal("39.98"),
)
RECEIVED = StockReceived(sku="cup", quantity=10, unit_cost=Decimal("4.5000"), best_before=None)
ADJUSTED = StockAdjusted(sku="cup", quantity=-1, reason="broken")
MOVED = ShippingAddressUpdated(address=Address(street="2 New Road", city="Malmö"))
TRADED = TradeExecuted(trader_id="t1", instrument="ACME", side="sell", quantity=3, price=Decimal("10.1234"))


def event_table(payload: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """Make the relation ``event`` of one event in stream s-1."""
    envelope = dict.fromkeys(ENVELOPE.names) | dict.fromkeys(
        ["position", "commit_number", "stream_version", "schema_version"], 1
    )
    envelope |= dict.fromkeys(["event_id", "event_type"], "") | {"stream_id": "s-1", "_ordinal": 0}
    envelope |= {"occurred_at": LATE, "recorded_at": LATE}
    plain = {name: value.bytes if isinstance(value, UUID) else value for name, value in payload.items()}
    return pa.Table.from_pylist([envelope | plain], event_relation_schema(schema))


def contributions(domain: Domain, read_model: str, event: Any) -> list[dict[str, Any]]:
    """Run the handler of one event, and return its rows without the columns that refold adds."""
    [handler] = [h for h in domain.read_model(read_model).handlers if h.event_class is type(event)]
    with connect() as connection:
        connection.register("event", event_table(dataclasses.asdict(event), schema_of(type(event))))
        rows = connection.sql(handler.sql.text).to_arrow_table().to_pylist()
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]


def show(domain: Domain, view: str, table: str, rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Fill one table of a domain, and return the rows of a view over it."""
    with connect() as connection:
        typed = ", ".join(f"{c} {t}" for c, t in domain.read_model(table).table.items())
        connection.execute(f"CREATE TABLE {table} ({typed})")
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        [declared] = [v for v in domain.views if v.name == view]
        create_view(declared, connection)
        return list(connection.sql(f"FROM {view} ORDER BY ALL").to_arrow_table().to_pylist())


@pytest.mark.parametrize(("name", "domain"), [("orders", ORDERS), ("trading", TRADING)])
def test_a_domain_is_found_by_its_name(name: str, domain: Domain) -> None:
    """The entry points of the package lead to the two domains, which bind when they are imported."""
    assert load_domain(name) is domain


def test_an_order_lies_in_one_bucket() -> None:
    """All streams of an order hash to one bucket, so a rebuild completes order_summary per bucket."""
    assert keyed_by_stream(ORDERS.read_model("order_summary"))


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (PLACED, {"customer_id": "c7", "currency": "EUR", "status": "placed", "placed_at": LATE}),
        (ADDED, {"item_count": 2, "amount": Decimal("39.98")}),
        (PAID, {"status": "paid", "paid": Decimal("39.98")}),
        (SHIPPED, {"status": "shipped"}),
        (OrderDelivered(signed_by=None, left_at_door=True), {"status": "delivered"}),
        (CANCELLED, {"status": "cancelled", "paid": Decimal("-39.98")}),
        (MOVED, {"city": "Malmö"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_order_summary(event: Any, row: dict[str, Any]) -> None:
    """Each event updates its columns and the time of the last change."""
    assert contributions(ORDERS, "order_summary", event) == [{"order_id": "s-1", "updated_at": LATE} | row]


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (
            PLACED,
            {"currency": "EUR", "orders": 1, "first_order_at": LATE, "last_order_at": LATE, "last_order_id": "s-1"},
        ),
        (PAID, {"paid_orders": 1, "spent": Decimal("39.98")}),
        (CANCELLED, {"cancelled_orders": 1, "spent": Decimal("-39.98")}),
        (dataclasses.replace(CANCELLED, refund=None), {"cancelled_orders": 1, "spent": None}),
    ],
)
def test_orders_by_customer(event: Any, row: dict[str, Any]) -> None:
    """A refund is subtracted."""
    assert contributions(ORDERS, "orders_by_customer", event) == [{"customer_id": "c7"} | row]


@pytest.mark.parametrize(
    ("event", "rows"),
    [
        (PAID, [{"orders_paid": 1, "revenue": Decimal("39.98")}]),
        (CANCELLED, [{"refunds": Decimal("39.98")}]),
        (dataclasses.replace(CANCELLED, refund=None), []),
    ],
)
def test_revenue_by_day(event: Any, rows: list[dict[str, Any]]) -> None:
    """An event at 23:30 UTC counts for that day; an event without a refund has no row."""
    expected = [{"day": date(2024, 5, 1), "currency": "EUR"} | row for row in rows]
    assert contributions(ORDERS, "revenue_by_day", event) == expected


@pytest.mark.parametrize(
    ("event", "rows"),
    [
        (RECEIVED, [{"sku": "cup", "on_hand": 10, "available": 10}]),
        (ADJUSTED, [{"sku": "cup", "on_hand": -1, "available": -1}]),
        (ADDED, [{"sku": "cup", "reserved": 2, "available": -2}]),
        (
            SHIPPED,
            [{"sku": "cup", "on_hand": -2, "reserved": -2}, {"sku": "pot", "on_hand": -1, "reserved": -1}],
        ),
        (CANCELLED, [{"sku": "cup", "reserved": -2, "available": 2}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inventory_status(event: Any, rows: list[dict[str, Any]]) -> None:
    """Adding to an order reserves stock, shipping reduces both totals, and cancelling releases the reservation."""
    assert contributions(ORDERS, "inventory_status", event) == [row | {"last_movement_at": LATE} for row in rows]


def test_what_is_available_is_on_hand_and_not_reserved() -> None:
    """The three totals agree after every event."""
    for event in (RECEIVED, ADJUSTED, ADDED, SHIPPED, CANCELLED):
        for row in contributions(ORDERS, "inventory_status", event):
            assert row.get("on_hand", 0) - row.get("reserved", 0) == row.get("available", 0)


@pytest.mark.parametrize(
    ("event", "rows"),
    [
        (RECEIVED, [{"sku": "cup", "quantity": 10, "unit_cost": Decimal("4.5000")}]),
        (ADJUSTED, [{"sku": "cup", "quantity": -1, "unit_cost": None}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_purchase_cost(event: Any, rows: list[dict[str, Any]]) -> None:
    """Only a receipt has its own cost."""
    assert contributions(ORDERS, "purchase_cost", event) == rows


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (TRADED, {"trades": 1, "volume": Decimal("30.3702"), "last_trade_at": LATE}),
        (
            PositionClosed(trader_id="t1", instrument="ACME", realised_profit=Decimal("5.00")),
            {"realised_profit": Decimal("5.00"), "closed_positions": 1, "wins": 1},
        ),
        (
            PositionClosed(trader_id="t1", instrument="ACME", realised_profit=Decimal("0.00")),
            {"realised_profit": Decimal("0.00"), "closed_positions": 1, "wins": None},
        ),
        (CashDeposited(trader_id="t1", amount=Decimal("100.00")), {"net_cash": Decimal("100.00")}),
        (CashWithdrawn(trader_id="t1", amount=Decimal("100.00")), {"net_cash": Decimal("-100.00")}),
    ],
)
def test_trader_performance_summary(event: Any, row: dict[str, Any]) -> None:
    """A position that is closed without profit is not a win."""
    assert contributions(TRADING, "trader_performance_summary", event) == [{"trader_id": "t1"} | row]


@pytest.mark.parametrize(("side", "quantity", "expected"), [("buy", 3, [3]), ("sell", 3, [-3]), ("buy", 0, [])])
def test_average_cost_positions(side: str, quantity: int, expected: list[int]) -> None:
    """The fold gets a sale as a negative quantity, and no trade of quantity zero."""
    rows = contributions(TRADING, "average_cost_positions", dataclasses.replace(TRADED, side=side, quantity=quantity))
    assert rows == [{"trader_id": "t1", "instrument": "ACME", "quantity": q, "price": TRADED.price} for q in expected]


def test_a_trade_of_version_1_had_a_sign_for_a_side() -> None:
    """Version 2 has the side as a word, a renamed symbol, and prices with four decimals."""
    stored = {"trader_id": "t1", "symbol": "ACME", "quantity": -3, "price": Decimal("10.12")}
    with connect() as connection:
        connection.register("event", event_table(stored, TRADING.registry.schema("TradeExecuted", 1)))
        relation = connection.sql(TRADING.upcaster_sql["TradeExecuted", 1])
        [after] = relation.select(*schema_of(TradeExecuted).names).to_arrow_table().to_pylist()
    expected = TradeExecuted(trader_id="t1", instrument="ACME", side="sell", quantity=3, price=Decimal("10.1200"))
    assert after == dataclasses.asdict(expected)


Trade = namedtuple("Trade", ["quantity", "price"])
Movement = namedtuple("Movement", ["quantity", "unit_cost"])

POSITIONS = TRADING.read_model("average_cost_positions")
VALUATION = ORDERS.read_model("purchase_cost")


def folded(fold: Any, events: Iterable[Any], state: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Fold events onto a state."""
    for event in events:
        state = fold.fold(state, event)
    return state


@pytest.mark.parametrize(
    ("trades", "quantity", "average_cost", "realised_profit"),
    [
        ([(10, "2")], 10, "2", "0"),
        ([(10, "2"), (10, "3")], 20, "2.5", "0"),
        ([(10, "2"), (10, "3"), (-5, "4")], 15, "2.5", "7.5"),
        ([(10, "2"), (-10, "3")], 0, "0", "10"),
        ([(10, "2"), (-10, "3"), (4, "7")], 4, "7", "10"),
        ([(10, "2"), (-15, "3")], -5, "3", "10"),
        ([(-5, "3"), (-5, "5")], -10, "4", "0"),
        ([(-10, "4"), (4, "1")], -6, "4", "12"),
        ([(-10, "4"), (15, "1")], 5, "1", "30"),
        ([(1, "1"), (2, "2")], 3, "1.666667", "0"),
    ],
)
def test_average_cost(trades: list[tuple[int, str]], quantity: int, average_cost: str, realised_profit: str) -> None:
    """Increases average the cost, reductions realise profit, a flip does both; shorts mirror longs."""
    state = folded(POSITIONS, [Trade(q, Decimal(price)) for q, price in trades])
    assert state == {
        "quantity": quantity,
        "average_cost": Decimal(average_cost),
        "realised_profit": Decimal(realised_profit),
    }


@pytest.mark.parametrize(
    ("movements", "quantity", "average_cost", "value"),
    [
        ([(10, "4")], 10, "4", "40"),
        ([(10, "4"), (10, "5")], 20, "4.5", "90"),
        ([(10, "4"), (-5, None), (5, "5")], 10, "4.5", "45"),
        ([(10, "4"), (5, None)], 15, "4", "60"),
        ([(-3, None)], -3, "0", "0"),
        ([(-3, None), (10, "4")], 7, "4", "28"),
        ([(10, "4"), (-10, None), (2, "9")], 2, "9", "18"),
        ([(10, "4"), (-2, "9")], 8, "4", "32"),
        ([(1, "1"), (2, "2")], 3, "1.666667", "5.000001"),
    ],
)
def test_moving_average_cost(
    movements: list[tuple[int, str | None]], quantity: int, average_cost: str, value: str
) -> None:
    """A receipt changes the average, other movements keep it, and a receipt into empty stock sets it."""
    state = folded(VALUATION, [Movement(q, None if cost is None else Decimal(cost)) for q, cost in movements])
    assert state == {"quantity": quantity, "average_cost": Decimal(average_cost), "value": Decimal(value)}


def stored(fold: Fold, state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a state as read from the published table."""
    if state is None:
        return None
    types = {c: arrow_type(t, where=c) for c, t in fold.columns.items()}
    return {
        c: pa.scalar(Decimal(v) if pa.types.is_decimal(types[c]) else v, types[c]).as_py() for c, v in state.items()
    }


PIECES = st.integers(-1_000, 1_000)
FOUR_PLACES = st.decimals(0, 10_000, places=4)


@pytest.mark.parametrize(
    ("fold", "events"),
    [
        (POSITIONS, st.builds(Trade, PIECES.filter(bool), FOUR_PLACES)),
        (VALUATION, st.builds(Movement, PIECES, st.none() | FOUR_PLACES)),
    ],
    ids=["average_cost_positions", "purchase_cost"],
)
@given(data=st.data())
def test_a_fold_resumes_from_its_columns(fold: Fold, events: Any, data: Any) -> None:
    """Storing the state after every event changes nothing, so increments agree with a rebuild."""
    history = data.draw(st.lists(events, max_size=20))
    state: dict[str, Any] | None = None
    for event in history:
        state = stored(fold, fold.fold(state, event))
    assert state == folded(fold, history)


def test_revenue_by_month() -> None:
    """Days of a month are summed, currency by currency."""
    days = [
        (date(2024, 4, 30), "EUR", 1, Decimal("10.00"), Decimal("0.00")),
        (date(2024, 5, 1), "EUR", 2, Decimal("20.00"), Decimal("5.00")),
        (date(2024, 5, 31), "EUR", 3, Decimal("30.00"), Decimal("0.00")),
        (date(2024, 5, 31), "SEK", 1, Decimal("99.00"), Decimal("0.00")),
    ]
    rows = show(ORDERS, "revenue_by_month", "revenue_by_day", days)
    assert [tuple(row.values()) for row in rows] == [
        (date(2024, 4, 1), "EUR", 1, Decimal("10.00"), Decimal("0.00"), Decimal("10.00")),
        (date(2024, 5, 1), "EUR", 5, Decimal("50.00"), Decimal("5.00"), Decimal("45.00")),
        (date(2024, 5, 1), "SEK", 1, Decimal("99.00"), Decimal("0.00"), Decimal("99.00")),
    ]


def test_revenue_dashboard() -> None:
    """The seven-day average includes days without sales, and excludes the day a week before."""
    days = [
        (date(2024, 5, 1), "EUR", 1, Decimal("70.00"), Decimal("0.00")),
        (date(2024, 5, 7), "EUR", 1, Decimal("14.00"), Decimal("7.00")),
        (date(2024, 5, 8), "EUR", 1, Decimal("7.00"), Decimal("0.00")),
        (date(2024, 5, 8), "SEK", 1, Decimal("21.00"), Decimal("0.00")),
    ]
    rows = show(ORDERS, "revenue_dashboard", "revenue_by_day", days)
    shown = [(r["net_revenue"], r["net_revenue_to_date"], r["net_revenue_7_day_average"]) for r in rows]
    assert shown == [
        (Decimal("70.00"), Decimal("70.00"), Decimal("10.00")),
        (Decimal("7.00"), Decimal("77.00"), Decimal("11.00")),
        (Decimal("7.00"), Decimal("84.00"), Decimal("2.00")),
        (Decimal("21.00"), Decimal("21.00"), Decimal("3.00")),
    ]


def test_trader_performance_summary_derives_ratios() -> None:
    """The win rate is of closed positions; a trader without closed positions has none."""
    summaries = [
        ("t1", 9, Decimal("900"), Decimal("50"), Decimal("-3.00"), 3, 1, LATE),
        ("t2", 1, Decimal("100"), Decimal("50"), Decimal("0.00"), 0, 0, LATE),
    ]
    model = TRADING.read_model("trader_performance_summary")
    with connect() as connection:
        connection.execute(create_table_sql(model))
        for row in summaries:
            connection.execute(f"INSERT INTO {model.name} VALUES ({', '.join('?' * len(row))})", row)
        shown = connection.execute(
            f"SELECT trader_id, win_rate, profit_per_position FROM {model.name} ORDER BY 1"
        ).fetchall()
    assert shown == [("t1", Decimal("0.3333"), Decimal("-1.00")), ("t2", None, None)]


@pytest.mark.parametrize("domain", [ORDERS, TRADING], ids=lambda d: d.name)
def test_every_event_is_read(domain: Domain) -> None:
    """Every event is read by a read model or a decider."""
    read = {t for model in domain.read_models for t in model.event_types}
    if domain is ORDERS:  # its decider alone reads these
        read |= {"SubscriptionStarted", "SubscriptionCancelled"}
    assert read == {event_type_of(cls) for cls in domain.events}
