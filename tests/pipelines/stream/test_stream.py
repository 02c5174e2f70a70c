"""The stream: it follows the log, drains, adopts generations of others, and publishes what a rebuild would."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import GenerationError, UsageError, event
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.seal import seal
from refold.pipelines.stream import stream as streaming
from refold.pipelines.stream.stream import ProgressReport, Streamed, stream
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Fold, Projection
from refold.warehouse.declarations.reducers import count_distinct, latest, total
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    StreamAppend,
    create_log,
)
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations
from refold.warehouse.read_models.increments.spans import SpanLimits, next_step
from refold.warehouse.read_models.live.heartbeat import read_heartbeat
from refold.warehouse.read_models.live.live_database import LiveDatabase
from refold.warehouse.read_models.planning import backlog
from tests.pipelines.stop_signals import SIGNALS

pytestmark = pytest.mark.slow

HERE = "tests.pipelines.stream.test_stream"
ROOT = Path(__file__).parents[3]


@event(schema_version=1)
class Sold:
    """Pieces of an article went over a stall's counter."""

    sku: str
    quantity: int


def remember(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    """Depend on the order of sales, and fail on thirteen pieces."""
    if sold.quantity == 13:
        raise ValueError("thirteen")
    return {"path": ((state or {"path": 7})["path"] * 31 + sold.quantity) % 1_000_003}


STALLS = Projection(
    name="stalls",
    key={"stall": "VARCHAR"},
    columns={"sold": total("BIGINT"), "last": latest("VARCHAR")},
    on={Sold: "SELECT stream_id AS stall, quantity AS sold, sku AS last"},
)
SKUS = Projection(
    name="skus",
    key={"sku": "VARCHAR"},
    columns={"sold": total("BIGINT"), "stalls": count_distinct()},
    on={Sold: "SELECT sku, quantity AS sold, stream_id AS stalls"},
)
PATHS = Fold(
    name="paths",
    key={"sku": "VARCHAR"},
    columns={"path": "BIGINT"},
    on={Sold: "SELECT sku, quantity"},
    fold=remember,
)
MARKET = Domain(name="market", events=(Sold,), read_models=(STALLS, SKUS, PATHS))
DOUBLED = Domain(
    name="market",
    events=(Sold,),
    read_models=(
        Projection(
            name="stalls",
            key={"stall": "VARCHAR"},
            columns={"sold": total("BIGINT"), "last": latest("VARCHAR")},
            on={Sold: "SELECT stream_id AS stall, 2 * quantity AS sold, sku AS last"},
        ),
        SKUS,
        PATHS,
    ),
)
OPTIONS = beam_options(None, ["--direct_num_workers=2"])


class Market:
    """A log, and read models of it.

    Args:
        folder: where both are.
    """

    def __init__(self, folder: Path) -> None:
        self.url = str(folder / "read-models")
        self.log: EventLog = create_log(str(folder / "log"), domain_name="market", bucket_count=4)
        self._appender = Appender(self.log, MARKET.registry)
        self._sold = 0

    @property
    def generations(self) -> Generations:
        """The published read models."""
        return open_generations(self.url, "market")

    def newest(self) -> Generation:
        """Load the newest generation."""
        found = self.generations.newest()
        assert found is not None
        return found

    def sell(self, commits: int = 1, *, quantity: int | None = None) -> int:
        """Append sales, four to a commit, and return the last position."""
        done = 0
        for _ in range(commits):
            sales = []
            for _ in range(4):
                self._sold += 1
                sold = Sold(sku=f"sku-{self._sold % 7}", quantity=quantity or self._sold % 12)
                sales.append(StreamAppend(f"stall-{self._sold % 5}", [sold]))
            [*_, last] = self._appender.append_many(sales)
            assert not isinstance(last, Exception)
            done = last.last_position
        return done

    def rebuild(self, domain: str = "MARKET", **options: Any) -> Generation:
        """Rebuild everything."""
        return rebuild(self.log, f"{HERE}:{domain}", self.url, OPTIONS, **options).generation

    def stream(self, report: Callable[[ProgressReport], None] = lambda _: None, **options: Any) -> Streamed:
        """Follow the log."""
        given = {"once": True, "rebuild_if_cheaper": False, **options}
        return stream(self.log, f"{HERE}:MARKET", self.url, OPTIONS, report=report, **given)

    def agrees(self) -> None:
        """Compare what is published with a rebuild elsewhere, up to the same position."""
        elsewhere = f"{self.url}-elsewhere"
        made = rebuild(self.log, f"{HERE}:MARKET", elsewhere, OPTIONS, dead_letter=True).generation
        newest = self.newest()
        assert newest.position == made.position
        assert {n: (t.rows, t.checksum) for n, t in newest.tables.items()} == {
            n: (t.rows, t.checksum) for n, t in made.tables.items()
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the published file, as an analyst would."""
        current = str(Path(self.url) / "market" / "current.duckdb")
        with closing(duckdb.connect(current, read_only=True)) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def market(tmp_path: Path) -> Market:
    """A market with some sales, all published."""
    market = Market(tmp_path)
    market.sell(3)
    market.rebuild()
    return market


def test_it_builds_what_was_never_published(tmp_path: Path) -> None:
    """A stream needs no prior rebuild."""
    market = Market(tmp_path)
    position = market.sell(2)
    done = market.stream()
    assert (done.rebuilt, done.position, market.newest().position) == (1, position, position)


def test_what_it_publishes_is_what_a_rebuild_would(market: Market) -> None:
    """After many micro-batches and a seal, the published rows equal those of a rebuild."""
    market.sell(5)
    assert market.stream().events == 20
    market.sell(5)
    seal(market.log, f"{HERE}:MARKET", OPTIONS)
    market.sell(5)
    done = market.stream()
    assert (done.events, done.rebuilt, done.dead_letters) == (40, 0, 0)
    assert done.generation == market.newest().number == 3
    market.agrees()


def test_a_large_backlog_goes_through_parallel_micro_batches(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parallel micro-batches, over commits and over segments by bucket, give the same rows."""
    monkeypatch.setattr(streaming, "next_step", _small_steps(next_step))
    market.sell(7)
    seal(market.log, f"{HERE}:MARKET", OPTIONS)
    market.sell(4)
    done = market.stream()
    assert (done.events, done.micro_batches) == (44, 2)
    market.agrees()


def _small_steps(next_step: Callable[..., Any]) -> Callable[..., Any]:
    limits = SpanLimits(small_events=0, max_events=20)
    return lambda *given, **named: next_step(*given, **{**named, "limits": limits})


def test_nothing_new_publishes_nothing(market: Market) -> None:
    """A stream without new events publishes no generation."""
    done = market.stream()
    assert (done.micro_batches, done.generation, market.newest().number) == (0, 1, 1)


def test_it_stops_at_a_position(market: Market) -> None:
    """The stream stops at the end of the commit with that position."""
    market.sell(1)
    wanted = market.log.head().position
    threading.Thread(target=market.sell, args=(3,)).start()
    done = market.stream(once=False, until=wanted)
    assert done.position >= wanted
    assert market.newest().position == done.position


def test_a_rebuild_beside_it_is_taken_over(market: Market) -> None:
    """The stream continues from the rebuilt read models, and applies all events appended meanwhile."""
    market.sell(2)
    reported: list[str] = []

    def rebuild_once(progress: ProgressReport) -> None:
        reported.append(progress.what)
        if reported.count("micro_batch") == 1 and "take_over" not in reported and progress.what == "micro_batch":
            market.rebuild()
            market.sell(2)

    stop = threading.Event()

    def stop_when_taken_over(progress: ProgressReport) -> None:
        rebuild_once(progress)
        if "take_over" in reported and progress.what == "micro_batch":
            stop.set()

    done = market.stream(stop_when_taken_over, once=False, stop=stop.is_set)
    assert "take_over" in reported
    assert done.position == market.newest().position == market.log.head().position
    assert [g.position for g in market.generations.all()] == sorted(g.position for g in market.generations.all())
    market.agrees()


def test_who_loses_the_race_for_a_number_takes_the_next(market: Market) -> None:
    """Another generation appears between asking for a publish and publishing."""
    market.sell(2)
    raced: list[int] = []

    def race(progress: ProgressReport) -> None:
        if progress.what == "drain" and not raced:
            raced.append(market.rebuild().number)

    done = market.stream(race)
    assert raced == [2]
    assert market.newest().number == done.generation
    assert market.newest().position == done.position == market.log.head().position
    market.agrees()


def test_read_models_of_other_code_stop_it(market: Market) -> None:
    """The stream stops, since its micro-batches would mix two declarations."""
    market.sell(1)

    def deploy(progress: ProgressReport) -> None:
        if progress.what == "micro_batch":
            market.rebuild("DOUBLED")

    with pytest.raises(GenerationError, match="stalls from another declaration than this process"):
        market.stream(deploy, once=False)
    assert market.newest().number == 2


def test_a_changed_read_model_is_rebuilt_first(market: Market) -> None:
    """A stream of new code first rebuilds the read models whose declaration changed, and no others."""
    market.rebuild("DOUBLED")
    reports: list[ProgressReport] = []
    done = market.stream(reports.append)
    assert done.rebuilt == 1
    assert "New or changed since generation 2: stalls" in reports[0].text
    market.agrees()


def test_it_rebuilds_when_that_is_cheaper(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream reports the rebuild, with both estimates."""
    monkeypatch.setattr(backlog, "INCREMENTAL_RATE", 0.1)
    market.sell(3)
    reports: list[ProgressReport] = []
    done = market.stream(reports.append, rebuild_if_cheaper=True)
    assert (done.rebuilt, done.events) == (1, 0)
    assert "12 events behind: catching up would take about 120 s, a rebuild of all about " in reports[0].text
    market.agrees()


def test_an_event_on_which_a_fold_fails_becomes_a_dead_letter(market: Market) -> None:
    """Other events are applied, and the dead letters equal those of a rebuild."""
    market.sell(1)
    market.sell(1, quantity=13)
    market.sell(1)
    done = market.stream()
    assert done.dead_letters == 4
    letters = market.query("SELECT read_model, position, event_type, reason FROM refold.dead_letters ORDER BY ALL")
    assert [letter[:3] for letter in letters] == [("paths", p, "Sold") for p in (17, 18, 19, 20)]
    assert "thirteen" in letters[0][3]
    market.agrees()


def test_its_live_database_can_be_queried_meanwhile(market: Market) -> None:
    """Rows and position of one result are consistent."""
    market.sell(2)
    opened: list[LiveDatabase] = []
    seen: list[tuple[int, int]] = []

    def ask(progress: ProgressReport) -> None:
        if progress.what == "micro_batch":
            with closing(opened[-1].cursor()) as cursor:
                sold = "(SELECT sum(sold)::BIGINT FROM stalls)"
                seen.extend(cursor.execute(f"SELECT position, {sold} FROM refold.checkpoint").fetchall())

    market.stream(ask, on_open=opened.append)
    assert seen == market.query("SELECT position, (SELECT sum(sold)::BIGINT FROM stalls) FROM refold.checkpoint")
    with pytest.raises(GenerationError, match="is closed"):
        opened[-1].cursor()


def test_a_reader_finds_by_index_what_a_scan_finds(market: Market) -> None:
    """Both agree during micro-batches, checkpoints and publishes; published files have no index."""
    indexes = {"stalls": ["stall", "last"], "skus": ["sku"], "paths": ["sku"]}
    market.sell(2)
    readers: list[_Comparing] = []

    def sell_more(progress: ProgressReport) -> None:
        if progress.what == "micro_batch" and progress.position < 120:
            market.sell(1)

    def follow(live: LiveDatabase) -> None:
        with closing(live.cursor()) as cursor:
            assert cursor.execute("SELECT count(*) FROM duckdb_indexes()").fetchall() == [(4,)]
        readers.append(_Comparing(live))

    done = market.stream(sell_more, on_open=follow, indexes=indexes, publish_every=0)
    for reader in readers:
        reader.thread.join()
    assert done.position >= 120
    assert sum(reader.compared for reader in readers) > 0
    assert [difference for reader in readers for difference in reader.differences] == []
    assert market.query("SELECT index_name FROM duckdb_indexes()") == []
    market.agrees()


class _Comparing:
    """Queries by index and by scan in one transaction, until the database is closed."""

    def __init__(self, live: LiveDatabase) -> None:
        self.compared = 0
        self.differences: list[Any] = []
        self._live = live
        self.thread = threading.Thread(target=self._compare)
        self.thread.start()

    def _compare(self) -> None:
        queries = itertools.cycle(
            [("stalls", "stall", f"stall-{n}") for n in range(5)] + [("stalls", "last", f"sku-{n}") for n in range(7)]
        )
        with suppress(GenerationError, duckdb.Error):  # the end of the stream closes the database under the reader
            while True:
                with closing(self._live.cursor()) as cursor:
                    self._ask(cursor, *next(queries))

    def _ask(self, cursor: duckdb.DuckDBPyConnection, table: str, column: str, value: str) -> None:
        cursor.execute("BEGIN")
        found = [
            sorted(cursor.execute(f"FROM {table} WHERE {looked_for} = ?", [value]).fetchall())
            for looked_for in (column, f"{column} || ''")
        ]
        cursor.execute("COMMIT")
        self.compared += 1
        if found[0] != found[1]:
            self.differences.append(found)


def test_it_leaves_no_file_behind(market: Market) -> None:
    """The stream deletes its working copy, staged objects and heartbeat."""
    market.sell(2)
    heartbeats: list[Any] = []
    market.stream(lambda _: heartbeats.append(read_heartbeat(market.generations.store)))
    folder = Path(market.url) / "market"
    assert read_heartbeat(market.generations.store) is None
    assert not any(path.is_file() for name in ("work", "staging", "live") for path in (folder / name).rglob("*"))


def test_a_store_in_memory_is_refused(market: Market) -> None:
    """An in-memory store is rejected: the publishing process cannot share it."""
    with pytest.raises(UsageError, match="memory://rm is in the memory of this process"):
        stream(market.log, f"{HERE}:MARKET", "memory://rm", OPTIONS, once=True)


@pytest.mark.parametrize("numbers", SIGNALS)
def test_a_signal_drains_it(market: Market, numbers: tuple[signal.Signals, ...]) -> None:
    """A signal, or several in the same instant, applies and publishes all appended events, and the exit code is 0."""
    position = market.sell(2)
    command = [sys.executable, "-m", "refold", "--domain", f"{HERE}:MARKET", "--log", market.log.url]
    command += ["--read-models", market.url, "stream", "--publish-every", "0", "--no-rebuild"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Published generation" in line and f"position {position:,}" in line:
                for number in numbers:
                    process.send_signal(number)
        assert process.wait(timeout=60) == 0
    assert market.newest().position == position
    market.agrees()
