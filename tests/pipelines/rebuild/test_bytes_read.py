"""A rebuild reads the columns that its read models use, and no others."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from benchmarks.order_log import DOMAIN, make_order_log
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.planning.cost import CostEstimator

EVENTS = 400_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """A log with large enough segments that footers weigh little."""
    return make_order_log(tmp_path_factory.mktemp("log"), EVENTS, bucket_count=2)


def bytes_read_by_this_process() -> int:
    """Count what read calls of this process returned, page cache or not (Linux)."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by Linux's /proc/self/io")
def test_one_event_type_means_only_its_columns_are_read(log: EventLog, tmp_path: Path) -> None:
    """``revenue_by_day`` uses two event types of ten: few bytes are read, as estimated from the manifest."""
    rebuild(log, DOMAIN, str(tmp_path / "warm"), beam_options(None), only=["revenue_by_day"])
    gc.collect()
    before = bytes_read_by_this_process()
    rebuilt = rebuild(log, DOMAIN, str(tmp_path / "models"), beam_options(None), only=["revenue_by_day"])
    read = bytes_read_by_this_process() - before
    print(f"stored {rebuilt.bytes_stored:,} bytes, foreseen {rebuilt.bytes_read:,}, read in all {read:,}")
    assert rebuilt.bytes_read < rebuilt.bytes_stored / 10
    # Beside the columns: footers, the manifest, staged rows, and the published file read back once for its copy.
    assert read < rebuilt.bytes_read * 1.5 + 3_000_000
    assert read < rebuilt.bytes_stored / 2


def test_columns_are_those_that_the_sql_names() -> None:
    """An upcaster's other columns, and events of other types, are not read."""
    with CostEstimator(ORDERS) as estimator:
        columns = estimator.columns_read(ORDERS.read_model("orders_by_customer"))
    assert columns["OrderPlaced", 1] == {"position", "stream_id", "occurred_at", "customer"}
    assert columns["OrderPaid", 1] == {"position", "customer_id", "amount"}
    assert not any(event_type == "ItemAdded" for event_type, _ in columns)


def test_a_python_upcaster_reads_all_columns() -> None:
    """A Python upcaster gets the full event; for other schemas only the used columns are read."""
    with CostEstimator(ORDERS) as estimator:
        columns = estimator.columns_read(ORDERS.read_model("purchase_cost"))
    assert {"from_sku", "to_sku", "quantity", "event_id"} <= columns["StockMoved", 1]
    assert columns["StockReceived", 1] == {"_ordinal", "position", "sku", "quantity", "unit_cost"}
