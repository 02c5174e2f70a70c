"""A synthetic trading history: sessions of 200 to 500 trades and cash events, in both schema versions, sealed."""

from __future__ import annotations

import shutil
from pathlib import Path

from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.spooled_segments import finish_import
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log.bulk_import.spool import Spool
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.opening import create_log
from refold.warehouse.trading import TRADING

DOMAIN = "trading"
_MEAN_SESSION = 350
_SESSIONS_PER_CHUNK = 3_000
_SESSIONS_PER_TRADER = 10

_CHUNK = """
CREATE OR REPLACE TABLE chunk AS
SELECT row_number() OVER () + {base} AS position, *, hash(session * 1000 + seq) AS h,
       'trader-' || session // {sessions_per_trader} AS trader_id,
       'trader-' || session // {sessions_per_trader} || '-s' || session % {sessions_per_trader} AS stream_id,
       TIMESTAMPTZ '2021-01-01' + to_seconds(session * 20 + seq) AS occurred_at
FROM (SELECT session, unnest(range(200 + (hash(session) % 301)::BIGINT)) AS seq FROM range({first}, {last}) r(session))
"""

_TRADE = "h % 100 < 86"
_EVENTS: dict[SchemaKey, tuple[str, str]] = {
    ("TradeExecuted", 1): (
        "trader_id, 'I' || (h // 100) % 50 AS symbol, "
        "CASE WHEN h % 2 = 0 THEN 1 ELSE -1 END * (1 + (h // 7) % 100)::BIGINT AS quantity, "
        "(10 + (h // 1000) % 500)::DECIMAL(18,2) AS price",
        f"{_TRADE} AND session < {{sessions}} * 0.2",
    ),
    ("TradeExecuted", 2): (
        "trader_id, 'I' || (h // 100) % 50 AS instrument, CASE WHEN h % 2 = 0 THEN 'buy' ELSE 'sell' END AS side, "
        "(1 + (h // 7) % 100)::BIGINT AS quantity, ((100000 + (h // 1000) % 5000000) * 0.0001)::DECIMAL(18,4) AS price",
        f"{_TRADE} AND session >= {{sessions}} * 0.2",
    ),
    ("PositionClosed", 1): (
        "trader_id, 'I' || (h // 100) % 50 AS instrument, "
        "(((h // 1000) % 200001)::BIGINT * 0.01 - 950)::DECIMAL(18,2) AS realised_profit",
        "h % 100 BETWEEN 86 AND 95",
    ),
    ("CashDeposited", 1): (
        "trader_id, (100 + (h // 1000) % 10000)::DECIMAL(18,2) AS amount",
        "h % 100 BETWEEN 96 AND 97",
    ),
    ("CashWithdrawn", 1): (
        "trader_id, (1 + (h // 1000) % 5000)::DECIMAL(18,2) AS amount",
        "h % 100 >= 98",
    ),
}


def make_trading_log(folder: Path, events: int, *, bucket_count: int = 64) -> EventLog:
    """Write a log of about ``events`` events, typed and sealed, unless it exists.

    Args:
        folder: parent folder of the logs, one log per size.
        events: approximate number of events; only complete sessions are written.
        bucket_count: of the log.
    """
    sessions = max(events // _MEAN_SESSION, 1)
    log = create_log(str(folder / "log"), domain_name=DOMAIN, bucket_count=bucket_count)
    if log.manifest().sealed_position:
        return log
    work = folder / "import"
    shutil.rmtree(work, ignore_errors=True)
    spool = Spool(work, bucket_count=bucket_count)
    connection = connect()
    payloads = {schema_key: TRADING.registry.schema(*schema_key).names for schema_key in _EVENTS}
    for first in range(0, sessions, _SESSIONS_PER_CHUNK):
        last = min(first + _SESSIONS_PER_CHUNK, sessions)
        placeholders = {"base": spool.journal.events, "sessions_per_trader": _SESSIONS_PER_TRADER}
        connection.execute(_CHUNK.format(first=first, last=last, **placeholders))
        relations = {
            schema_key: "(SELECT position, stream_id, 'e' || position AS event_id, occurred_at, "
            "NULL::VARCHAR AS correlation_id, NULL::VARCHAR AS causation_id, "
            f"{payload} FROM chunk WHERE {where.format(sessions=sessions)})"
            for schema_key, (payload, where) in _EVENTS.items()
        }
        spool.add(connection, relations, payloads, source={"sessions": last})
    finish_import(log, DOMAIN, f"benchmark-{events}", work, bucket_count=log.bucket_count)
    shutil.rmtree(work)
    return log
