"""Read models that start from a published generation, and replay only later events."""

from __future__ import annotations

import dataclasses
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import GenerationError, ProjectionError, UsageError, event
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.as_of import rebuild_as_of
from refold.pipelines.rebuild.rebuild import Rebuilt, rebuild
from refold.pipelines.rebuild.reconcile import reconcile
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import (
    Fold,
    Projection,
    ReadModel,
    View,
)
from refold.warehouse.declarations.reducers import (
    count,
    count_distinct,
    latest,
    total,
)
from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.read_models.generations.generations import (
    Generation,
    Generations,
    Seed,
    open_generations,
)
from refold.warehouse.read_models.planning.plan import plan_rebuild

HERE = "tests.pipelines.rebuild.test_seeds"


@event(schema_version=1)
class Sold:
    """Pieces of an article went over a stall's counter."""

    sku: str
    quantity: int


@event(schema_version=1)
class Closed:
    """A stall was closed."""

    why: str


def remember(state: dict[str, Any] | None, sold: Any) -> dict[str, Any]:
    """Depend on the order of sales."""
    return {"path": ((state or {"path": 7})["path"] * 31 + sold.quantity) % 1_000_003}


SALES = Projection(
    name="sales",
    key={"stall": "VARCHAR", "sku": "VARCHAR"},
    columns={"pieces": total("BIGINT"), "sales": count(), "last": latest("INTEGER")},
    on={Sold: "SELECT stream_id AS stall, sku, quantity AS pieces, 1 AS sales, quantity::INTEGER AS last"},
)
PATHS = Fold(
    name="paths",
    key={"sku": "VARCHAR"},
    columns={"path": "BIGINT"},
    on={Sold: "SELECT sku, quantity"},
    fold=remember,
)
SKUS = Projection(
    name="skus",
    key={"sku": "VARCHAR"},
    columns={"pieces": total("BIGINT"), "sales": count()},
    on={Sold: "SELECT sku, quantity AS pieces, 1 AS sales"},
)
SEEDED_SKUS = dataclasses.replace(
    SKUS, seed="SELECT sku, sum(pieces)::BIGINT AS pieces, sum(sales)::BIGINT AS sales FROM sales GROUP BY sku"
)
SEEDED_PATHS = dataclasses.replace(PATHS, name="seeded_paths", seed="SELECT sku, path FROM paths")
FROM_VIEW = dataclasses.replace(SKUS, name="from_view", seed="SELECT sku, pieces, sales FROM sold")
SOLD = View("sold", "SELECT sku, sum(pieces)::BIGINT AS pieces, sum(sales)::BIGINT AS sales FROM sales GROUP BY sku")


def _stall(*read_models: ReadModel, views: tuple[View, ...] = ()) -> Domain:
    return Domain(name="stall", events=(Sold, Closed), read_models=read_models, views=views)


BEFORE = _stall(SALES, PATHS, views=(SOLD,))
AFTER = _stall(SALES, PATHS, SEEDED_SKUS, SEEDED_PATHS, FROM_VIEW, views=(SOLD,))
WITHOUT_THE_OLD = _stall(SEEDED_SKUS, SEEDED_PATHS, FROM_VIEW)
WHOLE = _stall(
    SKUS, dataclasses.replace(PATHS, name="seeded_paths"), dataclasses.replace(SKUS, name="from_view", seed=None)
)
"""The same read models from the full log, to compare with."""
SEEDED = ("skus", "seeded_paths", "from_view")


@dataclass(frozen=True, slots=True)
class Stall:
    """A log, and read models of it."""

    log: EventLog
    url: str
    appender: Appender

    @property
    def generations(self) -> Generations:
        """The published read models."""
        return open_generations(self.url, "stall")

    @property
    def newest(self) -> Generation:
        """The newest generation."""
        found = self.generations.newest()
        assert found is not None
        return found

    def sell(self, rounds: int = 1) -> None:
        """Append some sales at every stall."""
        for number in range(rounds * 12):
            sold = [Sold(sku=f"sku-{number % 5}", quantity=number + 1), Sold(sku="cup", quantity=1)]
            self.appender.append(f"stall-{number % 6}", sold)

    def rebuild(self, domain: str, *only: str, url: str | None = None) -> Rebuilt:
        """Rebuild, all or some."""
        return rebuild(self.log, f"{HERE}:{domain}", url or self.url, beam_options(None), only=only)

    def rows(self, name: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Read a table as it is published."""
        generations = open_generations(url or self.url, "stall")
        newest = generations.newest()
        assert newest is not None
        with closing(duckdb.connect(str(generations.path(newest)), read_only=True)) as connection:
            return connection.execute(f"FROM {name} ORDER BY ALL").fetchall()


def _made(folder: str) -> Stall:
    log = create_log(f"{folder}/log", domain_name="stall", bucket_count=4)
    return Stall(log, f"{folder}/read-models", Appender(log, BEFORE.registry))


@pytest.fixture
def stall(tmp_path: Path) -> Stall:
    """A stall whose sales so far are published, with later ones that are not."""
    made = _made(str(tmp_path))
    made.sell()
    made.rebuild("BEFORE")
    made.sell()
    return made


def all_agree(stall: Stall, folder: str) -> None:
    """Compare the seeded read models with those from the full log."""
    url = f"{folder}/whole-{uuid.uuid4()}"
    stall.rebuild("WHOLE", url=url)
    for name in SEEDED:
        assert stall.rows(name) == stall.rows(name, url), name


@pytest.mark.slow
def test_seeded_rows_and_later_events_equal_a_full_replay(stall: Stall, tmp_path: Path) -> None:
    """A projection, a fold, and one seeded from a view; no pipeline runs for them."""
    old = stall.newest
    done = stall.rebuild("AFTER", *SEEDED)
    assert (done.events, done.seeded, done.generation.position) == (0, SEEDED, stall.log.head().position)
    assert {done.generation.tables[name].seed for name in SEEDED} == {
        Seed(generation=old.number, position=old.position, file=old.file)
    }
    assert done.generation.tables["sales"].seed is None
    all_agree(stall, str(tmp_path))
    stall.sell()
    stall.rebuild("AFTER", "sales")
    assert stall.newest.tables["skus"].seed == done.generation.tables["skus"].seed
    all_agree(stall, str(tmp_path))


@pytest.mark.slow
def test_it_works_on_a_remote_store() -> None:
    """The file that is seeded from is fetched like any published one."""
    folder = f"memory://seeds-{uuid.uuid4()}"
    stall = _made(folder)
    stall.sell()
    options = beam_options(None, ["--direct_running_mode=in_memory"])
    rebuild(stall.log, f"{HERE}:BEFORE", stall.url, options)
    stall.sell()
    rebuild(stall.log, f"{HERE}:AFTER", stall.url, options, only=SEEDED)
    all_agree(stall, folder)


@pytest.mark.slow
def test_the_same_declaration_starts_from_the_same_rows_again(stall: Stall, tmp_path: Path) -> None:
    """The seed stays the same after newer generations no longer have its rows."""
    first = stall.rebuild("AFTER", *SEEDED).generation
    stall.sell()
    stall.rebuild("WITHOUT_THE_OLD", "skus")
    assert set(stall.newest.tables) == set(SEEDED)
    again = stall.rebuild("WITHOUT_THE_OLD").generation
    assert {t.seed for t in again.tables.values()} == {first.tables["skus"].seed}
    all_agree(stall, str(tmp_path))


@pytest.mark.slow
def test_a_seed_whose_file_is_gone_starts_from_the_newest(stall: Stall, tmp_path: Path) -> None:
    """After a collection the newest generation is the seed, if it has the tables."""
    stall.rebuild("AFTER", *SEEDED)
    stall.sell()
    newest = stall.rebuild("AFTER", "sales").generation
    seed = newest.tables["skus"].seed
    assert seed is not None
    stall.generations.store.delete(seed.file)
    again = stall.rebuild("AFTER", *SEEDED).generation.tables["skus"].seed
    assert again is not None
    assert (again.generation, again.position) == (newest.number, newest.position)
    all_agree(stall, str(tmp_path))


def test_a_plan_counts_only_the_events_after_the_seed(stall: Stall) -> None:
    """The plan has the seed's position."""
    plan = plan_rebuild(stall.log, AFTER, stall.generations)
    skus = next(m for m in plan.read_models if m.name == "skus")
    assert skus.seed_position == stall.newest.position
    assert skus.events == stall.log.head().position - stall.newest.position
    assert plan.to_rebuild == SEEDED


def test_a_seed_that_changes_is_a_change(stall: Stall) -> None:
    """A changed seed query is a reason to rebuild; its formatting is not."""
    stall.rebuild("AFTER", *SEEDED)
    laid_out = dataclasses.replace(SEEDED_SKUS, seed=f"{SEEDED_SKUS.seed}  -- as of the boundary\n")
    other = dataclasses.replace(SEEDED_SKUS, seed=f"{SEEDED_SKUS.seed} HAVING sku <> 'cup'")
    for seeded, reasons in ((laid_out, ()), (other, ("seed changed",)), (SKUS, ("seed is gone",))):
        domain = _stall(SALES, PATHS, seeded, SEEDED_PATHS, FROM_VIEW, views=(SOLD,))
        plan = plan_rebuild(stall.log, domain, stall.generations)
        assert next(m for m in plan.read_models if m.name == "skus").reasons == reasons


@pytest.mark.slow
def test_seeded_read_models_are_reconciled(stall: Stall) -> None:
    """They are compared with their seed and all later events, alone and with other read models."""
    stall.rebuild("AFTER", *SEEDED)
    options = beam_options(None)
    found = reconcile(stall.log, f"{HERE}:AFTER", stall.url, options)
    assert (found.differences, found.skipped, set(found.tables)) == ((), {}, {"sales", "paths", *SEEDED})
    stall.sell()
    stall.rebuild("WITHOUT_THE_OLD", "skus")
    found = reconcile(stall.log, f"{HERE}:WITHOUT_THE_OLD", stall.url, options)
    assert (found.differences, found.skipped, found.tables) == ((), {}, SEEDED)


@pytest.mark.slow
def test_a_seeded_rebuild_can_be_verified(stall: Stall) -> None:
    """It agrees with what the published rows have become by increments."""
    stall.rebuild("AFTER", *SEEDED)
    stall.sell()
    done = rebuild(stall.log, f"{HERE}:AFTER", stall.url, beam_options(None), verify=True)
    assert done.verified is not None
    assert set(done.verified.agreed) == {"sales", "paths", *SEEDED}
    assert done.seeded == SEEDED


def test_as_of_a_position_there_is_no_seed(stall: Stall, tmp_path: Path) -> None:
    """An as-of rebuild of a seeded read model is an error."""
    with pytest.raises(UsageError, match="skus starts from a published generation"):
        rebuild_as_of(
            stall.log,
            f"{HERE}:AFTER",
            beam_options(None),
            position=5,
            to=tmp_path / "early.duckdb",
            staging_url=str(tmp_path / "staging"),
        )


@pytest.mark.slow
def test_without_a_generation_there_is_nothing_to_start_from(tmp_path: Path) -> None:
    """The error says what to rebuild first; nothing is published."""
    stall = _made(str(tmp_path))
    stall.sell()
    with pytest.raises(
        GenerationError, match=r"skus starts from a published generation .* Rebuild what it reads first"
    ):
        stall.rebuild("AFTER")
    assert stall.generations.newest() is None
    plan = plan_rebuild(stall.log, AFTER, stall.generations)
    assert "its seed needs a published generation of this log, and there is none" in plan.read_models[2].reasons
    stall.rebuild("AFTER", "sales", "paths")
    assert set(stall.rebuild("AFTER", *SEEDED).generation.tables) == {"sales", "paths", *SEEDED}


def test_a_generation_of_another_log_is_nothing_to_start_from(stall: Stall, tmp_path: Path) -> None:
    """A generation of another log is no valid seed."""
    other = _made(str(tmp_path / "other"))
    other.sell()
    with pytest.raises(GenerationError, match="generation 1 was built from another log"):
        rebuild(other.log, f"{HERE}:AFTER", stall.url, beam_options(None))


DOUBLE = _stall(SALES, PATHS, dataclasses.replace(SKUS, seed="SELECT sku, pieces, sales FROM sales"))
NULLS_FIRST = "SELECT nullif(sku, 'cup') AS sku, pieces, sales FROM sales ORDER BY sku NULLS FIRST LIMIT 9"
NULL_KEY = _stall(
    SALES,
    PATHS,
    dataclasses.replace(SKUS, seed=NULLS_FIRST),
)
NO_TABLE = _stall(dataclasses.replace(SKUS, seed="SELECT sku, pieces, sales FROM never_there"))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("DOUBLE", r"skus, seed: two rows have the key \{'sku': .*GROUP BY"),
        ("NULL_KEY", "skus, seed: key column 'sku' is NULL in a row"),
        ("NO_TABLE", "skus, seed, on generation 1: .*never_there"),
    ],
)
def test_rows_that_no_event_could_find_are_refused(stall: Stall, domain: str, message: str) -> None:
    """Invalid seed rows are found before the publish."""
    with pytest.raises(ProjectionError, match=message):
        stall.rebuild(domain, "skus")
    assert stall.newest.number == 1


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ("SELECT sku, sum(pieces)::BIGINT AS pieces FROM sales GROUP BY sku", "does not yield column 'sales'"),
        ("SELECT sku, pieces, sales, last FROM sales", "column 'last' is not declared"),
        ("SELECT sku, pieces::DOUBLE AS pieces, sales FROM sales", "column pieces: the query yields DOUBLE"),
        ("SELECT sku, pieces, profits FROM sales", "profits"),
        ("SELECT sku, FROM FROM", "seed"),
        ("DELETE FROM sales", "seed"),
        ("SELECT sku, random()::BIGINT AS pieces, sales FROM sales", r"random\(\) returns a different value each time"),
    ],
)
def test_a_seed_is_checked_when_it_is_declared(seed: str, message: str) -> None:
    """A seed is checked against the domain's tables; the error names read model and column."""
    with pytest.raises(ProjectionError, match=f"Read model skus.*{message}"):
        _stall(SALES, dataclasses.replace(SKUS, seed=seed))


def test_what_was_seen_before_is_not_known() -> None:
    """A distinct count cannot be seeded, nor a fold without its full state."""
    with pytest.raises(ProjectionError, match="Read model stalls, column stalls: a count_distinct cannot start"):
        Projection(
            name="stalls",
            key={"sku": "VARCHAR"},
            columns={"stalls": count_distinct()},
            on={Sold: "SELECT sku, stream_id AS stalls"},
            seed="SELECT sku, 1 AS stalls FROM sales",
        )
    with pytest.raises(ProjectionError, match=r"seeded_paths, seed: .* does not yield column 'path'"):
        _stall(SALES, dataclasses.replace(SEEDED_PATHS, seed="SELECT DISTINCT sku FROM sales"))
