"""The decider of orders: place, pay, ship, deliver, cancel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from refold.event_schemas.decider import Decider, Decision, Rejected
from refold.event_schemas.orders import commands as c
from refold.event_schemas.orders import events as e
from refold.event_schemas.orders.events import Money, OrderItem
from refold.event_schemas.orders.limits import CURRENCY, MAX_MONEY, MAX_PIECES


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """The state of an order that decisions need.

    Attributes:
        status: ``new`` (not placed yet), ``placed``, ``paid``, ``shipped``, ``delivered`` or ``cancelled``.
        customer_id: who ordered.
        currency: the currency of all its amounts.
        amount: the price of all its items.
        paid: the amount that was paid; None before.
        remaining: the items that are reserved and not shipped yet, by article.
    """

    status: str = "new"
    customer_id: str = ""
    currency: str = ""
    amount: Money = Decimal(0)
    paid: Money | None = None
    remaining: list[OrderItem] = field(default_factory=list)


def evolve_order(state: OrderState, event: Any) -> OrderState:
    """Return the state of an order after an event."""
    match event:
        case e.OrderPlaced():
            return replace(state, status="placed", customer_id=event.customer_id, currency=event.currency)
        case e.ItemAdded():
            pieces = Counter(_pieces(state.remaining))
            pieces[event.sku] += event.quantity
            return replace(state, amount=state.amount + event.quantity * event.unit_price, remaining=_items(pieces))
        case e.OrderPaid():
            return replace(state, status="paid", paid=event.amount)
        case e.OrderShipped():
            pieces = Counter(_pieces(state.remaining))
            pieces.subtract(_pieces(event.items))
            return replace(state, status="shipped", remaining=_items(pieces))
        case e.OrderDelivered():
            return replace(state, status="delivered")
        case e.OrderCancelled():
            return replace(state, status="cancelled", remaining=[])
    return state


def decide_order(command: Any, state: OrderState) -> Decision:
    """Return the events that a command leads to, or why it is rejected."""
    if isinstance(command, c.PlaceOrder):
        return _place(command, state)
    if state.status == "new":
        return Rejected("no_such_order", f"There is no order {command.order_id}; place it first.")
    match command:
        case c.AddItem():
            return _add_item(command, state)
        case c.PayOrder():
            return _pay(command, state)
        case c.ShipOrder():
            return _ship(command, state)
        case c.DeliverOrder():
            return _deliver(command, state)
        case c.CancelOrder():
            return _cancel(command, state)
        case c.UpdateShippingAddress():
            return _update_address(command, state)
    raise TypeError(f"{type(command).__name__} is not a command of orders.")


def _place(command: c.PlaceOrder, state: OrderState) -> Decision:
    if not re.fullmatch(r"order-.+", command.order_id):
        return Rejected("bad_order_id", f"An order's id starts with 'order-'; found {command.order_id!r}.")
    if not command.customer_id:
        return Rejected("no_customer", "The customer_id is empty; an order needs a customer.")
    if not CURRENCY.fullmatch(command.currency):
        return Rejected("bad_currency", f"A currency is an ISO 4217 code such as EUR; found {command.currency!r}.")
    if state.status != "new":
        return Rejected("already_placed", f"The order {command.order_id} is already placed.")
    placed = e.OrderPlaced(
        order_id=command.order_id,
        customer_id=command.customer_id,
        currency=command.currency,
        deliver_on=command.deliver_on,
    )
    return [placed]


def _add_item(command: c.AddItem, state: OrderState) -> Decision:
    if state.status != "placed":
        return Rejected(f"already_{state.status}", f"The order is {state.status}; it no longer takes items.")
    if not 0 < command.quantity <= MAX_PIECES:
        return Rejected("bad_quantity", f"An item has 1 to {MAX_PIECES} pieces; found {command.quantity}.")
    if command.unit_price < 0:
        return Rejected("bad_price", f"A price cannot be negative; found {command.unit_price}.")
    if state.amount + command.quantity * command.unit_price >= MAX_MONEY:
        return Rejected("too_much", f"The total of an order must be less than {MAX_MONEY:,f}.")
    return [e.ItemAdded(sku=command.sku, quantity=command.quantity, unit_price=command.unit_price)]


def _pay(command: c.PayOrder, state: OrderState) -> Decision:
    if state.status != "placed":
        return Rejected(f"already_{state.status}", f"The order is {state.status}; an order is paid once.")
    if not state.remaining:
        return Rejected("no_items", "The order has no items; there is nothing to pay for.")
    if command.amount != state.amount:
        return Rejected(
            "wrong_amount",
            f"The order costs {state.amount} {state.currency} and must be paid in full; found {command.amount}.",
        )
    paid = e.OrderPaid(
        order_id=command.order_id,
        customer_id=state.customer_id,
        payment_id=command.payment_id,
        amount=command.amount,
        currency=state.currency,
        method=command.method,
    )
    return [paid]


def _ship(command: c.ShipOrder, state: OrderState) -> Decision:
    if state.status == "placed":
        return Rejected("not_paid", "The order is not paid; it can be shipped after it is paid.")
    if state.status not in ("paid", "shipped"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}; it cannot be shipped.")
    if not command.items or any(item.quantity <= 0 for item in command.items):
        return Rejected("bad_quantity", "A parcel must hold items, each with at least one piece.")
    remaining, sent = Counter(_pieces(state.remaining)), Counter[str]()
    for item in command.items:
        sent[item.sku] += item.quantity
    for sku, quantity in sent.items():
        if quantity > remaining[sku]:
            return Rejected(
                "not_ordered",
                f"Of {sku}, {remaining[sku]} can still be shipped; found {quantity}.",
            )
    shipped = e.OrderShipped(carrier=command.carrier, tracking_code=command.tracking_code, items=list(command.items))
    return [shipped]


def _deliver(command: c.DeliverOrder, state: OrderState) -> Decision:
    if state.status in ("delivered", "cancelled"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}.")
    if state.status != "shipped":
        return Rejected("not_shipped", f"The order is {state.status}; it can be delivered only after it is shipped.")
    if state.remaining:
        return Rejected("not_all_shipped", "Some items of the order remain to be shipped.")
    return [e.OrderDelivered(signed_by=command.signed_by, left_at_door=command.left_at_door)]


def _cancel(command: c.CancelOrder, state: OrderState) -> Decision:
    if state.status not in ("placed", "paid"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}; it can no longer be cancelled.")
    cancelled = e.OrderCancelled(
        order_id=command.order_id,
        customer_id=state.customer_id,
        reason=command.reason,
        items=state.remaining,
        currency=state.currency,
        refund=state.paid,
    )
    return [cancelled]


def _update_address(command: c.UpdateShippingAddress, state: OrderState) -> Decision:
    if state.status not in ("placed", "paid"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}; its address can no longer change.")
    return [e.ShippingAddressUpdated(address=command.address)]


def _pieces(items: Iterable[OrderItem]) -> dict[str, int]:
    pieces: Counter[str] = Counter()
    for item in items:
        pieces[item.sku] += item.quantity
    return pieces


def _items(pieces: Counter[str]) -> list[OrderItem]:
    return [OrderItem(sku=sku, quantity=quantity) for sku, quantity in pieces.items() if quantity > 0]


def _order_stream(command: Any) -> str:
    return str(command.order_id)


ORDER = Decider(
    name="order",
    commands=(
        c.PlaceOrder,
        c.AddItem,
        c.PayOrder,
        c.ShipOrder,
        c.DeliverOrder,
        c.CancelOrder,
        c.UpdateShippingAddress,
    ),
    stream_id=_order_stream,
    initial_state=OrderState,
    evolve=evolve_order,
    decide=decide_order,
)
