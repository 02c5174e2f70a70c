"""The trading domain: its read models."""

from refold.warehouse.trading.domain import TRADING

__all__ = ["TRADING"]
