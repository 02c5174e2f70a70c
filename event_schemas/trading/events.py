"""The events of the trading domain, each in its newest schema version; ``upcasters.py`` tells what they were before.

A trader's events lie in one stream for each session, ``trader-<id>-s<session>``.
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
        trader_id: whose trade it is.
        instrument: what was traded.
        side: ``buy`` or ``sell``.
        quantity: how many pieces, positive.
        price: of one piece.
    """

    trader_id: str
    instrument: str
    side: str
    quantity: int
    price: Price


@event(schema_version=1)
class PositionClosed:
    """All that a trader held of an instrument is sold, or what was sold short is bought back.

    Attributes:
        trader_id: whose position it was.
        instrument: what was held.
        realised_profit: what it brought in, fees taken off; negative for a loss.
    """

    trader_id: str
    instrument: str
    realised_profit: Money


@event(schema_version=1)
class CashDeposited:
    """A trader paid in."""

    trader_id: str
    amount: Money


@event(schema_version=1)
class CashWithdrawn:
    """A trader took money out."""

    trader_id: str
    amount: Money


EVENTS: tuple[type, ...] = (TradeExecuted, PositionClosed, CashDeposited, CashWithdrawn)
"""Every event type of the domain."""
