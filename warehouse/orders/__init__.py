"""The order domain's read models."""

from refold.warehouse.orders.domain import ORDERS

__all__ = ["ORDERS"]
