"""The HTTP endpoints of the order domain."""

from __future__ import annotations

from refold.warehouse.declarations.endpoints import Lookup, Parameter, Report

ENDPOINTS = (
    Lookup(path="/orders/{order_id}", table="order_summary", text="One order."),
    Lookup(
        path="/customers/{customer_id}/orders",
        table="order_summary",
        text="The orders of a customer, the newest first.",
        newest_first="placed_at",
    ),
    Lookup(path="/customers/{customer_id}", table="orders_by_customer", text="All that a customer ordered and paid."),
    Lookup(path="/products/{sku}/inventory", table="inventory_status", text="The stock of an article."),
    Report(
        path="/reports/revenue",
        text="Revenue by day, week (from its Monday) or month, and by currency.",
        sql="""
            SELECT
                CAST(date_trunc($by, day) AS DATE) AS period,
                currency,
                CAST(sum(orders_paid) AS BIGINT) AS orders_paid,
                CAST(sum(revenue) AS DECIMAL(18,2)) AS revenue,
                CAST(sum(refunds) AS DECIMAL(18,2)) AS refunds,
                CAST(sum(revenue - refunds) AS DECIMAL(18,2)) AS net_revenue
            FROM revenue_by_day
            WHERE ($from IS NULL OR day >= $from) AND ($to IS NULL OR day <= $to)
            GROUP BY ALL
            ORDER BY ALL
        """,
        parameters={
            "from": Parameter(type="DATE", text="The first day; from the beginning by default."),
            "to": Parameter(type="DATE", text="The last day, inclusive; to the end by default."),
            "by": Parameter(
                type="VARCHAR", text="The length of a period.", default="day", choices=("day", "week", "month")
            ),
        },
    ),
    Report(
        path="/reports/stock",
        text="The articles with the fewest available pieces.",
        sql="FROM inventory_status ORDER BY available, sku LIMIT $limit",
        parameters={
            "limit": Parameter(type="BIGINT", text="The number of articles.", default=20, minimum=1, maximum=1_000),
        },
    ),
)
"""Orders, customers, stock and revenue."""
