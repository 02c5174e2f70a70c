"""The contracts of the order domain: its events, and what carries their old versions to them."""

from event_schemas.orders.events import (
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
)
from event_schemas.orders.upcasters import UPCASTERS

__all__ = [
    "EVENTS",
    "UPCASTERS",
    "Address",
    "ItemAdded",
    "OrderCancelled",
    "OrderDelivered",
    "OrderItem",
    "OrderPaid",
    "OrderPlaced",
    "OrderShipped",
    "ShippingAddressUpdated",
    "StockAdjusted",
    "StockReceived",
]
