"""The order domain's deciders: the events of each command, and the rejections."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from refold.event_schemas import PayloadError
from refold.event_schemas.decider import Decider, Rejected, command_from_json
from refold.event_schemas.orders import (
    DECIDERS,
    ORDER,
    STOCK,
    SUBSCRIPTION,
    AddItem,
    Address,
    AdjustStock,
    CancelOrder,
    CancelSubscription,
    DeliverOrder,
    ItemAdded,
    OrderCancelled,
    OrderDelivered,
    OrderItem,
    OrderPaid,
    OrderPlaced,
    OrderShipped,
    PayOrder,
    PlaceOrder,
    ReceiveStock,
    ShipOrder,
    ShippingAddressUpdated,
    StartSubscription,
    StockAdjusted,
    StockReceived,
    SubscriptionCancelled,
    SubscriptionStarted,
    UpdateShippingAddress,
)

ORDER_ID, PAYMENT, ADDRESS = "order-1", UUID(int=1), Address(street="Hafen 1", city="Ulm")
PLACED = OrderPlaced(order_id=ORDER_ID, customer_id="c1", currency="EUR", deliver_on=None)
CUPS = ItemAdded(sku="cup", quantity=3, unit_price=Decimal("0.10"))
PAID = OrderPaid(
    order_id=ORDER_ID, customer_id="c1", payment_id=PAYMENT, amount=Decimal("0.30"), currency="EUR", method="card"
)
TWO, ONE = [OrderItem(sku="cup", quantity=2)], [OrderItem(sku="cup", quantity=1)]
SHIPPED_TWO = OrderShipped(carrier="DHL", tracking_code=None, items=TWO)
SHIPPED_ONE = OrderShipped(carrier="DHL", tracking_code=None, items=ONE)
DELIVERED = OrderDelivered(signed_by=None, left_at_door=True)
STARTED = SubscriptionStarted(
    subscription_id="subscription-1", customer_id="c1", plan="tea", monthly_price=Decimal("9.90"), currency="EUR"
)
ENDED = SubscriptionCancelled(subscription_id="subscription-1", customer_id="c1", reason="moved")
RECEIVED = StockReceived(sku="cup", quantity=5, unit_cost=Decimal("0.05"), best_before=None)
PLACE = PlaceOrder(order_id=ORDER_ID, customer_id="c1", currency="EUR")
PAY = PayOrder(order_id=ORDER_ID, payment_id=PAYMENT, amount=Decimal("0.3"), method="card")
ADD = AddItem(order_id=ORDER_ID, sku="cup", quantity=3, unit_price=Decimal("0.10"))
DELIVER = DeliverOrder(order_id=ORDER_ID, left_at_door=True)
CANCEL = CancelOrder(order_id=ORDER_ID, reason="late")
MOVE = UpdateShippingAddress(order_id=ORDER_ID, address=ADDRESS)
START = StartSubscription(
    subscription_id="subscription-1", customer_id="c1", plan="tea", monthly_price=Decimal("9.90"), currency="EUR"
)


def ship(*items: OrderItem) -> ShipOrder:
    """Send a parcel."""
    return ShipOrder(order_id=ORDER_ID, carrier="DHL", items=list(items))


def cancelled(items: list[OrderItem], refund: Decimal | None) -> OrderCancelled:
    """Return the cancellation of the order."""
    return OrderCancelled(
        order_id=ORDER_ID, customer_id="c1", reason="late", items=items, currency="EUR", refund=refund
    )


def decided(decider: Decider[Any], given: list[Any], command: Any) -> Any:
    """Decide on the state that events of a stream fold to."""
    state = decider.initial_state()
    for event in given:
        state = decider.evolve(state, event)
    return decider.decide(command, state)


@pytest.mark.parametrize(
    ("decider", "given", "command", "then"),
    [
        (ORDER, [], PLACE, [PLACED]),
        (ORDER, [PLACED], ADD, [CUPS]),
        (ORDER, [PLACED, CUPS], PAY, [PAID]),
        (ORDER, [PLACED, CUPS, PAID], ship(*TWO), [SHIPPED_TWO]),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO], ship(*ONE), [SHIPPED_ONE]),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO, SHIPPED_ONE], DELIVER, [DELIVERED]),
        (ORDER, [PLACED], CANCEL, [cancelled([], None)]),
        (ORDER, [PLACED, CUPS, CUPS], CANCEL, [cancelled([OrderItem(sku="cup", quantity=6)], None)]),
        (ORDER, [PLACED, CUPS, PAID], CANCEL, [cancelled([OrderItem(sku="cup", quantity=3)], PAID.amount)]),
        (ORDER, [PLACED, CUPS, PAID], MOVE, [ShippingAddressUpdated(address=ADDRESS)]),
        (STOCK, [], ReceiveStock(sku="cup", quantity=5, unit_cost=Decimal("0.05")), [RECEIVED]),
        (
            STOCK,
            [RECEIVED],
            AdjustStock(sku="cup", quantity=-5, reason="broken"),
            [StockAdjusted(sku="cup", quantity=-5, reason="broken")],
        ),
        (STOCK, [RECEIVED], AdjustStock(sku="cup", quantity=0, reason="counted"), []),
        (SUBSCRIPTION, [], START, [STARTED]),
        (SUBSCRIPTION, [STARTED], CancelSubscription(subscription_id="subscription-1", reason="moved"), [ENDED]),
    ],
)
def test_a_command_leads_to_events(decider: Decider[Any], given: list[Any], command: Any, then: list[Any]) -> None:
    """An allowed command yields its events, with values filled in from the stream's state."""
    assert decided(decider, given, command) == then


@pytest.mark.parametrize(
    ("decider", "given", "command", "code"),
    [
        (ORDER, [PLACED], PLACE, "already_placed"),
        (ORDER, [], PlaceOrder(order_id="1", customer_id="c1", currency="EUR"), "bad_order_id"),
        (ORDER, [], PlaceOrder(order_id=ORDER_ID, customer_id="c1", currency="euro"), "bad_currency"),
        (ORDER, [], PlaceOrder(order_id=ORDER_ID, customer_id="", currency="EUR"), "no_customer"),
        *((ORDER, [], command, "no_such_order") for command in (ADD, PAY, ship(*ONE), DELIVER, CANCEL, MOVE)),
        (ORDER, [PLACED], AddItem(order_id=ORDER_ID, sku="cup", quantity=0, unit_price=Decimal(1)), "bad_quantity"),
        (ORDER, [PLACED], AddItem(order_id=ORDER_ID, sku="cup", quantity=1, unit_price=Decimal(-1)), "bad_price"),
        (
            ORDER,
            [PLACED],
            AddItem(order_id=ORDER_ID, sku="cup", quantity=10**6, unit_price=Decimal("1e4")),
            "too_much",
        ),
        (ORDER, [PLACED, CUPS, PAID], ADD, "already_paid"),
        (ORDER, [PLACED], PAY, "no_items"),
        (
            ORDER,
            [PLACED, CUPS],
            PayOrder(order_id=ORDER_ID, payment_id=PAYMENT, amount=Decimal("0.31"), method="card"),
            "wrong_amount",
        ),
        (ORDER, [PLACED, CUPS, PAID], PAY, "already_paid"),
        (ORDER, [PLACED, CUPS], ship(*ONE), "not_paid"),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO], ship(*TWO), "not_ordered"),
        (ORDER, [PLACED, CUPS, PAID], ship(*TWO, *TWO), "not_ordered"),
        (ORDER, [PLACED, CUPS, PAID], ship(), "bad_quantity"),
        (ORDER, [PLACED, CUPS, PAID], DELIVER, "not_shipped"),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO], DELIVER, "not_all_shipped"),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO], CANCEL, "already_shipped"),
        (ORDER, [PLACED, CUPS, PAID, SHIPPED_TWO], MOVE, "already_shipped"),
        (ORDER, [PLACED, cancelled([], None)], CANCEL, "already_cancelled"),
        (ORDER, [PLACED, cancelled([], None)], PAY, "already_cancelled"),
        (STOCK, [RECEIVED], AdjustStock(sku="cup", quantity=-6, reason="broken"), "not_in_stock"),
        (STOCK, [], ReceiveStock(sku="cup", quantity=0, unit_cost=Decimal(1)), "bad_quantity"),
        (STOCK, [], ReceiveStock(sku="", quantity=1, unit_cost=Decimal(1)), "no_sku"),
        (STOCK, [], ReceiveStock(sku="cup", quantity=1, unit_cost=Decimal("1e10")), "bad_price"),
        (SUBSCRIPTION, [STARTED], START, "already_started"),
        (SUBSCRIPTION, [STARTED, ENDED], START, "already_cancelled"),
        (SUBSCRIPTION, [], CancelSubscription(subscription_id="subscription-1", reason=""), "no_such_subscription"),
        (
            SUBSCRIPTION,
            [STARTED, ENDED],
            CancelSubscription(subscription_id="subscription-1", reason=""),
            "already_cancelled",
        ),
    ],
)
def test_a_command_is_refused(decider: Decider[Any], given: list[Any], command: Any, code: str) -> None:
    """The rejection has the code of the rule, and a sentence."""
    answer = decided(decider, given, command)
    assert isinstance(answer, Rejected)
    assert answer.code == code
    assert answer.reason.endswith(".")


def test_money_is_exact() -> None:
    """Three times ten cents are thirty cents, however often they are added."""
    state = ORDER.initial_state()
    for event in [PLACED, *([CUPS] * 1000)]:
        state = ORDER.evolve(state, event)
    assert state.amount == Decimal("300.00")


@pytest.mark.parametrize("decider", DECIDERS, ids=lambda d: d.name)
def test_a_state_is_kept_as_it_is(decider: Decider[Any]) -> None:
    """The state before any event reads back from a snapshot."""
    assert decider.snapshot is not None
    state = decider.initial_state()
    assert decider.snapshot.load(decider.snapshot.dump(state)) == state


def test_commands_come_from_json() -> None:
    """Nested values, dates, UUIDs and decimals become what the class declares; optional fields may be missing."""
    parcel = {"order_id": ORDER_ID, "carrier": "DHL", "items": [{"sku": "cup", "quantity": 1}]}
    assert command_from_json(ShipOrder, parcel) == ship(*ONE)
    pay = {"order_id": ORDER_ID, "payment_id": str(PAYMENT), "amount": "0.30", "method": "card"}
    assert command_from_json(PayOrder, pay) == PAY
    place = {"order_id": ORDER_ID, "customer_id": "c1", "currency": "EUR", "deliver_on": "2026-01-31"}
    assert command_from_json(PlaceOrder, place).deliver_on == date(2026, 1, 31)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sku": "cup", "quantity": 1}, "unit_cost is missing"),
        ({"sku": "cup", "quantity": "1", "unit_cost": "1"}, "quantity: expected int64"),
        ({"sku": "cup", "quantity": 1, "unit_cost": "0.00001"}, "unit_cost: expected decimal"),
        ({"sku": "cup", "quantity": 1, "unit_cost": "1", "colour": "red"}, "unknown field colour"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], message: str) -> None:
    """The error names command and field."""
    with pytest.raises(PayloadError, match=f"Command ReceiveStock: .*{message}"):
        command_from_json(ReceiveStock, values)
