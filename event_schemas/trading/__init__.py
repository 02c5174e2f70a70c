"""The contracts of the trading domain: its events, and what carries their old versions to them."""

from refold.event_schemas.trading.events import (
    EVENTS,
    CashDeposited,
    CashWithdrawn,
    PositionClosed,
    TradeExecuted,
)
from refold.event_schemas.trading.upcasters import UPCASTERS

__all__ = ["EVENTS", "UPCASTERS", "CashDeposited", "CashWithdrawn", "PositionClosed", "TradeExecuted"]
