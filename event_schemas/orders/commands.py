"""The commands of the order domain.

Commands of orders and subscriptions name the stream by its id (``order-<id>``, ``subscription-<id>``), commands of
stock by the article.
"""

from __future__ import annotations

from datetime import date
from uuid import UUID

from refold.event_schemas.decider import command
from refold.event_schemas.orders.events import (
    Address,
    Money,
    OrderItem,
    UnitCost,
)


@command
class PlaceOrder:
    """Open an order."""

    order_id: str
    customer_id: str
    currency: str
    deliver_on: date | None = None


@command
class AddItem:
    """Add pieces of an article to an order that is not paid yet."""

    order_id: str
    sku: str
    quantity: int
    unit_price: Money


@command
class PayOrder:
    """Pay an order in full."""

    order_id: str
    payment_id: UUID
    amount: Money
    method: str


@command
class ShipOrder:
    """Send a parcel with some or all of the items that remain."""

    order_id: str
    carrier: str
    items: list[OrderItem]
    tracking_code: str | None = None


@command
class DeliverOrder:
    """Record that the last parcel arrived."""

    order_id: str
    signed_by: str | None = None
    left_at_door: bool


@command
class CancelOrder:
    """End an order before any of it is shipped; a payment is refunded."""

    order_id: str
    reason: str


@command
class UpdateShippingAddress:
    """Set the address of an order before any of it is shipped."""

    order_id: str
    address: Address


@command
class ReceiveStock:
    """Receive pieces of an article from a supplier."""

    sku: str
    quantity: int
    unit_cost: UnitCost
    best_before: date | None = None


@command
class AdjustStock:
    """Correct the count of an article; a negative quantity is a loss."""

    sku: str
    quantity: int
    reason: str


@command
class StartSubscription:
    """Start to pay for a plan."""

    subscription_id: str
    customer_id: str
    plan: str
    monthly_price: Money
    currency: str


@command
class CancelSubscription:
    """End a subscription."""

    subscription_id: str
    reason: str
