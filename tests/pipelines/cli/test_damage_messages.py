"""What the command line prints about damaged files: one error that says what is damaged and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from refold.event_schemas.orders import StockReceived
from refold.pipelines.cli.support.error_text import explain
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.orders.domain import ORDERS
from tests.properties.engine import seal

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_damaged_segment_is_one_error_on_the_screen(tmp_path: Path) -> None:
    """No traceback of a pipeline worker is printed before the error."""
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=1)
    received = StockReceived(sku="cup", quantity=1, unit_cost=Decimal(1), best_before=None)
    Appender(log, ORDERS.registry).append("stock-cup", [received] * 100)
    seal(log, ORDERS.registry)
    segment = Path(log.url) / log.manifest().segments[0].key
    whole = segment.read_bytes()
    segment.write_bytes(whole[:4] + b"X" * (len(whole) - 200) + whole[-196:])
    command = [sys.executable, "-m", "refold", "--domain", "orders", "rebuild"]
    command += ["--log", str(tmp_path / "log"), "--read-models", str(tmp_path / "models")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    [error] = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert "its SHA-256 is" in error
    assert "refold log repair" in error


def test_a_damaged_published_file_has_a_way_out() -> None:
    """The message names the damage and the command that repairs it."""
    damaged = duckdb.IOException(
        "Corrupt database file: computed checksum 1 does not match stored checksum 2 in block 3"
    )
    text, code = explain(damaged, "refold query")
    assert code == 1
    assert "a published file of the read models is damaged (in DuckDB: Corrupt database file" in text
    assert "`refold rebuild --all`" in text
