"""A synthetic order history of any size, as a typed, sealed log for the benchmarks to replay.

About ten events an order, all schema versions and a retired event type among them, ten thousand articles, five orders a
customer. All values derive from the order's number by DuckDB's hash, so two runs make the same history.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.spooled_segments import finish_import
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.bulk_import.spool import Spool
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import create_log
from refold.warehouse.orders import ORDERS

DOMAIN = "orders"
_ORDERS_PER_CHUNK = 100_000

_MACROS = """
CREATE MACRO pick(i, salt, n) AS (hash(i * 1000003 + salt) % n)::BIGINT;
CREATE MACRO item_count(i) AS 2 + pick(i, 1, 10);
CREATE MACRO item_sku(i, j) AS 'sku-' || lpad(pick(i * 16 + j, 2, 10000)::VARCHAR, 5, '0');
CREATE MACRO item_quantity(i, j) AS 1 + pick(i * 16 + j, 3, 4);
CREATE MACRO item_cents(i, j) AS 99 + pick(i * 16 + j, 4, 20000);
CREATE MACRO customer(i, orders) AS 'customer-' || pick(i, 5, greatest(orders // 5, 1));
CREATE MACRO items(i) AS list_transform(range(1, item_count(i) + 1),
    lambda j: {'sku': item_sku(i, j), 'quantity': item_quantity(i, j)});
CREATE MACRO amount(i) AS (list_sum(list_transform(range(1, item_count(i) + 1),
    lambda j: item_quantity(i, j) * item_cents(i, j))) * 0.01)::DECIMAL(18,2);
"""

# seq: 0 placed, then the items, then the order's later events; 100 and more are events of an article's stock.
_CHUNK = """
CREATE OR REPLACE TABLE chunk AS
SELECT row_number() OVER (ORDER BY occurred_at, i, seq) + {base} AS position, * FROM (
    SELECT i, seq, kind, TIMESTAMPTZ '2020-01-01' + to_seconds(i) + to_minutes(7 * seq) AS occurred_at FROM (
        SELECT i, 0 AS seq, 'placed' AS kind FROM range({first}, {last}) r(i)
        UNION ALL SELECT i, unnest(range(1, item_count(i) + 1)), 'item' FROM range({first}, {last}) r(i)
        UNION ALL SELECT i, 20, 'paid' FROM range({first}, {last}) r(i) WHERE pick(i, 6, 100) < 92
        UNION ALL SELECT i, 21, 'shipped' FROM range({first}, {last}) r(i) WHERE pick(i, 6, 100) < 86
        UNION ALL SELECT i, 22, 'delivered' FROM range({first}, {last}) r(i) WHERE pick(i, 6, 100) < 80
        UNION ALL SELECT i, 23, 'cancelled' FROM range({first}, {last}) r(i) WHERE pick(i, 6, 100) >= 92
        UNION ALL SELECT i, 19, 'address' FROM range({first}, {last}) r(i) WHERE pick(i, 7, 100) < 10
        UNION ALL SELECT i, 100, 'received' FROM range({first}, {last}) r(i) WHERE pick(i, 8, 100) < 5
        UNION ALL SELECT i, 101, 'adjusted' FROM range({first}, {last}) r(i) WHERE pick(i, 8, 100) = 5
    )
)
"""

_ORDER = "'order-' || i AS stream_id"
_STOCK = "'stock-' || item_sku(i, 1) AS stream_id"

_EVENTS: dict[SchemaKey, tuple[str, str, str]] = {
    ("OrderPlaced", 1): (
        _ORDER,
        "'order-' || i AS order_id, customer(i, {orders}) AS customer, '' AS deliver_on, NULL::VARCHAR AS note",
        "kind = 'placed' AND i < {orders} * 0.1",
    ),
    ("OrderPlaced", 2): (
        _ORDER,
        "'order-' || i AS order_id, customer(i, {orders}) AS customer, '2024-05-01' AS deliver_on, 'EUR' AS currency",
        "kind = 'placed' AND i >= {orders} * 0.1 AND i < {orders} * 0.3",
    ),
    ("OrderPlaced", 3): (
        _ORDER,
        "'order-' || i AS order_id, customer(i, {orders}) AS customer_id, 'EUR' AS currency, NULL::DATE AS deliver_on",
        "kind = 'placed' AND i >= {orders} * 0.3",
    ),
    ("ItemAdded", 1): (
        _ORDER,
        "item_sku(i, seq) AS sku, item_quantity(i, seq) AS quantity, item_cents(i, seq) AS price_cents",
        "kind = 'item' AND i < {orders} * 0.2",
    ),
    ("ItemAdded", 2): (
        _ORDER,
        "item_sku(i, seq) AS sku, item_quantity(i, seq) AS quantity, "
        "(item_cents(i, seq) * 0.01)::DECIMAL(18,2) AS unit_price",
        "kind = 'item' AND i >= {orders} * 0.2",
    ),
    ("OrderPaid", 1): (
        _ORDER,
        "'order-' || i AS order_id, customer(i, {orders}) AS customer_id, md5(i::VARCHAR)::UUID AS payment_id, "
        "amount(i) AS amount, 'EUR' AS currency, ['card', 'invoice', 'transfer'][1 + pick(i, 9, 3)] AS method",
        "kind = 'paid'",
    ),
    ("OrderDispatched", 1): (
        _ORDER,
        "'post' AS carrier, item_sku(i, 1) AS sku, item_quantity(i, 1) AS quantity",
        "kind = 'shipped' AND i < {orders} * 0.02",
    ),
    ("OrderShipped", 1): (
        _ORDER,
        "'post' AS carrier, 'T' || i AS tracking_code, items(i) AS items",
        "kind = 'shipped' AND i >= {orders} * 0.02",
    ),
    ("OrderDelivered", 1): (_ORDER, "NULL::VARCHAR AS signed_by, i % 3 = 0 AS left_at_door", "kind = 'delivered'"),
    ("OrderCancelled", 1): (
        _ORDER,
        "'order-' || i AS order_id, customer(i, {orders}) AS customer_id, 'changed mind' AS reason, items(i) AS items, "
        "'EUR' AS currency, NULL::DECIMAL(18,2) AS refund",
        "kind = 'cancelled'",
    ),
    ("ShippingAddressUpdated", 1): (
        _ORDER,
        "{{'street': 'Street ' || i % 100, 'city': 'City ' || i % 500, 'postal_code': NULL::VARCHAR}} AS address",
        "kind = 'address'",
    ),
    ("StockReceived", 1): (
        _STOCK,
        "item_sku(i, 1) AS sku, 10 + pick(i, 10, 90) AS quantity, "
        "(item_cents(i, 1) * 0.006)::DECIMAL(18,4) AS unit_cost, NULL::DATE AS best_before",
        "kind = 'received'",
    ),
    ("StockAdjusted", 1): (
        _STOCK,
        "item_sku(i, 1) AS sku, -(1 + pick(i, 11, 3)) AS quantity, 'counted' AS reason",
        "kind = 'adjusted'",
    ),
}


def make_order_log(folder: Path, events: int, *, bucket_count: int = 64) -> EventLog:
    """Write a log of about ``events`` events, typed and sealed, unless it exists.

    Args:
        folder: parent folder of the logs, one log per size.
        events: approximate number of events; only complete orders are written.
        bucket_count: of the log.
    """
    orders = max(events * 100 // 1071, 1)
    log = create_log(str(folder / "log"), domain_name=DOMAIN, bucket_count=bucket_count)
    if log.manifest().sealed_position:
        return log
    work = folder / "import"
    shutil.rmtree(work, ignore_errors=True)
    spool = Spool(work, bucket_count=bucket_count)
    connection = connect()
    connection.execute(_MACROS)
    payloads = {schema_key: ORDERS.registry.schema(*schema_key).names for schema_key in _EVENTS}
    for first in range(0, orders, _ORDERS_PER_CHUNK):
        last = min(first + _ORDERS_PER_CHUNK, orders)
        connection.execute(_CHUNK.format(base=spool.journal.events, first=first, last=last))
        spool.add(connection, _relations(connection, orders), payloads, source={"orders": last})
    finish_import(log, DOMAIN, f"benchmark-{events}", work, bucket_count=bucket_count)
    shutil.rmtree(work)
    return log


def _relations(connection: duckdb.DuckDBPyConnection, orders: int) -> dict[SchemaKey, str]:
    found = {}
    for schema_key, (stream, payload, where) in _EVENTS.items():
        envelope = f"position, {stream}, 'e' || position AS event_id, occurred_at, NULL::VARCHAR AS correlation_id, "
        columns = f"{envelope} NULL::VARCHAR AS causation_id, {payload.format(orders=orders)}"
        found[schema_key] = f"(SELECT {columns} FROM chunk WHERE {where.format(orders=orders)})"
    return found
