"""The trading domain as one value, with the view that sets its ratios beside its sums."""

from __future__ import annotations

from event_schemas.trading import EVENTS, UPCASTERS
from warehouse.domain import Domain
from warehouse.projection import View
from warehouse.trading.projections import AVERAGE_COST_POSITIONS, TRADER_PERFORMANCE_SUMMARY

# A ratio of sums is no sum: the table keeps what adds up, and the view divides. NULL before the first closed position.
TRADER_PERFORMANCE = View(
    "trader_performance",
    """
    SELECT
        trader_id,
        trades,
        volume,
        net_cash,
        realised_profit,
        closed_positions,
        wins,
        CAST(wins / nullif(closed_positions, 0) AS DECIMAL(5,4)) AS win_rate,
        CAST(realised_profit / nullif(closed_positions, 0) AS DECIMAL(18,2)) AS profit_per_position,
        last_trade_at
    FROM trader_performance_summary
    """,
)

TRADING = Domain(
    name="trading",
    events=EVENTS,
    upcasters=UPCASTERS,
    read_models=(TRADER_PERFORMANCE_SUMMARY, AVERAGE_COST_POSITIONS),
    views=(TRADER_PERFORMANCE,),
)
"""Trades, positions and cash of many traders."""
