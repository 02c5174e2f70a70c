"""``reconcile --independent``: a sequential fold of the recorded events, against what is published."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from refold.event_schemas import UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.cli.main import cli
from refold.pipelines.rebuild.independent import reconcile_independently
from refold.pipelines.rebuild.rebuild import rebuild
from refold.pipelines.rebuild.reconciliation import Reconciliation
from refold.pipelines.seal import seal
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import total
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.event_log.manifest import publish
from refold.warehouse.object_store.digests import digest_of
from refold.warehouse.read_models.comparison.differences import RowDifference, TableDifference
from refold.warehouse.sequential_fold import NotByStreamError, Sample, fold_log
from tests.pipelines.rebuild.test_rebuild import HERE, MARKET, Market, Sold
from tests.warehouse.read_models.published import rewriting

HERE_TOO = "tests.pipelines.rebuild.test_independent"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Published read models."""
    folder = tmp_path_factory.mktemp("independent")
    log = create_log(str(folder / "log"), domain_name="market", bucket_count=4)
    market = Market(folder, log, Appender(log, MARKET.registry))
    market.sell()
    market.rebuild(workers=1)
    return market


@pytest.fixture
def market(template: Market, tmp_path: Path) -> Market:
    """A copy of them."""
    shutil.copytree(template.folder, tmp_path / "copy", symlinks=True)
    log = create_log(str(tmp_path / "copy" / "log"), domain_name="market", bucket_count=4)
    return Market(tmp_path / "copy", log, Appender(log, MARKET.registry))


def tamper(market: Market, statement: str) -> None:
    """Change the newest published file."""
    with rewriting(market.generations) as connection:
        connection.execute(statement)


def reconciled(market: Market, **more: object) -> Reconciliation:
    """Compare the newest generation with the fold."""
    return reconcile_independently(market.log, f"{HERE}:MARKET", market.url, **more)  # type: ignore[arg-type]


def test_all_rows_agree_up_to_the_position_of_the_generation(market: Market) -> None:
    """Later events are not folded."""
    market.sell()
    found = reconciled(market)
    assert (found.differences, found.skipped, found.sample_seed) == ((), {}, None)
    assert (found.position, found.tables) == (48, ("stalls", "skus", "paths"))


def test_differences_are_reported_as_those_of_a_rebuild(market: Market) -> None:
    """A wrong value, a missing row and one too many."""
    tamper(market, "UPDATE stalls SET sold = sold + 1 WHERE stall = 'stall-3'; DELETE FROM skus WHERE sku = 'cup'")
    tamper(market, "INSERT INTO paths VALUES ('ghost', 5)")
    stalls, skus, paths = reconciled(market).differences
    value = RowDifference(key={"stall": "stall-3"}, here={"sold": 21}, there={"sold": 20})
    assert stalls == TableDifference(
        name="stalls", rows_here=12, rows_there=12, changed=1, by_column={"sold": 1}, examples=(value,)
    )
    assert (skus.only_there, paths.only_here) == (1, 1)


def test_a_dead_letter_too_many_is_reported(market: Market) -> None:
    """Dead letters are compared like rows."""
    tamper(
        market,
        "INSERT INTO refold.dead_letters (read_model, position, stream_id, event_type, schema_version, reason, payload)"
        " VALUES ('skus', 3, 'stall-1', 'Sold', 1, '', '')",
    )
    [found] = reconciled(market).differences
    assert (found.name, found.only_here) == ("refold.dead_letters", 1)


@pytest.mark.slow
def test_samples_of_all_seeds_together_are_all_rows(market: Market) -> None:
    """A sample is the same on both sides: no row outside it is reported, each row is in the sample of some seed."""
    tamper(market, "UPDATE stalls SET sold = -1; UPDATE skus SET sold = -1; UPDATE paths SET path = -1")
    changed: dict[str, set[object]] = {}
    for seed in range(40):
        for table in reconciled(market, sample=4, seed=seed, examples=100).differences:
            assert (table.only_here, table.only_there) == (0, 0)
            assert table.changed < 12
            changed.setdefault(table.name, set()).update(tuple(e.key.values()) for e in table.examples)
    assert {name: len(keys) for name, keys in changed.items()} == {"stalls": 12, "skus": 8, "paths": 8}


def test_a_sample_of_streams_is_refused_where_keys_are_no_streams(market: Market) -> None:
    """What the engine concludes about keys is checked at each event; then all events are folded instead."""
    wrong = Sample(seed=1, one_in=1, columns=("sku",), by_stream=True)
    with pytest.raises(NotByStreamError):
        fold_log(market.log.store, MARKET, [MARKET.read_model("skus")], up_to=48, samples={"skus": wrong})


def test_sealed_commits_that_are_gone_are_read_from_segments(market: Market) -> None:
    """After a retention of commits, the typed columns of segments are the record."""
    seal(market.log, f"{HERE}:MARKET")
    for number in (1, 2, 5):
        market.log.store.delete(f"commits/{number:020d}.parquet")
    assert reconciled(market).differences == ()


def test_a_segment_that_differs_from_the_commit_is_noticed(market: Market) -> None:
    """The fold reads the commits as long as they exist; read models come from segments."""
    seal(market.log, f"{HERE}:MARKET")
    segment = market.log.manifest().segments[0]
    path = market.log.segment_path(segment)
    with closing(duckdb.connect()) as connection:
        connection.execute(f"CREATE TABLE s AS FROM read_parquet('{path}', hive_partitioning = false)")
        connection.execute("UPDATE s SET quantity = quantity + 1 WHERE position = (SELECT min(position) FROM s)")
        path.chmod(0o644)
        path.unlink()
        connection.execute(f"COPY s TO '{path}' (FORMAT parquet)")
    sealed = market.log.manifest()
    changed = dataclasses.replace(segment, bytes=path.stat().st_size, checksum=digest_of(path.read_bytes()))
    segments = (changed, *sealed.segments[1:])
    assert publish(market.log.store, dataclasses.replace(sealed, number=sealed.number + 1, segments=segments))
    market.rebuild("stalls", "skus", "paths", workers=1)
    assert {d.name for d in reconciled(market).differences} == {"stalls", "skus", "paths"}


SMALL = Domain(
    name="market",
    events=(Sold,),
    read_models=(
        Projection(
            name="stalls",
            key={"stall": "VARCHAR"},
            columns={"sold": total("TINYINT"), "n": total("BIGINT")},
            on={Sold: "SELECT stream_id AS stall, quantity AS sold, 1 AS n"},
        ),
        Projection(
            name="skus",
            key={"sku": "VARCHAR"},
            columns={"sold": total("TINYINT")},
            on={Sold: "SELECT sku, quantity AS sold"},
        ),
    ),
)
"""A market in which some totals leave their columns."""


@pytest.mark.slow
def test_withheld_rows_are_compared(tmp_path: Path) -> None:
    """With their exact totals and positions; also in a sample, whose keys decide which dead letters count."""
    log = create_log(str(tmp_path / "log"), domain_name="market", bucket_count=4)
    market = Market(tmp_path, log, Appender(log, MARKET.registry))
    for stall, quantity in (("a", 100), ("b", 5), ("a", 27), ("c", 127), ("a", 1), ("c", 1), ("a", 1), ("b", 1)):
        market.appender.append(stall, [Sold(sku=f"sku-{stall}", quantity=quantity)])
    rebuild(log, f"{HERE_TOO}:SMALL", market.url, beam_options(None, ["--direct_num_workers=1"]), dead_letter=True)
    assert market.rows("stalls") == [("b", 6, 2)]
    assert market.rows("refold.withheld_stalls") == [
        ("a", None, 4, "129", None, 5),
        ("c", None, 2, "128", None, 6),
    ]

    def again(**more: object) -> list[str]:
        found = reconcile_independently(log, f"{HERE_TOO}:SMALL", market.url, **more)  # type: ignore[arg-type]
        return [table.name for table in found.differences]

    assert again() == []
    assert [again(sample=1, seed=seed) for seed in range(4)] == [[]] * 4
    tamper(market, "UPDATE refold.withheld_stalls SET _beyond_sold = '130'")
    assert again() == ["refold.withheld_stalls"]
    tamper(market, "DROP TABLE refold.withheld_skus")
    assert again() == ["refold.withheld_stalls", "refold.withheld_skus"]


def test_the_recomputed_file_can_be_kept(market: Market, tmp_path: Path) -> None:
    """``keep`` writes the recomputed rows to a new path."""
    reconciled(market, keep=tmp_path / "kept.duckdb")
    with closing(duckdb.connect(str(tmp_path / "kept.duckdb"), read_only=True)) as connection:
        assert connection.execute("SELECT count(*) FROM stalls").fetchall() == [(12,)]
    with pytest.raises(UsageError, match="exists"):
        reconciled(market, keep=tmp_path / "kept.duckdb")


def test_the_command_prints_the_seed_and_exits_with_4(market: Market) -> None:
    """The report has the shape of the other reconcile."""
    tamper(market, "UPDATE skus SET sold = -1")
    options = ["--domain", f"{HERE}:MARKET", "--log", market.log.url, "--read-models", market.url]
    run = CliRunner().invoke(cli, ["reconcile", "--independent", "--sample", "8", "--seed", "5", "--json", *options])
    assert run.exit_code == 4, run.output
    document = json.loads(run.stdout)
    assert (document["agree"], document["sample_seed"], document["tables"]) == (False, 5, ["stalls", "skus", "paths"])
    assert document["differences"][0]["rows_recomputed"] == 8
    shown = CliRunner().invoke(cli, ["reconcile", "--independent", "--sample", "8", "--only", "paths", *options])
    assert shown.exit_code == 0, shown.output
    assert "repeat it with --seed" in shown.output


def test_sample_and_seed_belong_to_independent() -> None:
    """Without it they would be ignored."""
    assert "--independent" in CliRunner().invoke(cli, ["reconcile", "--sample", "3"]).output
    assert "--sample" in CliRunner().invoke(cli, ["reconcile", "--independent", "--seed", "3"]).output
