"""The trading domain's read models: the performance of each trader, and positions at average cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from refold.event_schemas.trading import (
    CashDeposited,
    CashWithdrawn,
    PositionClosed,
    TradeExecuted,
)
from refold.warehouse.declarations.projection import Fold, Projection
from refold.warehouse.declarations.reducers import count, maximum, total

ZERO = Decimal(0)
COST_STEP = Decimal("0.000001")

TRADER_PERFORMANCE_SUMMARY = Projection(
    name="trader_performance_summary",
    key={"trader_id": "VARCHAR"},
    columns={
        "trades": count(),
        "volume": total("DECIMAL(28,4)"),
        "net_cash": total("DECIMAL(18,2)"),
        "realised_profit": total("DECIMAL(18,2)"),
        "closed_positions": count(),
        "wins": count(),
        "last_trade_at": maximum("TIMESTAMPTZ"),
    },
    on={
        TradeExecuted: """
            SELECT trader_id, 1 AS trades, quantity * price AS volume, occurred_at AS last_trade_at
        """,
        PositionClosed: """
            SELECT trader_id, realised_profit, 1 AS closed_positions,
                   CASE WHEN realised_profit > 0 THEN 1 END AS wins
        """,
        CashDeposited: "SELECT trader_id, amount AS net_cash",
        CashWithdrawn: "SELECT trader_id, -amount AS net_cash",
    },
    derived={
        "win_rate": "CAST(wins / nullif(closed_positions, 0) AS DECIMAL(5,4))",
        "profit_per_position": "CAST(realised_profit / nullif(closed_positions, 0) AS DECIMAL(18,2))",
    },
)


def average_cost(state: dict[str, Any] | None, trade: Any) -> dict[str, Any]:
    """Keep a position at its average cost; a trade takes well under a microsecond.

    A trade away from zero blends its price into the average. A trade towards zero keeps the average and realises the
    difference between price and average. A trade that crosses zero does both: it closes the position, and opens the
    rest at its own price. A negative quantity is a short position.

    The average is rounded to six places, half to even, so that the columns hold the state exactly and an increment
    continues as a rebuild would. See https://en.wikipedia.org/wiki/Average_cost_method.

    Args:
        state: ``quantity``, ``average_cost`` (0 when nothing is held) and ``realised_profit``.
        trade: ``quantity``, never 0 and negative for a sale, and ``price``.
    """
    bought, price = trade.quantity, trade.price
    if state is None:
        return {"quantity": bought, "average_cost": price, "realised_profit": ZERO}
    held, cost = state["quantity"], state["average_cost"]
    state["quantity"] = left = held + bought
    if held * bought >= 0:
        state["average_cost"] = ((held * cost + bought * price) / left).quantize(COST_STEP)
    elif held * left > 0:
        state["realised_profit"] -= bought * (price - cost)
    else:
        state["realised_profit"] += held * (price - cost)
        state["average_cost"] = price if left else ZERO
    return state


# A Fold and not a Projection: whether a trade changes the average or realises a profit depends on the position before.
AVERAGE_COST_POSITIONS = Fold(
    name="average_cost_positions",
    key={"trader_id": "VARCHAR", "instrument": "VARCHAR"},
    columns={"quantity": "BIGINT", "average_cost": "DECIMAL(18,6)", "realised_profit": "DECIMAL(28,6)"},
    on={
        TradeExecuted: """
            SELECT trader_id, instrument, CASE side WHEN 'buy' THEN quantity ELSE -quantity END AS quantity, price
            WHERE quantity <> 0
        """,
    },
    fold=average_cost,
)
