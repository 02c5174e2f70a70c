"""The older schemas of the trading domain's events, and the upcasters that convert them to the newest."""

from __future__ import annotations

import pyarrow as pa

from refold.event_schemas.trading.events import TradeExecuted
from refold.event_schemas.upcasting import Upcaster, upcaster

TRADE_EXECUTED_V1 = pa.schema(
    [
        pa.field("trader_id", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("quantity", pa.int64(), nullable=False),
        pa.field("price", pa.decimal128(18, 2), nullable=False),
    ]
)


@upcaster(TradeExecuted, from_version=1, schema=TRADE_EXECUTED_V1)
def tell_sides_apart() -> str:
    """Derive the side from the sign of the quantity, rename symbol, and give prices four decimal places."""
    return """
        SELECT
            * EXCLUDE (symbol) REPLACE (abs(quantity) AS quantity, CAST(price AS DECIMAL(18,4)) AS price),
            symbol AS instrument,
            CASE WHEN quantity < 0 THEN 'sell' ELSE 'buy' END AS side
        FROM event
    """


UPCASTERS: tuple[Upcaster, ...] = (tell_sides_apart,)
"""Every upcaster of the domain."""
