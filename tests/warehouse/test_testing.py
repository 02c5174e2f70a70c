"""The test language: a check that holds passes, and one that does not says why."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from refold.event_schemas import UsageError
from refold.event_schemas.orders import (
    AdjustStock,
    CancelOrder,
    ItemAdded,
    OrderCancelled,
    OrderItem,
    OrderPaid,
    OrderPlaced,
    PlaceOrder,
    StockReceived,
)
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold
from refold.warehouse.event_log import NewEvent, StreamAppend
from refold.warehouse.orders.domain import ORDERS
from refold.warehouse.testing import FIRST_OCCURRED_AT, scenarios

given = scenarios(ORDERS)

PLACED = OrderPlaced(order_id="order-1", customer_id="c1", currency="EUR", deliver_on=None)
CUPS = ItemAdded(sku="cup", quantity=3, unit_price=Decimal("0.10"))
PAID = OrderPaid(
    order_id="order-1",
    customer_id="c1",
    payment_id=UUID(int=1),
    amount=Decimal("0.30"),
    currency="EUR",
    method="card",
)
CANCEL = CancelOrder(order_id="order-1", reason="late")
CANCELLED = OrderCancelled(
    order_id="order-1",
    customer_id="c1",
    reason="late",
    items=[OrderItem(sku="cup", quantity=3)],
    currency="EUR",
    refund=None,
)


def test_a_command_s_events_are_checked() -> None:
    """Events are checked in order; a command may have none."""
    given([PLACED, CUPS]).when(CANCEL).then([CANCELLED])
    given([]).when(AdjustStock(sku="cup", quantity=0, reason="")).then([])


def test_a_rejection_is_checked_by_its_code() -> None:
    """The code is what programs rely on."""
    given([PLACED, CANCELLED]).when(CANCEL).then_rejected("already_cancelled")


def test_a_failed_check_of_a_command_is_explained() -> None:
    """The message shows the command, what was expected, and what was found."""
    with pytest.raises(AssertionError, match=r"(?s)CancelOrder.*Expected: \[\].*Found: \[OrderCancelled"):
        given([PLACED]).when(CANCEL).then([])
    with pytest.raises(AssertionError, match=r"(?s)Expected: .*Found: Rejected.*no_such_order"):
        given([]).when(CANCEL).then([CANCELLED])
    with pytest.raises(AssertionError, match="code already_paid"):
        given([]).when(CANCEL).then_rejected("already_paid")
    with pytest.raises(AssertionError, match="code already_paid"):
        given([PLACED]).when(CANCEL).then_rejected("already_paid")
    with pytest.raises(UsageError, match="no command OrderPlaced"):
        given([]).when(PLACED)


def test_old_events_and_other_streams_may_be_given() -> None:
    """A command sees its own stream, in the newest form; halves of an address come in one commit."""
    old = NewEvent(
        payload={"order_id": "order-1", "customer": "c1", "deliver_on": "", "note": None},
        event_type="OrderPlaced",
        schema_version=1,
    )
    moved = StreamAppend(
        "order-1",
        [
            NewEvent(payload={"street": "Hafen 1"}, event_type="StreetChanged", schema_version=1),
            NewEvent(payload={"city": "Ulm", "postal_code": None}, event_type="CityChanged", schema_version=1),
        ],
    )
    elsewhere = StreamAppend("order-2", [dataclasses.replace(PLACED, order_id="order-2")])
    scenario = given([old, elsewhere, moved], stream_id="order-1")
    scenario.when(PlaceOrder(order_id="order-1", customer_id="c1", currency="EUR")).then_rejected("already_placed")
    third = PlaceOrder(order_id="order-3", customer_id="c1", currency="EUR")
    scenario.when(third).then([dataclasses.replace(PLACED, order_id="order-3")])
    given([elsewhere]).when(CANCEL).then_rejected("no_such_order")
    rows: list[dict[str, Any]] = [
        {"order_id": "order-1", "city": "Ulm"},
        {"order_id": "order-2", "city": None, "currency": "EUR"},
    ]
    scenario.then_rows("order_summary", rows)


def test_rows_are_checked_by_key_and_given_columns() -> None:
    """Decimals, dates and times are Python's; no events make no rows."""
    paid_on = datetime(2026, 2, 3, tzinfo=UTC)
    given([PLACED, NewEvent(payload=PAID, occurred_at=paid_on)]).then_rows(
        "revenue_by_day",
        [{"day": date(2026, 2, 3), "currency": "EUR", "orders_paid": 1, "revenue": Decimal("0.30")}],
    )
    given([PLACED], stream_id="order-1").then_rows(
        "order_summary", [{"order_id": "order-1", "placed_at": FIRST_OCCURRED_AT}]
    )
    given([]).then_rows("order_summary", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"sku": "cup", "on_hand": 4}],
        [{"sku": "cup", "height": 4}],
        [{"sku": "cup", "on_hand": 5}, {"sku": "mug"}],
        [{"sku": "mug", "on_hand": 5}],
    ],
)
def test_other_rows_are_reported(rows: list[dict[str, object]]) -> None:
    """The message shows extra and missing rows, other values, and unknown columns."""
    received = StockReceived(sku="cup", quantity=5, unit_cost=Decimal(1), best_before=None)
    given([received]).then_rows("inventory_status", [{"sku": "cup", "on_hand": 5}])
    with pytest.raises(AssertionError, match=r"(?s)rows of read model inventory_status differ.*Expected.*Found"):
        given([received]).then_rows("inventory_status", rows)


def test_a_row_needs_its_key() -> None:
    """A row without its key cannot be compared."""
    with pytest.raises(UsageError, match="no key column 'sku'"):
        given([]).then_rows("inventory_status", [{"on_hand": 5}])


def test_a_read_model_that_depends_on_increments_is_reported() -> None:
    """A fold that counts its increments differs from a rebuild."""
    calls = iter(range(1000))

    def forgetful(state: dict[str, int] | None, event: object) -> dict[str, int]:
        return {"seen": next(calls)}

    model = Fold(
        name="forgetful",
        key={"sku": "VARCHAR"},
        columns={"seen": "BIGINT"},
        on={StockReceived: "SELECT sku"},
        fold=forgetful,
        version="1",
    )
    domain = Domain(name="stock", events=(StockReceived,), read_models=(model,))
    received = StockReceived(sku="cup", quantity=5, unit_cost=Decimal(1), best_before=None)
    with pytest.raises(AssertionError, match="depends on how events are divided"):
        scenarios(domain)([received, received]).then_rows("forgetful", [])
