"""Import of a trading history to sealed segments, against plain DuckDB writing the same rows as partitioned Parquet.

``python -m benchmarks.ingest --events 10000000 --format parquet --json``: typed columns. ``--format jsonl``: JSON lines
with the payload as an object. Both sides run in a process of their own, on the same file, one after the other. Both
number the events of each stream and sort them by event type, bucket and stream; refold also checks every value against
its contract, which DuckDB does not. Then every row is compared.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.sides import Measurement, measured, print_result, run_side
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.ingest.ingest import ingest
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import create_log

_BUCKETS = 64

_HISTORY = """
SELECT
    'trader-' || trader || '-s' || session AS stream_id,
    'trade-' || i AS event_id,
    CASE
        WHEN kind < 86 THEN 'TradeExecuted'
        WHEN kind < 96 THEN 'PositionClosed'
        WHEN kind < 98 THEN 'CashDeposited'
        ELSE 'CashWithdrawn'
    END AS event_type,
    CASE WHEN kind < 86 THEN 2 ELSE 1 END::INTEGER AS schema_version,
    TIMESTAMPTZ '2021-01-01' + to_milliseconds(37 * i) AS occurred_at,
    'trader-' || trader AS trader_id,
    CASE WHEN kind < 96 THEN 'I' || (h // 100) % 500 END AS instrument,
    CASE WHEN kind < 86 THEN CASE WHEN h % 2 = 0 THEN 'buy' ELSE 'sell' END END AS side,
    CASE WHEN kind < 86 THEN 1 + (h // 7) % 100 END::BIGINT AS quantity,
    CASE WHEN kind < 86 THEN ((100000 + (h // 1000) % 5000000) * 0.0001)::DECIMAL(18,4) END AS price,
    CASE WHEN kind BETWEEN 86 AND 95 THEN (((h // 1000) % 200001)::BIGINT * 0.01 - 950)::DECIMAL(18,2) END
        AS realised_profit,
    CASE WHEN kind >= 96 THEN (100 + (h // 1000) % 10000)::DECIMAL(18,2) END AS amount
FROM (
    SELECT i, hash(i) AS h, (hash(i) // 13) % 100 AS kind, (hash(i * 31) % 2000)::BIGINT AS trader,
           i // 500000 AS session
    FROM range({events}) r(i)
)
"""

_PAYLOADS = """
CASE event_type
    WHEN 'TradeExecuted' THEN to_json({trader_id: trader_id, instrument: instrument, side: side, quantity: quantity,
        price: price})
    WHEN 'PositionClosed' THEN to_json({trader_id: trader_id, instrument: instrument, realised_profit: realised_profit})
    ELSE to_json({trader_id: trader_id, amount: amount})
END
"""

_JSON_COLUMNS = """{
    stream_id: 'VARCHAR', event_id: 'VARCHAR', event_type: 'VARCHAR', schema_version: 'INTEGER',
    occurred_at: 'TIMESTAMPTZ', payload: 'STRUCT(trader_id VARCHAR, instrument VARCHAR, side VARCHAR, quantity BIGINT,
    price DECIMAL(18,4), realised_profit DECIMAL(18,2), amount DECIMAL(18,2))'
}"""

_FIELDS = "stream_id, event_id, occurred_at, trader_id, instrument, side, quantity, price, realised_profit, amount"

_BY_HAND = """
COPY (
    SELECT
        * EXCLUDE (position),
        row_number() OVER (PARTITION BY stream_id ORDER BY position) AS stream_version,
        md5_number_lower(stream_id) % {buckets} AS bucket
    FROM ({source})
    ORDER BY event_type, schema_version, bucket, stream_id, stream_version
) TO '{target}' (
    FORMAT parquet, PARTITION_BY (event_type, schema_version, bucket), COMPRESSION zstd, COMPRESSION_LEVEL 1
)
"""

# A sum of hashes does not depend on the order of the rows.
_SUMMARY = """
SELECT count(*), sum(hash(event_type, schema_version, stream_version, {fields})::HUGEINT)
FROM read_parquet('{files}', hive_partitioning = true, union_by_name = true)
"""


def make_source(folder: Path, events: int, form: str) -> Path:
    """Write the history as one file, unless it exists."""
    path = folder / f"history.{form}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    history = _HISTORY.format(events=events)
    unfinished = path.with_suffix(".unfinished")
    with connect() as connection:
        if form == "parquet":
            connection.execute(f"COPY ({history}) TO '{unfinished}' (FORMAT parquet, COMPRESSION zstd)")
        else:
            time = "strftime(occurred_at, '%Y-%m-%dT%H:%M:%S.%fZ') AS occurred_at"
            envelope = f"stream_id, event_id, event_type, schema_version, {time}"
            select = f"SELECT {envelope}, {_PAYLOADS} AS payload FROM ({history})"
            connection.execute(f"COPY ({select}) TO '{unfinished}' (FORMAT json)")
    unfinished.rename(path)
    return path


def refold_side(folder: Path, source: Path, workers: int) -> Measurement:
    """Import with refold."""
    log = create_log(str(folder / "log"), domain_name="trading", bucket_count=_BUCKETS)
    done = ingest(log, "trading", [str(source)], options=beam_options(None, [f"--direct_num_workers={workers}"]))
    return {"imported": done.events, "rejected": done.rejected, "mode": done.mode}


def by_hand_side(folder: Path, source: Path, workers: int) -> Measurement:
    """Write the same rows with plain DuckDB."""
    if source.suffix == ".parquet":
        read = f"read_parquet('{source}', file_row_number = true)"
        rows = f"SELECT * EXCLUDE (file_row_number), file_row_number AS position FROM {read}"
    else:
        read = f"read_json('{source}', format = 'newline_delimited', columns = {_JSON_COLUMNS})"
        rows = f"SELECT * EXCLUDE (payload), unnest(payload), row_number() OVER () AS position FROM {read}"
    with connect(threads=workers, temp_directory=folder / "spilled") as connection:
        connection.execute(_BY_HAND.format(buckets=_BUCKETS, source=rows, target=folder / "by-hand"))
    return {}


def _with_cpu_seconds(work: Callable[[], Measurement]) -> Measurement:
    before = time.process_time()
    return {**work(), "cpu_seconds": time.process_time() - before}


def _summary(files: Path) -> tuple[int, int]:
    with connect() as connection:
        row = connection.execute(_SUMMARY.format(fields=_FIELDS, files=files)).fetchone()
    assert row is not None
    return (int(row[0]), int(row[1]))


@click.command()
@click.option("--events", type=int, default=10_000_000, show_default=True)
@click.option("--format", "form", type=click.Choice(["jsonl", "parquet"]), default="parquet", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("benchmark-data"), show_default=True)
@click.option("--workers", type=int, default=os.cpu_count() or 1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object only.")
@click.option("--side", type=click.Choice(["refold", "by-hand"]), hidden=True)
def main(events: int, form: str, folder: Path, workers: int, as_json: bool, side: str | None) -> None:
    """Measure a bulk import against plain DuckDB."""
    if side:
        work = refold_side if side == "refold" else by_hand_side
        source = folder / f"history.{form}"
        print(json.dumps(measured(lambda: _with_cpu_seconds(lambda: work(folder, source, workers)))))
        return
    folder = folder / f"import-{events}"
    source = make_source(folder, events, form)
    for made in ("log", "by-hand"):
        shutil.rmtree(folder / made, ignore_errors=True)
    options = ("--workers", str(workers), "--format", form)
    ours = run_side("benchmarks.ingest", "refold", folder, *options)
    theirs = run_side("benchmarks.ingest", "by-hand", folder, *options)
    mine, other = _summary(folder / "log/segments/**/*.parquet"), _summary(folder / "by-hand/**/*.parquet")
    result = {
        "events": events,
        "format": form,
        "source_mib": source.stat().st_size >> 20,
        "ingest_seconds": round(ours["seconds"], 2),
        "duckdb_seconds": round(theirs["seconds"], 2),
        "ratio": round(ours["seconds"] / theirs["seconds"], 3),
        "events_per_second": round(events / ours["seconds"]),
        "cpu_seconds": round(ours["cpu_seconds"], 2),
        "duckdb_cpu_seconds": round(theirs["cpu_seconds"], 2),
        "events_per_cpu_second": round(events / ours["cpu_seconds"]),
        "peak_memory_mib": ours["peak_memory_mib"],
        "duckdb_peak_memory_mib": theirs["peak_memory_mib"],
        "agree": mine == other and mine[0] == ours["imported"] == events,
    }
    print_result(result, as_json=as_json)


if __name__ == "__main__":
    main()
