"""The order domain: its read models, views and endpoints."""

from refold.warehouse.orders.domain import ORDERS

__all__ = ["ORDERS"]
