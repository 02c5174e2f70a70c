"""The trading domain's read models."""

from warehouse.trading.domain import TRADING

__all__ = ["TRADING"]
