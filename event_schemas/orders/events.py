"""The events of the order domain, each in its newest schema version; ``upcasters.py`` has the older versions.

The events of an order are in the stream ``order-<id>``, those of an article's stock in ``stock-<sku>``, those of a
subscription in ``subscription-<id>``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pyarrow as pa

from refold.event_schemas.event import event

Money = Annotated[Decimal, pa.decimal128(18, 2)]
UnitCost = Annotated[Decimal, pa.decimal128(18, 4)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The destination of a parcel."""

    street: str
    city: str
    postal_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderItem:
    """A quantity of one article."""

    sku: str
    quantity: int


@event(schema_version=3)
class OrderPlaced:
    """A customer opened an order.

    Attributes:
        order_id: the order's stream.
        customer_id: who ordered.
        currency: ISO 4217 code of all amounts of this order. A customer is billed in one currency.
        deliver_on: the delivery day that the customer asked for.
    """

    order_id: str
    customer_id: str
    currency: str
    deliver_on: date | None


@event(schema_version=2)
class ItemAdded:
    """Pieces of an article were added to an order, and are reserved from now on."""

    sku: str
    quantity: int
    unit_price: Money


@event(schema_version=1)
class OrderPaid:
    """The customer paid the order in full; an order is paid once."""

    order_id: str
    customer_id: str
    payment_id: UUID
    amount: Money
    currency: str
    method: str


@event(schema_version=1)
class OrderShipped:
    """A parcel left the warehouse; an order may leave in several."""

    carrier: str
    tracking_code: str | None
    items: list[OrderItem]


@event(schema_version=1)
class OrderDelivered:
    """The last parcel arrived."""

    signed_by: str | None
    left_at_door: bool


@event(schema_version=1)
class OrderCancelled:
    """An order ended before its delivery.

    Attributes:
        order_id: the order's stream.
        customer_id: who had ordered.
        reason: why, in words.
        items: what was reserved for the order and is available again.
        currency: ISO 4217 code of the refund.
        refund: the amount that the customer got back; None if nothing was paid.
    """

    order_id: str
    customer_id: str
    reason: str
    items: list[OrderItem]
    currency: str
    refund: Money | None


@event(schema_version=1)
class ShippingAddressUpdated:
    """The customer gave the address of the order, or changed it."""

    address: Address


@event(schema_version=1)
class StockReceived:
    """Pieces of an article arrived from a supplier.

    Attributes:
        sku: the article.
        quantity: how many pieces.
        unit_cost: the cost of one piece, in the shop's own currency.
        best_before: the expiry date of perishable goods.
    """

    sku: str
    quantity: int
    unit_cost: UnitCost
    best_before: date | None


@event(schema_version=1)
class StockAdjusted:
    """The count of an article was corrected: breakage, theft, stocktaking.

    Attributes:
        sku: the article.
        quantity: the difference; negative for a loss.
        reason: why, in words.
    """

    sku: str
    quantity: int
    reason: str


@event(schema_version=1)
class SubscriptionStarted:
    """A customer started to pay for a plan, month by month.

    Attributes:
        subscription_id: the subscription's stream.
        customer_id: who pays.
        plan: the name of the plan.
        monthly_price: the price of one month.
        currency: ISO 4217 code of the price.
    """

    subscription_id: str
    customer_id: str
    plan: str
    monthly_price: Money
    currency: str


@event(schema_version=1)
class SubscriptionCancelled:
    """A subscription ended; it cannot be resumed. A returning customer starts another one."""

    subscription_id: str
    customer_id: str
    reason: str


EVENTS: tuple[type, ...] = (
    OrderPlaced,
    ItemAdded,
    OrderPaid,
    OrderShipped,
    OrderDelivered,
    OrderCancelled,
    ShippingAddressUpdated,
    StockReceived,
    StockAdjusted,
    SubscriptionStarted,
    SubscriptionCancelled,
)
"""Every event type of the domain."""
