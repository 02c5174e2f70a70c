"""Every Beam runner builds the same read models: the same that one process builds without Beam."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log, open_log
from refold.warehouse.orders import ORDERS
from refold.warehouse.orders.sample_history import sample_history
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up
from refold.warehouse.replay.history import sources_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONGEST = 120
"""Seconds after which a rebuild is considered hung; one took 47 on two cores with a load of 13."""
EVENTS = 800

RUNNERS = {
    "in_memory": ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    "multi_threading": ["--direct_running_mode=multi_threading", "--direct_num_workers=2"],
    "multi_processing": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "folds_apart": ["--direct_num_workers=2"],
    "dask": ["--dask_npartitions=4"],
}
"""Beam's options for each; ``folds_apart`` is the default for long histories: SQL on threads, folds in processes."""

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Shop:
    """A year of a shop in an unsealed log, and its events."""

    log_url: str
    rounds: list[list[StreamAppend]]


@dataclass(frozen=True, slots=True)
class Published:
    """Everything readers see: rows of tables and views by name, in order, and checksums of tables."""

    rows: dict[str, Rows]
    checksums: dict[str, str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A history with every event type and schema version of the order domain, appended."""
    rounds = list(sample_history(EVENTS, seed=7))
    log = create_log(str(tmp_path_factory.mktemp("shop") / "log"), domain_name="orders", bucket_count=4)
    appender = Appender(log, ORDERS.registry)

    def append(one: StreamAppend) -> None:
        appender.append(one.stream_id, one.events, expected_version=one.expected_version)

    with ThreadPoolExecutor(32) as pool:
        for appends in rounds:
            list(pool.map(append, appends))
    return Shop(log.url, rounds)


@pytest.fixture(scope="module")
def expected(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The read models that one process builds in one increment: no segments, units, merge or Beam."""
    path = tmp_path_factory.mktemp("sequential") / "models.duckdb"
    with closing(database.open_database(path)) as connection:
        for model in ORDERS.read_models:
            database.create_table(connection, model, [])
            database.set_fingerprint(connection, model, ORDERS, 0)
        catch_up(
            connection, open_log(shop.log_url), ORDERS, [ModelsAtCheckpoint(ORDERS.read_models, Checkpoint(0, 0, ""))]
        )
        database.create_views(connection, ORDERS)
        database.finish(connection, ORDERS)
    return read(path)


def read(path: Path) -> Published:
    """Read a database file as any client would."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [m.name for m in ORDERS.read_models] + [v.name for v in ORDERS.views]
        rows = {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in names}
        checksums = dict(connection.execute("SELECT name, checksum FROM refold.projections").fetchall())
    return Published(rows, checksums)


def run_to_its_end(command: Sequence[str], output: Path) -> None:
    """Run a process that must succeed within the time limit, and kill all its descendants."""
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    how = f"ended with {code}" if code is not None else f"hung for {LONGEST} s"
    assert code == 0, f"{' '.join(command)} {how}:\n{output.read_text(errors='replace')[-5000:]}"


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_runner_makes_the_same_tables(runner: str, shop: Shop, expected: Published, tmp_path: Path) -> None:
    """It seals a copy of the log, rebuilds SQL models and folds from it, and publishes the same rows."""
    shutil.copytree(shop.log_url, tmp_path / "log")
    urls = [str(tmp_path / "log"), str(tmp_path / "read-models")]
    run_to_its_end(
        [sys.executable, "-m", "tests.contracts.rebuild_process", *urls, runner, *RUNNERS[runner]], tmp_path / "output"
    )
    head = open_log(urls[0]).head()
    assert not head.tail, "the rebuild sealed nothing, and so replayed nothing"
    needed = sources_of(ORDERS, [t for model in ORDERS.read_models for t in model.event_types])
    assert {s.schema_key for s in head.sealed.segments} == needed, "the history lacks some event type that is read"
    generations = open_generations(urls[1], "orders")
    [generation] = generations.all()
    assert generation.position == head.position
    published = read(generations.path(generation))
    for name, rows in expected.rows.items():
        assert published.rows[name] == rows, name
    assert published.checksums == expected.checksums
    assert {n: t.checksum for n, t in generation.tables.items()} == expected.checksums


def test_stock_matches_the_events(shop: Shop, expected: Published) -> None:
    """The tables that runners are compared with are right: stock summed from the events in plain Python."""
    on_hand: Counter[str] = Counter()
    reserved: Counter[str] = Counter()
    for event_type, payload in events_of(shop):
        for sku, held, kept in movements(event_type, payload):
            on_hand[sku] += held
            reserved[sku] += kept
    rows = [(sku, on_hand[sku], reserved[sku], on_hand[sku] - reserved[sku]) for sku in sorted(on_hand)]
    assert [row[:4] for row in expected.rows["inventory_status"]] == rows
    assert rows


def test_cities_match_the_events(shop: Shop, expected: Published) -> None:
    """An address in two events is one, and the last one counts."""
    cities = {}
    for appends in shop.rounds:
        for append in appends:
            for event in append.events:
                assert isinstance(event, NewEvent)
                if event.event_type in ("CityChanged", "ShippingAddressUpdated"):
                    payload: Any = event.payload
                    cities[append.stream_id] = payload.get("address", payload)["city"]
    column = list(ORDERS.read_model("order_summary").table).index("city")
    assert {row[0]: row[column] for row in expected.rows["order_summary"]} == cities


def events_of(shop: Shop) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield type and payload of every event, in append order."""
    for appends in shop.rounds:
        for append in appends:
            for event in append.events:
                assert isinstance(event, NewEvent)
                payload: Any = event.payload
                yield str(event.event_type), payload


def movements(event_type: str, payload: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Return the effect of an event of any version on stock: article, pieces on hand, pieces reserved."""
    match event_type:
        case "StockReceived" | "StockAdjusted":
            yield payload["sku"], payload["quantity"], 0
        case "StockMoved":
            yield payload["from_sku"], -payload["quantity"], 0
            yield payload["to_sku"], payload["quantity"], 0
        case "ItemAdded":
            yield payload["sku"], 0, payload["quantity"]
        case "OrderDispatched":
            yield payload["sku"], -payload["quantity"], -payload["quantity"]
        case "OrderShipped":
            yield from ((item["sku"], -item["quantity"], -item["quantity"]) for item in payload["items"])
        case "OrderCancelled":
            yield from ((item["sku"], 0, -item["quantity"]) for item in payload["items"])
