"""The contracts of the order domain: events, upcasters from their old versions, commands and their deciders."""

from refold.event_schemas.orders.commands import (
    AddItem,
    AdjustStock,
    CancelOrder,
    CancelSubscription,
    DeliverOrder,
    PayOrder,
    PlaceOrder,
    ReceiveStock,
    ShipOrder,
    StartSubscription,
    UpdateShippingAddress,
)
from refold.event_schemas.orders.events import (
    EVENTS,
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
    SubscriptionCancelled,
    SubscriptionStarted,
)
from refold.event_schemas.orders.order import ORDER
from refold.event_schemas.orders.stock import STOCK
from refold.event_schemas.orders.subscription import SUBSCRIPTION
from refold.event_schemas.orders.upcasters import UPCASTERS

DECIDERS = (ORDER, STOCK, SUBSCRIPTION)
"""Every decider of the domain."""

__all__ = [
    "DECIDERS",
    "EVENTS",
    "ORDER",
    "STOCK",
    "SUBSCRIPTION",
    "UPCASTERS",
    "AddItem",
    "Address",
    "AdjustStock",
    "CancelOrder",
    "CancelSubscription",
    "DeliverOrder",
    "ItemAdded",
    "OrderCancelled",
    "OrderDelivered",
    "OrderItem",
    "OrderPaid",
    "OrderPlaced",
    "OrderShipped",
    "PayOrder",
    "PlaceOrder",
    "ReceiveStock",
    "ShipOrder",
    "ShippingAddressUpdated",
    "StartSubscription",
    "StockAdjusted",
    "StockReceived",
    "SubscriptionCancelled",
    "SubscriptionStarted",
    "UpdateShippingAddress",
]
