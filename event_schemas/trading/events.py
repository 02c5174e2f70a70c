"""The events of the trading domain, each in its newest schema version; ``upcasters.py`` has the older versions.

The events of a trader are in one stream a session, ``trader-<id>-s<session>``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import pyarrow as pa

from refold.event_schemas.event import event

Money = Annotated[Decimal, pa.decimal128(18, 2)]
Price = Annotated[Decimal, pa.decimal128(18, 4)]


@event(schema_version=2)
class TradeExecuted:
    """A trader bought or sold.

    Attributes:
        trader_id: the trader.
        instrument: what was traded.
        side: ``buy`` or ``sell``.
        quantity: how many pieces, positive.
        price: the price of one piece.
    """

    trader_id: str
    instrument: str
    side: str
    quantity: int
    price: Price


@event(schema_version=1)
class PositionClosed:
    """A trader sold everything held of an instrument, or bought back everything sold short.

    Attributes:
        trader_id: the trader.
        instrument: the instrument.
        realised_profit: the profit after fees; negative for a loss.
    """

    trader_id: str
    instrument: str
    realised_profit: Money


@event(schema_version=1)
class CashDeposited:
    """A trader paid money in."""

    trader_id: str
    amount: Money


@event(schema_version=1)
class CashWithdrawn:
    """A trader took money out."""

    trader_id: str
    amount: Money


EVENTS: tuple[type, ...] = (TradeExecuted, PositionClosed, CashDeposited, CashWithdrawn)
"""Every event type of the domain."""
