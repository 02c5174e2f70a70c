"""A new ``trader_performance_summary`` over the full trading history, against one query in plain DuckDB.

``python -m benchmarks.trading --events 50000000 --json``. With ``--fold`` the Python fold ``average_cost_positions`` is
rebuilt instead, and its rate is reported as events a second and core.
"""

from __future__ import annotations

import json
import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import duckdb
import pyarrow as pa

from benchmarks.sides import Measurement, comparison, differences, measured, print_result, rebuild_side, run_side
from benchmarks.trading_log import DOMAIN, make_trading_log
from refold.warehouse.trading import TRADING
from refold.warehouse.trading.projections import average_cost

_SUMMARY = "trader_performance_summary"
_FOLD = "average_cost_positions"

_SUMMARY_BY_HAND = """
CREATE TABLE trader_performance_summary AS
SELECT
    trader_id,
    count(volume) AS trades,
    coalesce(sum(volume), 0)::DECIMAL(28,4) AS volume,
    coalesce(sum(cash), 0)::DECIMAL(18,2) AS net_cash,
    coalesce(sum(profit), 0)::DECIMAL(18,2) AS realised_profit,
    count(profit) AS closed_positions,
    count(*) FILTER (profit > 0) AS wins,
    max(traded_at) AS last_trade_at
FROM (
    SELECT trader_id, (abs(quantity) * price)::DECIMAL(28,4) AS volume, NULL AS cash, NULL AS profit,
           occurred_at AS traded_at
    FROM read_parquet('{segments}/event_type=TradeExecuted/schema_version=1/**/*.parquet', hive_partitioning = false)
    UNION ALL
    SELECT trader_id, (quantity * price)::DECIMAL(28,4), NULL, NULL, occurred_at
    FROM read_parquet('{segments}/event_type=TradeExecuted/schema_version=2/**/*.parquet', hive_partitioning = false)
    UNION ALL
    SELECT trader_id, NULL, NULL, realised_profit, NULL
    FROM read_parquet('{segments}/event_type=PositionClosed/**/*.parquet', hive_partitioning = false)
    UNION ALL
    SELECT trader_id, NULL, amount, NULL, NULL
    FROM read_parquet('{segments}/event_type=CashDeposited/**/*.parquet', hive_partitioning = false)
    UNION ALL
    SELECT trader_id, NULL, -amount, NULL, NULL
    FROM read_parquet('{segments}/event_type=CashWithdrawn/**/*.parquet', hive_partitioning = false)
)
GROUP BY trader_id
"""

_TRADES = """
SELECT trader_id, instrument, quantity, price FROM (
    SELECT position, trader_id, symbol AS instrument, quantity, price::DECIMAL(18,4) AS price
    FROM read_parquet('{segments}/event_type=TradeExecuted/schema_version=1/**/*.parquet', hive_partitioning = false)
    UNION ALL
    SELECT position, trader_id, instrument, CASE side WHEN 'buy' THEN quantity ELSE -quantity END, price
    FROM read_parquet('{segments}/event_type=TradeExecuted/schema_version=2/**/*.parquet', hive_partitioning = false)
)
ORDER BY trader_id, instrument, position
"""


class _Trade:
    """One row for the fold."""

    __slots__ = ("price", "quantity")

    def __init__(self, quantity: int, price: object) -> None:
        self.quantity = quantity
        self.price = price


def _by_hand_side(folder: Path, workers: int, model: str) -> Measurement:
    segments = folder / "log" / "segments"
    connection = duckdb.connect(str(folder / "by-hand.duckdb"), config={"threads": workers})
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    if model == _SUMMARY:
        connection.execute(_SUMMARY_BY_HAND.format(segments=segments))
    else:
        _fold_by_hand(connection, _TRADES.format(segments=segments))
    connection.execute("CHECKPOINT")
    connection.close()
    return {}


def _fold_by_hand(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Loop over sorted rows in one process, a batch at a time: the baseline of the fold."""
    states: dict[tuple[str, str], dict[str, object]] = {}
    cursor = connection.cursor().execute(query)
    while rows := cursor.fetchmany(100_000):
        for trader, instrument, quantity, price in rows:
            key = (trader, instrument)
            states[key] = average_cost(states.get(key), _Trade(quantity, price))
    columns: dict[str, list[Any]] = {"trader_id": [k[0] for k in states], "instrument": [k[1] for k in states]}
    for name in ("quantity", "average_cost", "realised_profit"):
        columns[name] = [s[name] for s in states.values()]
    types = {"quantity": pa.int64(), "average_cost": pa.decimal128(18, 6), "realised_profit": pa.decimal128(28, 6)}
    made = {
        n: pa.array([Decimal(v) if n != "quantity" else v for v in c], types[n]) if n in types else pa.array(c)
        for n, c in columns.items()
    }
    connection.register("states", pa.table(made))
    connection.execute(f"CREATE TABLE {_FOLD} AS FROM states")


@click.command()
@click.option("--events", type=int, default=5_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("benchmark-data"), show_default=True)
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--fold", is_flag=True, help="Measure the Python fold.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["refold", "by-hand"]), hidden=True)
def main(events: int, folder: Path, workers: int, fold: bool, as_json: bool, side: str | None) -> None:
    """Measure a new read model over the full trading history."""
    model = _FOLD if fold else _SUMMARY
    if side == "refold":
        print(json.dumps(measured(lambda: rebuild_side(folder, DOMAIN, workers, [model]))))
        return
    if side == "by-hand":
        print(json.dumps(measured(lambda: _by_hand_side(folder, workers, model))))
        return
    folder = folder / f"trading-{events}"
    log = make_trading_log(folder, events)
    (folder / "by-hand.duckdb").unlink(missing_ok=True)
    shutil.rmtree(folder / "read-models", ignore_errors=True)
    options = ("--workers", str(workers), *(["--fold"] if fold else []))
    ours = run_side("benchmarks.trading", "refold", folder, *options)
    theirs = run_side("benchmarks.trading", "by-hand", folder, *options)
    published = folder / "read-models" / DOMAIN / "current.duckdb"
    found = differences(published, folder / "by-hand.duckdb", [TRADING.read_model(model)])
    result = comparison(log.manifest().sealed_position, ours, theirs, found)
    result["replayed"] = ours["replayed"]
    result["events_per_second_a_core"] = round(ours["replayed"] / ours["seconds"] / workers)
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
