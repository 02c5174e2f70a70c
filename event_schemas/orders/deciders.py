"""What the order domain's commands lead to: orders, the stock of an article, subscriptions.

Each decides from its own stream alone. The stock of an article is what was received and adjusted: what orders reserve
and ship lies in their own streams, and meets it in the read model ``inventory_status``.
"""

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

_CURRENCY = re.compile(r"[A-Z]{3}")
# What read models add up over thousands of orders must fit into their columns: beyond, nothing could follow the log.
_MAX_MONEY = Decimal("1e10")
_MAX_PIECES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """An order, as far as decisions need it.

    Attributes:
        status: ``new`` (not placed yet), ``placed``, ``paid``, ``shipped``, ``delivered`` or ``cancelled``.
        customer_id: who ordered.
        currency: of all its amounts.
        amount: what its items cost.
        paid: what was paid.
        remaining: what is reserved and was not shipped, by article.
    """

    status: str = "new"
    customer_id: str = ""
    currency: str = ""
    amount: Money = Decimal(0)
    paid: Money | None = None
    remaining: list[OrderItem] = field(default_factory=list)


def evolve_order(state: OrderState, event: Any) -> OrderState:
    """Tell what an event makes of an order."""
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
    """Tell what a command makes of an order."""
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
    raise TypeError(f"{type(command).__name__} is no command of orders.")


def _place(command: c.PlaceOrder, state: OrderState) -> Decision:
    if not re.fullmatch(r"order-.+", command.order_id):
        return Rejected("bad_order_id", f"An order's id starts with 'order-'; found {command.order_id!r}.")
    if not command.customer_id:
        return Rejected("no_customer", "The customer_id is empty; an order is somebody's.")
    if not _CURRENCY.fullmatch(command.currency):
        return Rejected("bad_currency", f"A currency is an ISO 4217 code such as EUR; found {command.currency!r}.")
    if state.status != "new":
        return Rejected("already_placed", f"The order {command.order_id} was placed before.")
    placed = e.OrderPlaced(
        order_id=command.order_id,
        customer_id=command.customer_id,
        currency=command.currency,
        deliver_on=command.deliver_on,
    )
    return [placed]


def _add_item(command: c.AddItem, state: OrderState) -> Decision:
    if state.status != "placed":
        return Rejected(f"already_{state.status}", f"The order is {state.status}; items are added before it is paid.")
    if not 0 < command.quantity <= _MAX_PIECES:
        return Rejected("bad_quantity", f"An item has 1 to {_MAX_PIECES} pieces; found {command.quantity}.")
    if command.unit_price < 0:
        return Rejected("bad_price", f"A price is not negative; found {command.unit_price}.")
    if state.amount + command.quantity * command.unit_price >= _MAX_MONEY:
        return Rejected("too_much", f"An order costs less than {_MAX_MONEY:,f} in all.")
    return [e.ItemAdded(sku=command.sku, quantity=command.quantity, unit_price=command.unit_price)]


def _pay(command: c.PayOrder, state: OrderState) -> Decision:
    if state.status != "placed":
        return Rejected(f"already_{state.status}", f"The order is {state.status}; it is paid once.")
    if not state.remaining:
        return Rejected("no_items", "The order has no items; there is nothing to pay for.")
    if command.amount != state.amount:
        return Rejected(
            "wrong_amount",
            f"The order costs {state.amount} {state.currency} and is paid in full; found {command.amount}.",
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
        return Rejected("not_paid", "The order is not paid; it is shipped after that.")
    if state.status not in ("paid", "shipped"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}; nothing of it is shipped any more.")
    if not command.items or any(item.quantity <= 0 for item in command.items):
        return Rejected("bad_quantity", "A parcel holds items, of at least one piece each.")
    remaining, sent = Counter(_pieces(state.remaining)), Counter[str]()
    for item in command.items:
        sent[item.sku] += item.quantity
    for sku, quantity in sent.items():
        if quantity > remaining[sku]:
            return Rejected(
                "not_ordered", f"Of {sku} there are {remaining[sku]} pieces still to be shipped; found {quantity}."
            )
    shipped = e.OrderShipped(carrier=command.carrier, tracking_code=command.tracking_code, items=list(command.items))
    return [shipped]


def _deliver(command: c.DeliverOrder, state: OrderState) -> Decision:
    if state.status in ("delivered", "cancelled"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}.")
    if state.status != "shipped":
        return Rejected("not_shipped", f"The order is {state.status}; it is shipped before it can arrive.")
    if state.remaining:
        return Rejected("not_all_shipped", "Some of the order's items are still to be shipped.")
    return [e.OrderDelivered(signed_by=command.signed_by, left_at_door=command.left_at_door)]


def _cancel(command: c.CancelOrder, state: OrderState) -> Decision:
    if state.status not in ("placed", "paid"):
        return Rejected(f"already_{state.status}", f"The order is {state.status}; it can't be cancelled any more.")
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
        return Rejected(f"already_{state.status}", f"The order is {state.status}; its address stays as it is.")
    return [e.ShippingAddressUpdated(address=command.address)]


def _pieces(items: Iterable[OrderItem]) -> dict[str, int]:
    pieces: Counter[str] = Counter()
    for item in items:
        pieces[item.sku] += item.quantity
    return pieces


def _items(pieces: Counter[str]) -> list[OrderItem]:
    return [OrderItem(sku=sku, quantity=quantity) for sku, quantity in pieces.items() if quantity > 0]


@dataclass(frozen=True, slots=True)
class StockState:
    """What was received of an article, and adjusted."""

    on_hand: int = 0


def evolve_stock(state: StockState, event: Any) -> StockState:
    """Tell what an event makes of an article's stock."""
    if isinstance(event, e.StockReceived | e.StockAdjusted):
        return StockState(state.on_hand + event.quantity)
    return state


def decide_stock(command: Any, state: StockState) -> Decision:
    """Tell what a command makes of an article's stock."""
    if not command.sku:
        return Rejected("no_sku", "The sku is empty; name the article.")
    if abs(command.quantity) > _MAX_PIECES:
        return Rejected("bad_quantity", f"At most {_MAX_PIECES} pieces move at once; found {command.quantity}.")
    if isinstance(command, c.ReceiveStock):
        if command.quantity <= 0:
            return Rejected("bad_quantity", f"At least one piece is received; found {command.quantity}.")
        if not 0 <= command.unit_cost < _MAX_MONEY:
            return Rejected("bad_price", f"A piece costs 0 or more, and less than {_MAX_MONEY:,f}.")
        received = e.StockReceived(
            sku=command.sku,
            quantity=command.quantity,
            unit_cost=command.unit_cost,
            best_before=command.best_before,
        )
        return [received]
    if command.quantity == 0:
        return []
    if state.on_hand + command.quantity < 0:
        return Rejected(
            "not_in_stock", f"Of {command.sku} there are {state.on_hand} pieces; {-command.quantity} can't be gone."
        )
    return [e.StockAdjusted(sku=command.sku, quantity=command.quantity, reason=command.reason)]


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """A subscription: ``new`` (not started yet), ``active`` or ``cancelled``, and whose it is."""

    status: str = "new"
    customer_id: str = ""


def evolve_subscription(state: SubscriptionState, event: Any) -> SubscriptionState:
    """Tell what an event makes of a subscription."""
    match event:
        case e.SubscriptionStarted():
            return SubscriptionState("active", event.customer_id)
        case e.SubscriptionCancelled():
            return replace(state, status="cancelled")
    return state


def decide_subscription(command: Any, state: SubscriptionState) -> Decision:
    """Tell what a command makes of a subscription."""
    if isinstance(command, c.StartSubscription):
        return _start(command, state)
    if state.status == "new":
        return Rejected("no_such_subscription", f"There is no subscription {command.subscription_id}; start it first.")
    if state.status == "cancelled":
        return Rejected("already_cancelled", "The subscription is cancelled.")
    cancelled = e.SubscriptionCancelled(
        subscription_id=command.subscription_id, customer_id=state.customer_id, reason=command.reason
    )
    return [cancelled]


def _start(command: c.StartSubscription, state: SubscriptionState) -> Decision:
    if not re.fullmatch(r"subscription-.+", command.subscription_id):
        return Rejected(
            "bad_subscription_id",
            f"A subscription's id starts with 'subscription-'; found {command.subscription_id!r}.",
        )
    if not command.customer_id:
        return Rejected("no_customer", "The customer_id is empty; a subscription is somebody's.")
    if not _CURRENCY.fullmatch(command.currency):
        return Rejected("bad_currency", f"A currency is an ISO 4217 code such as EUR; found {command.currency!r}.")
    if command.monthly_price <= 0:
        return Rejected("bad_price", f"A plan costs something; found {command.monthly_price}.")
    if state.status != "new":
        return Rejected(
            f"already_{'started' if state.status == 'active' else state.status}",
            f"The subscription {command.subscription_id} is {state.status}; a customer who comes back starts another.",
        )
    started = e.SubscriptionStarted(
        subscription_id=command.subscription_id,
        customer_id=command.customer_id,
        plan=command.plan,
        monthly_price=command.monthly_price,
        currency=command.currency,
    )
    return [started]


def _order_stream(command: Any) -> str:
    return str(command.order_id)


def _stock_stream(command: Any) -> str:
    return f"stock-{command.sku}"


def _subscription_stream(command: Any) -> str:
    return str(command.subscription_id)


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

STOCK = Decider(
    name="stock",
    commands=(c.ReceiveStock, c.AdjustStock),
    stream_id=_stock_stream,
    initial_state=StockState,
    evolve=evolve_stock,
    decide=decide_stock,
)

SUBSCRIPTION = Decider(
    name="subscription",
    commands=(c.StartSubscription, c.CancelSubscription),
    stream_id=_subscription_stream,
    initial_state=SubscriptionState,
    evolve=evolve_subscription,
    decide=decide_subscription,
)

DECIDERS: tuple[Decider[Any], ...] = (ORDER, STOCK, SUBSCRIPTION)
"""Every decider of the domain."""
