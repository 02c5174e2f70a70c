"""The order read models in hand-written DuckDB SQL: the baseline of ``benchmarks.rebuild``.

One query per table over the segments that refold replays, with upcasting written out; results go to a DuckDB
file. The fold is a Python loop over sorted rows, since SQL cannot express it.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from refold.warehouse.orders.projections import moving_average_cost

_SOURCES = """
CREATE MACRO segments(event_type, version) AS TABLE
    FROM read_parquet('{segments}/event_type=' || event_type || '/schema_version=' || version || '/**/*.parquet',
                      hive_partitioning = false);
CREATE VIEW placed AS
    SELECT position, occurred_at, stream_id, customer AS customer_id, 'EUR' AS currency FROM segments('OrderPlaced', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, customer, currency FROM segments('OrderPlaced', 2)
    UNION ALL
    SELECT position, occurred_at, stream_id, customer_id, currency FROM segments('OrderPlaced', 3);
CREATE VIEW added AS
    SELECT position, occurred_at, stream_id, sku, quantity, (price_cents * 0.01)::DECIMAL(18,2) AS unit_price
    FROM segments('ItemAdded', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, sku, quantity, unit_price FROM segments('ItemAdded', 2);
CREATE VIEW shipped AS
    SELECT position, occurred_at, stream_id, [{{'sku': sku, 'quantity': quantity}}] AS items
    FROM segments('OrderDispatched', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, items FROM segments('OrderShipped', 1);
"""

_ORDER_SUMMARY = """
CREATE TABLE order_summary AS
SELECT
    stream_id AS order_id,
    arg_max(customer_id, position) AS customer_id,
    arg_max(currency, position) AS currency,
    arg_max(status, position) AS status,
    coalesce(sum(quantity), 0)::BIGINT AS item_count,
    coalesce(sum(quantity * unit_price), 0)::DECIMAL(18,2) AS amount,
    coalesce(sum(paid), 0)::DECIMAL(18,2) AS paid,
    arg_max(city, position) AS city,
    arg_min(placed_at, position) AS placed_at,
    arg_max(occurred_at, position) AS updated_at
FROM (
    SELECT position, occurred_at, stream_id, customer_id, currency, 'placed' AS status, NULL::BIGINT AS quantity,
           NULL::DECIMAL(18,2) AS unit_price, NULL::DECIMAL(18,2) AS paid, NULL AS city, occurred_at AS placed_at
    FROM placed
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, NULL, quantity, unit_price, NULL, NULL, NULL FROM added
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, 'paid', NULL, NULL, amount, NULL, NULL
    FROM segments('OrderPaid', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, 'shipped', NULL, NULL, NULL, NULL, NULL FROM shipped
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, 'delivered', NULL, NULL, NULL, NULL, NULL
    FROM segments('OrderDelivered', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, 'cancelled', NULL, NULL, -refund, NULL, NULL
    FROM segments('OrderCancelled', 1)
    UNION ALL
    SELECT position, occurred_at, stream_id, NULL, NULL, NULL, NULL, NULL, NULL, address.city, NULL
    FROM segments('ShippingAddressUpdated', 1)
)
GROUP BY stream_id;
"""

_ORDERS_BY_CUSTOMER = """
CREATE TABLE orders_by_customer AS
SELECT
    customer_id,
    arg_max(currency, position) AS currency,
    count(placed_at) AS orders,
    count(paid) AS paid_orders,
    count(cancelled) AS cancelled_orders,
    coalesce(sum(spent), 0)::DECIMAL(18,2) AS spent,
    min(placed_at) AS first_order_at,
    max(placed_at) AS last_order_at,
    arg_max(order_id, position) AS last_order_id
FROM (
    SELECT position, customer_id, currency, occurred_at AS placed_at, NULL::INTEGER AS paid, NULL::INTEGER AS cancelled,
           NULL::DECIMAL(18,2) AS spent, stream_id AS order_id
    FROM placed
    UNION ALL
    SELECT position, customer_id, NULL, NULL, 1, NULL, amount, NULL FROM segments('OrderPaid', 1)
    UNION ALL
    SELECT position, customer_id, NULL, NULL, NULL, 1, -refund, NULL FROM segments('OrderCancelled', 1)
)
GROUP BY customer_id;
"""

_REVENUE_BY_DAY = """
CREATE TABLE revenue_by_day AS
SELECT
    day,
    currency,
    count(revenue) AS orders_paid,
    coalesce(sum(revenue), 0)::DECIMAL(18,2) AS revenue,
    coalesce(sum(refund), 0)::DECIMAL(18,2) AS refunds
FROM (
    SELECT make_timestamp(epoch_us(occurred_at))::DATE AS day, currency, amount AS revenue, NULL AS refund
    FROM segments('OrderPaid', 1)
    UNION ALL
    SELECT make_timestamp(epoch_us(occurred_at))::DATE, currency, NULL, refund
    FROM segments('OrderCancelled', 1) WHERE refund IS NOT NULL
)
GROUP BY ALL;
"""

_INVENTORY_STATUS = """
CREATE TABLE inventory_status AS
SELECT
    sku,
    coalesce(sum(on_hand), 0)::BIGINT AS on_hand,
    coalesce(sum(reserved), 0)::BIGINT AS reserved,
    coalesce(sum(available), 0)::BIGINT AS available,
    max(occurred_at) AS last_movement_at
FROM (
    SELECT sku, quantity AS on_hand, NULL AS reserved, quantity AS available, occurred_at
    FROM segments('StockReceived', 1)
    UNION ALL
    SELECT sku, quantity, NULL, quantity, occurred_at FROM segments('StockAdjusted', 1)
    UNION ALL
    SELECT sku, NULL, quantity, -quantity, occurred_at FROM added
    UNION ALL
    SELECT item.sku, -item.quantity, -item.quantity, NULL, occurred_at FROM shipped, unnest(items) AS line(item)
    UNION ALL
    SELECT item.sku, NULL, -item.quantity, item.quantity, occurred_at
    FROM segments('OrderCancelled', 1), unnest(items) AS line(item)
)
GROUP BY sku;
"""

_STOCK_MOVEMENTS = """
SELECT sku, quantity, unit_cost FROM (
    SELECT position, sku, quantity, unit_cost FROM segments('StockReceived', 1)
    UNION ALL
    SELECT position, sku, quantity, NULL FROM segments('StockAdjusted', 1)
)
ORDER BY sku, position;
"""


class _Movement:
    """One row for the fold."""

    __slots__ = ("quantity", "unit_cost")

    def __init__(self, quantity: int, unit_cost: object) -> None:
        self.quantity = quantity
        self.unit_cost = unit_cost


def build_by_hand(segments: Path, database: Path, *, threads: int) -> None:
    """Compute the five order tables with plain DuckDB and store them in a file."""
    connection = duckdb.connect(str(database), config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    connection.execute(_SOURCES.format(segments=segments))
    for statement in (_ORDER_SUMMARY, _ORDERS_BY_CUSTOMER, _REVENUE_BY_DAY, _INVENTORY_STATUS):
        connection.execute(statement)
    states: dict[str, dict[str, object]] = {}
    for sku, quantity, unit_cost in connection.execute(_STOCK_MOVEMENTS).fetchall():
        states[sku] = moving_average_cost(states.get(sku), _Movement(quantity, unit_cost))
    connection.execute(
        "CREATE TABLE purchase_cost (sku VARCHAR, quantity BIGINT, average_cost DECIMAL(18,6), value DECIMAL(28,6))"
    )
    rows = [(sku, s["quantity"], s["average_cost"], s["value"]) for sku, s in states.items()]
    connection.executemany("INSERT INTO purchase_cost VALUES (?, ?, ?, ?)", rows)
    connection.execute("CHECKPOINT")
    connection.close()
