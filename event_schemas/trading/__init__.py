"""The contracts of the trading domain: events, and upcasters from their old versions."""

from refold.event_schemas.trading.events import (
    EVENTS,
    CashDeposited,
    CashWithdrawn,
    PositionClosed,
    TradeExecuted,
)
from refold.event_schemas.trading.upcasters import UPCASTERS

__all__ = ["EVENTS", "UPCASTERS", "CashDeposited", "CashWithdrawn", "PositionClosed", "TradeExecuted"]
