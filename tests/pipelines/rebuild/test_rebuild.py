"""Rebuilds: concurrent with others and with appends, of some read models, and resumed after an interruption."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import GenerationError, RefoldError, UsageError, event
from refold.event_schemas.orders import StockAdjusted
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import RebuildProgress, Rebuilt, rebuild
from refold.pipelines.rebuild.replay_plan import ReplayPlan
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import (
    Fold,
    Projection,
    ReadModel,
    View,
)
from refold.warehouse.declarations.reducers import count_distinct, latest, total
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.event_log.log_head import Head
from refold.warehouse.object_store.records import decode_record, encode_record
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models import database
from refold.warehouse.read_models.database import Checkpoint
from refold.warehouse.read_models.generations.generations import Generations, open_generations
from refold.warehouse.read_models.increments.catch_up import ModelsAtCheckpoint, catch_up

HERE = "tests.pipelines.rebuild.test_rebuild"


@event(schema_version=1)
class Sold:
    """Pieces of an article went over a stall's counter."""

    sku: str
    quantity: int


def remember(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    """Depend on the order of sales."""
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
SKUS_BY_NAME = View("skus_by_name", "SELECT skus.sku, sold, path FROM skus JOIN paths USING (sku) ORDER BY ALL")


def _market(*read_models: ReadModel, views: tuple[View, ...] = ()) -> Domain:
    return Domain(name="market", events=(Sold,), read_models=read_models, views=views)


MARKET = _market(STALLS, SKUS, PATHS, views=(SKUS_BY_NAME,))
NAMES = ("stalls", "skus", "paths", "skus_by_name")
CHANGED = _market(
    Projection(
        name="stalls",
        key={"stall": "VARCHAR"},
        columns={"sold": total("BIGINT"), "last": latest("VARCHAR")},
        on={Sold: "SELECT stream_id AS stall, 2 * quantity AS sold, sku AS last"},
    ),
    SKUS,
    PATHS,
)
"""The market with one changed read model."""


@dataclass(frozen=True, slots=True)
class Market:
    """A log, and read models of it."""

    folder: Path
    log: EventLog
    appender: Appender

    @property
    def url(self) -> str:
        """Where read models are published."""
        return str(self.folder / "read-models")

    @property
    def generations(self) -> Generations:
        """The published read models."""
        return open_generations(self.url, "market")

    def sell(self, rounds: int = 1) -> None:
        """Append some sales at every stall."""
        for number in range(rounds * 24):
            sold = [Sold(sku=f"sku-{number % 7}", quantity=number), Sold(sku="cup", quantity=1)]
            self.appender.append(f"stall-{number % 12}", sold)

    def rebuild(self, *only: str, domain: str = "MARKET", workers: int = 2, report: Any = lambda _: None) -> Rebuilt:
        """Rebuild, all or some."""
        options = beam_options(None, [f"--direct_num_workers={workers}"])
        return rebuild(self.log, f"{HERE}:{domain}", self.url, options, only=only, report=report)

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Read a table or view as it is published."""
        newest = self.generations.newest()
        assert newest is not None
        with closing(duckdb.connect(str(self.generations.path(newest)), read_only=True)) as connection:
            return connection.execute(f"FROM {name} ORDER BY ALL").fetchall()

    def expected(self) -> dict[str, list[tuple[Any, ...]]]:
        """Make all tables and views of the same log from nothing, without Beam, staging or publishing."""
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(database.open_database(Path(folder) / "expected.duckdb")) as connection,
        ):
            for model in MARKET.read_models:
                database.create_table(connection, model, [])
                database.set_fingerprint(connection, model, MARKET, 0)
            catch_up(connection, self.log, MARKET, [ModelsAtCheckpoint(MARKET.read_models, Checkpoint(0, 0, ""))])
            database.create_views(connection, MARKET)
            return {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in NAMES}


@pytest.fixture
def market(tmp_path: Path) -> Market:
    """A market with some sales, of which nothing was published yet."""
    log = create_log(str(tmp_path / "log"), domain_name="market", bucket_count=8)
    made = Market(tmp_path, log, Appender(log, MARKET.registry))
    made.sell()
    return made


class _BrokenOff(Exception):
    """The rebuild was interrupted."""


def at(phase: str, act: Callable[[], Any]) -> Callable[[RebuildProgress], None]:
    """Act once, when a rebuild reports a phase."""
    phases: list[str] = []

    def report(progress: RebuildProgress) -> None:
        first = progress.phase not in phases
        phases.append(progress.phase)
        if first and progress.phase == phase:
            act()

    return report


def break_off() -> None:
    """End a rebuild."""
    raise _BrokenOff


def all_agree(market: Market) -> None:
    """Compare every table that is published with one made from nothing."""
    expected = market.expected()
    for name in NAMES:
        assert market.rows(name) == expected[name], name


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 5])
def test_an_interrupted_rebuild_is_resumed_with_any_number_of_workers(market: Market, workers: int) -> None:
    """Staged units are neither repeated nor counted twice, even if the new workers would split them differently."""
    with pytest.raises(_BrokenOff):
        market.rebuild(workers=2, report=at("load", break_off))
    again = market.rebuild(workers=workers)
    assert again.resumed > 0
    all_agree(market)


def test_an_interrupted_rebuild_is_resumed_up_to_the_new_head(market: Market) -> None:
    """The resumed rebuild catches up with events appended and sealed since."""
    with pytest.raises(_BrokenOff):
        market.rebuild(report=at("load", break_off))
    market.sell()
    seal(market.log, f"{HERE}:MARKET", beam_options(None))
    market.sell()
    assert market.rebuild().resumed > 0
    all_agree(market)


@pytest.mark.parametrize(
    "kind",
    ["staged/done", *(pytest.param(k, marks=pytest.mark.slow) for k in ("plan.json", "staged/rows", "staged/stalls"))],
)
def test_what_is_damaged_in_staging_is_staged_again(market: Market, kind: str) -> None:
    """A flipped bit in the plan, in rows or in what says that they are done: nothing wrong is published."""
    with pytest.raises(_BrokenOff):
        market.rebuild(report=at("load", break_off))
    staging = Path(market.generations.store.url, "staging")
    files = [p for p in sorted(staging.rglob("*")) if p.is_file() and f"/{kind}" in str(p)]
    for path in files:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    assert files or kind != "plan.json"
    market.rebuild()
    all_agree(market)


def test_a_plan_that_somebody_planted_is_not_followed(market: Market) -> None:
    """A plan must name a manifest that the log has; what is in it, the log says."""
    with pytest.raises(_BrokenOff):
        market.rebuild(report=at("load", break_off))
    [path] = Path(market.generations.store.url, "staging").glob("rebuild-*/plan.json")
    plan = decode_record(path.read_bytes(), ReplayPlan)
    path.write_bytes(encode_record(dataclasses.replace(plan, manifest=99)))
    assert market.rebuild().resumed == 0
    all_agree(market)


@pytest.mark.slow
def test_another_declaration_is_another_rebuild(market: Market) -> None:
    """What a killed rebuild staged is not used for read models of another declaration."""
    with pytest.raises(_BrokenOff):
        market.rebuild(report=at("load", break_off))
    doubled = market.rebuild(domain="CHANGED")
    assert doubled.resumed == 0
    assert [row[1] for row in market.rows("stalls")] == [2 * row[1] for row in market.expected()["stalls"]]


def test_a_rebuild_stages_nothing_for_ever(market: Market) -> None:
    """Once it has published, neither staged objects nor its working database are left."""
    market.rebuild()
    left = [path for path in (market.folder / "read-models" / "market").rglob("*") if not path.is_dir()]
    assert sorted(path.suffix for path in left) == [".duckdb", ".duckdb", ".json"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["seal", "replay", "load", "catch up"])
def test_what_is_appended_meanwhile_is_in_it_or_comes_after(market: Market, phase: str) -> None:
    """A generation has one position and all events up to it, including those of its catch-up."""
    market.rebuild(report=at(phase, market.sell))
    newest = market.generations.newest()
    assert newest is not None
    assert newest.position == market.log.head().position
    all_agree(market)


def test_a_rebuild_ends_beside_writers_that_are_faster(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    """It publishes a position that it reached; what came after that is left to the next."""
    head = EventLog.head

    def growing(log: EventLog) -> Head:
        market.sell()
        return head(log)

    monkeypatch.setattr(EventLog, "head", growing)
    published = market.rebuild(workers=1).generation
    assert 0 < published.position < head(market.log).position


def test_phases_are_reported_in_order(market: Market) -> None:
    """The replay also reports staged and planned units."""
    reports: list[RebuildProgress] = []
    rebuilt = market.rebuild(report=reports.append)
    assert list(dict.fromkeys(p.phase for p in reports)) == ["seal", "replay", "load", "catch up", "publish"]
    replayed = [p for p in reports if p.phase == "replay"]
    assert replayed[-1].done == replayed[-1].planned > 0
    assert replayed[-1].events == rebuilt.events == 3 * market.log.head().position


@pytest.mark.slow
def test_of_two_that_are_the_same_one_publishes(market: Market) -> None:
    """Both share staged objects; the first to end deletes them, and the other reports that."""
    market.rebuild()

    def another() -> None:
        market.sell()
        market.rebuild()

    for phase in ("replay", "load"):
        with pytest.raises(RefoldError, match="another rebuild of the same read models"):
            market.rebuild(report=at(phase, another))
    assert [generation.number for generation in market.generations.all()] == [1, 2, 3]
    all_agree(market)


@pytest.mark.slow
@pytest.mark.parametrize("only", [("skus",), ("stalls", "paths")])
def test_of_two_that_publish_at_once_none_is_lost(market: Market, only: tuple[str, ...]) -> None:
    """The second builds on the first, whose tables are at a later position than its own."""
    market.rebuild()

    def another() -> None:
        market.sell()
        market.rebuild()

    ours = market.rebuild(*only, report=at("replay", another))
    numbers = [generation.number for generation in market.generations.all()]
    assert (numbers, ours.generation.number, ours.generation.parent) == ([1, 2, 3], 3, 2)
    all_agree(market)


@pytest.mark.slow
def test_who_loses_the_race_for_a_number_takes_the_next(market: Market) -> None:
    """If another publishes first, the loser deletes its file and publishes the changes of both."""
    market.rebuild()

    def another() -> None:
        market.sell()
        market.rebuild()

    ours = market.rebuild("skus", report=at("publish", another))
    assert (ours.generation.number, ours.generation.parent) == (3, 2)
    files = {path.name for path in (market.folder / "read-models" / "market" / "files").iterdir()}
    assert files == {generation.file.removeprefix("files/") for generation in market.generations.all()}
    all_agree(market)


def test_some_read_models_are_rebuilt_and_the_others_caught_up(market: Market) -> None:
    """All tables of the new generation are at its position."""
    first = market.rebuild().generation
    market.sell()
    second = market.rebuild("skus").generation
    assert second.position == market.log.head().position > first.position
    assert second.tables.keys() == first.tables.keys()
    all_agree(market)


@pytest.mark.slow
def test_read_models_may_be_built_one_by_one(market: Market) -> None:
    """A generation holds those that were built, and the views whose tables are all there."""
    held = []
    for name in ("paths", "stalls", "skus"):
        held.append(sorted(market.rebuild(name).generation.tables))
        market.sell()
    assert held == [["paths"], ["paths", "stalls"], ["paths", "skus", "stalls"]]
    market.rebuild("skus")
    all_agree(market)


def test_a_read_model_with_another_declaration_is_not_copied(market: Market) -> None:
    """Tables of an old and a new declaration are not mixed."""
    market.rebuild()
    with pytest.raises(UsageError, match=r"declaration of read model stalls has changed .* Rebuild it too"):
        market.rebuild("skus", domain="CHANGED")
    assert [generation.number for generation in market.generations.all()] == [1]


@pytest.mark.slow
def test_read_models_of_another_log_are_not_taken_over(market: Market, tmp_path: Path) -> None:
    """Either all read models are replaced, or none."""
    market.rebuild()
    log = create_log(str(tmp_path / "other"), domain_name="market", bucket_count=2)
    other = Market(tmp_path, log, Appender(log, MARKET.registry))
    other.sell()
    with pytest.raises(GenerationError, match="was not built from the log"):
        other.rebuild("skus")
    other.rebuild()
    all_agree(other)


def test_a_read_model_that_there_is_not(market: Market) -> None:
    """The error lists the declared read models."""
    with pytest.raises(UsageError, match="no read model 'sales'; it has: stalls, skus, paths"):
        market.rebuild("sales")


def test_a_table_of_nothing_is_a_table(tmp_path: Path) -> None:
    """A read model whose events never happened is published, empty, with its columns."""
    log = create_log(str(tmp_path / "log"), domain_name="orders", bucket_count=2)
    Appender(log, ORDERS.registry).append("stock-1", [StockAdjusted(sku="cup", quantity=1, reason="found")])
    made = rebuild(log, "orders", str(tmp_path / "rm"), beam_options(None)).generation
    assert {name: table.rows for name, table in made.tables.items()} == {
        "order_summary": 0,
        "orders_by_customer": 0,
        "revenue_by_day": 0,
        "inventory_status": 1,
        "purchase_cost": 1,
    }
