"""The order domain as one value, and the views of its revenue dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from refold.event_schemas.orders import DECIDERS, EVENTS, UPCASTERS
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import View
from refold.warehouse.orders.endpoints import ENDPOINTS
from refold.warehouse.orders.projections import (
    INVENTORY_STATUS,
    ORDER_SUMMARY,
    ORDERS_BY_CUSTOMER,
    PURCHASE_COST,
    REVENUE_BY_DAY,
)

if TYPE_CHECKING:
    from refold.warehouse.event_log.new_events import StreamAppend

REVENUE_BY_MONTH = View(
    "revenue_by_month",
    """
    SELECT
        CAST(date_trunc('month', day) AS DATE) AS month,
        currency,
        CAST(sum(orders_paid) AS BIGINT) AS orders_paid,
        CAST(sum(revenue) AS DECIMAL(18,2)) AS revenue,
        CAST(sum(refunds) AS DECIMAL(18,2)) AS refunds,
        CAST(sum(revenue - refunds) AS DECIMAL(18,2)) AS net_revenue
    FROM revenue_by_day
    GROUP BY ALL
    """,
)

# A day without payments and refunds has no row but counts in the average: so the sum of seven days is divided by 7.
REVENUE_DASHBOARD = View(
    "revenue_dashboard",
    """
    SELECT
        day,
        currency,
        orders_paid,
        revenue,
        refunds,
        CAST(revenue - refunds AS DECIMAL(18,2)) AS net_revenue,
        CAST(sum(revenue - refunds) OVER so_far AS DECIMAL(18,2)) AS net_revenue_to_date,
        CAST(sum(revenue - refunds) OVER week / 7 AS DECIMAL(18,2)) AS net_revenue_7_day_average
    FROM revenue_by_day
    WINDOW
        so_far AS (PARTITION BY currency ORDER BY day),
        week AS (PARTITION BY currency ORDER BY day RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW)
    """,
)


def _sample_history(events: int, seed: int) -> Iterator[list[StreamAppend]]:
    """Import the sample history when it is used: nothing else needs the log's writer."""
    from refold.warehouse.orders.sample_history import sample_history

    return sample_history(events, seed)


ORDERS = Domain(
    name="orders",
    events=EVENTS,
    upcasters=UPCASTERS,
    read_models=(ORDER_SUMMARY, ORDERS_BY_CUSTOMER, REVENUE_BY_DAY, INVENTORY_STATUS, PURCHASE_COST),
    views=(REVENUE_BY_MONTH, REVENUE_DASHBOARD),
    deciders=DECIDERS,
    endpoints=ENDPOINTS,
    page=Path(__file__).with_name("page"),
    sample_history=_sample_history,
)
"""Orders, customers, revenue and stock."""
