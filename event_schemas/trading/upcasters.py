"""What the trading domain's events once were, and the steps that carry them to what they are."""

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
    """Say the side in words, where a negative quantity was a sale; rename symbol; prices have four places now."""
    return """
        SELECT
            * EXCLUDE (symbol) REPLACE (abs(quantity) AS quantity, CAST(price AS DECIMAL(18,4)) AS price),
            symbol AS instrument,
            CASE WHEN quantity < 0 THEN 'sell' ELSE 'buy' END AS side
        FROM event
    """


UPCASTERS: tuple[Upcaster, ...] = (tell_sides_apart,)
"""Every upcaster of the domain."""
