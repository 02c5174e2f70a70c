"""The order domain's read models."""

from warehouse.orders.domain import ORDERS

__all__ = ["ORDERS"]
