"""Reconciling and verified cut-over: rebuild and increments agree; any difference is reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import DisagreementError, GenerationError, UsageError
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.rebuild import Rebuilt, rebuild
from refold.pipelines.rebuild.reconcile import reconcile
from refold.pipelines.rebuild.reconciliation import Reconciliation
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.read_models.comparison.differences import RowDifference, TableDifference
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.generations.rollback import roll_back
from tests.pipelines.rebuild.test_rebuild import HERE, MARKET, Market
from tests.warehouse.event_log.shop import write_commit
from tests.warehouse.read_models.published import rewriting

ROOT = Path(__file__).parents[3]
OPTIONS = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Read models of which one was rebuilt last, and the others were brought to the same position by an increment."""
    folder = tmp_path_factory.mktemp("reconcile")
    log = create_log(str(folder / "log"), domain_name="market", bucket_count=4)
    market = Market(folder, log, Appender(log, MARKET.registry))
    market.sell()
    market.rebuild()
    market.sell()
    market.rebuild("skus")
    return market


@pytest.fixture
def market(template: Market, tmp_path: Path) -> Market:
    """A copy of it, in whose log more was appended since."""
    shutil.copytree(template.folder, tmp_path / "copy", symlinks=True)
    log = create_log(str(tmp_path / "copy" / "log"), domain_name="market", bucket_count=4)
    copy = Market(tmp_path / "copy", log, Appender(log, MARKET.registry))
    copy.sell()
    return copy


def reconciled(market: Market, *, domain: str = "MARKET", **more: Any) -> Reconciliation:
    """Compare the newest generation with a rebuild."""
    return reconcile(market.log, f"{HERE}:{domain}", market.url, OPTIONS, **more)


def verified(market: Market, *only: str, domain: str = "MARKET", dead_letter: bool = False) -> Rebuilt:
    """Rebuild, and publish only what agrees."""
    ref = f"{HERE}:{domain}"
    return rebuild(market.log, ref, market.url, OPTIONS, only=only, dead_letter=dead_letter, verify=True)


def numbers(market: Market) -> list[int]:
    """Give the numbers of all generations."""
    return [g.number for g in market.generations.all()]


def test_increments_and_a_rebuild_agree(market: Market) -> None:
    """Both are compared at the generation's position; nothing is published, and no files are left."""
    found = reconciled(market)
    assert (found.differences, found.skipped) == ((), {})
    assert (found.generation, found.position, found.tables) == (2, 96, ("stalls", "skus", "paths"))
    assert numbers(market) == [1, 2]
    left = {p.suffix for p in Path(market.generations.store.url).rglob("*") if p.is_file()}
    assert left == {".duckdb", ".json"}


def test_a_changed_value_is_reported_with_its_key_and_both_values(market: Market) -> None:
    """Extra and missing rows are reported too."""
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE stalls SET sold = sold + 1 WHERE stall = 'stall-3'")
        connection.execute("DELETE FROM skus WHERE sku = 'cup'")
        connection.execute("INSERT INTO paths VALUES ('ghost', 5)")
    stalls, skus, paths = reconciled(market).differences
    value = RowDifference(key={"stall": "stall-3"}, here={"sold": 41}, there={"sold": 40})
    assert stalls == TableDifference(
        name="stalls", rows_here=12, rows_there=12, changed=1, by_column={"sold": 1}, examples=(value,)
    )
    cup = RowDifference(key={"sku": "cup"}, here=None, there={"sold": 48, "stalls": 12})
    assert skus == TableDifference(name="skus", rows_here=7, rows_there=8, only_there=1, examples=(cup,))
    ghost = RowDifference(key={"sku": "ghost"}, here={"path": 5}, there=None)
    assert paths == TableDifference(name="paths", rows_here=9, rows_there=8, only_here=1, examples=(ghost,))


def test_what_a_distinct_count_has_seen_is_compared_too(market: Market) -> None:
    """A difference in seen values is found, although it affects the count only at a later event."""
    with rewriting(market.generations) as connection:
        connection.execute("DELETE FROM refold.seen_skus_stalls WHERE sku = 'cup' AND _value = 'stall-1'")
    [found] = reconciled(market, only=["skus"]).differences
    assert (found.name, found.only_there) == ("refold.seen_skus_stalls", 1)


def test_only_the_selected_read_models(market: Market) -> None:
    """Differences in other read models are not reported."""
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE stalls SET sold = 0")
    assert reconciled(market, only=["paths"]).differences == ()
    assert reconciled(market, only=["stalls"], examples=2).differences[0].examples[1].key == {"stall": "stall-1"}


def test_the_rebuilt_file_can_be_kept(market: Market, tmp_path: Path) -> None:
    """``keep`` writes the rebuilt file to a path."""
    reconciled(market, keep=tmp_path / "rebuilt.duckdb")
    with closing(duckdb.connect(str(tmp_path / "rebuilt.duckdb"), read_only=True)) as connection:
        assert connection.execute("SELECT position FROM refold.checkpoint").fetchall() == [(96,)]
    with pytest.raises(UsageError, match="exists"):
        reconciled(market, keep=tmp_path / "rebuilt.duckdb")


def test_a_read_model_declared_otherwise_cannot_be_compared(market: Market) -> None:
    """It is skipped and named; if no other remains, that is an error."""
    found = reconciled(market, domain="CHANGED")
    assert found.tables == ("skus", "paths")
    assert found.skipped["stalls"].startswith("its declaration changed")
    with pytest.raises(UsageError, match="no read model that can be compared"):
        reconciled(market, domain="CHANGED", only=["stalls"])


def test_there_is_nothing_to_compare_with(market: Market, tmp_path: Path) -> None:
    """A comparison without a generation, or with one of another log, is an error."""
    with pytest.raises(GenerationError, match="Nothing is published"):
        reconcile(market.log, f"{HERE}:MARKET", str(tmp_path / "none"), OPTIONS)
    other = create_log(str(tmp_path / "other"), domain_name="market", bucket_count=2)
    with pytest.raises(GenerationError, match="another log"):
        reconcile(other, f"{HERE}:MARKET", market.url, OPTIONS)


@pytest.mark.slow
def test_dead_letters_are_left_out_and_compared(tmp_path: Path) -> None:
    """Published letters must equal those of the rebuild; a removed one is reported as missing."""
    log = create_log(str(tmp_path / "log"), domain_name="market", bucket_count=2)
    market = Market(tmp_path, log, Appender(log, MARKET.registry))
    market.sell()
    write_commit(log, [("stall-99", "Sold", 1, '{"sku": "cup"}')])
    rebuild(log, f"{HERE}:MARKET", market.url, OPTIONS, dead_letter=True)
    assert reconciled(market).differences == ()
    with rewriting(market.generations) as connection:
        connection.execute("DELETE FROM refold.dead_letters")
    [found] = reconciled(market).differences
    assert (found.name, found.only_there) == ("refold.dead_letters", 1)
    assert found.examples[0].key == {"read_model": "", "position": 49}


@pytest.mark.slow
def test_on_a_remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log, read models and staged objects are remote; the rebuilt file is local."""
    monkeypatch.setenv("REFOLD_CACHE_DIR", str(tmp_path / "cache"))
    root = f"memory://{uuid.uuid4().hex}"
    log = create_log(f"{root}/log", domain_name="market", bucket_count=2)
    Market(tmp_path, log, Appender(log, MARKET.registry)).sell()
    url = f"{root}/read-models"
    for verify in (False, True):
        rebuild(log, f"{HERE}:MARKET", url, OPTIONS, verify=verify)
    rolled = roll_back(open_generations(url, "market"))
    found = reconcile(log, f"{HERE}:MARKET", url, OPTIONS, keep=tmp_path / "kept.duckdb")
    assert (found.generation, found.differences) == (rolled.number, ())


# Verified cut-over


def test_what_agrees_is_published(market: Market) -> None:
    """The parent catches up to the new position before the comparison; new read models are not compared."""
    rebuilt = verified(market)
    assert rebuilt.verified is not None
    assert (rebuilt.verified.parent, rebuilt.verified.agreed) == (2, ("stalls", "skus", "paths"))
    assert (rebuilt.generation.number, rebuilt.generation.position) == (3, 144)
    assert rebuilt.verified.changed == ()


@pytest.mark.slow
@pytest.mark.parametrize("only", [(), ("stalls",)])
def test_what_differs_is_not_published(market: Market, only: tuple[str, ...]) -> None:
    """Readers keep the old generation, and the error has the differences; without the check it is published."""
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE stalls SET sold = sold + 1 WHERE stall = 'stall-3'")
    with pytest.raises(DisagreementError, match=r"stall stall-3: sold 60 in the rebuild, 61 in what was") as caught:
        verified(market, *only)
    [difference] = caught.value.differences
    assert difference.examples == (RowDifference(key={"stall": "stall-3"}, here={"sold": 60}, there={"sold": 61}),)
    assert caught.value.exit_code == 4
    assert numbers(market) == [1, 2]
    rebuild(market.log, f"{HERE}:MARKET", market.url, OPTIONS)
    assert numbers(market) == [1, 2, 3]
    assert reconciled(market).differences == ()


def test_what_is_not_rebuilt_is_not_gated(market: Market) -> None:
    """A rebuild of one read model verifies only that one."""
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE stalls SET sold = 0")
    rebuilt = verified(market, "paths")
    assert rebuilt.verified is not None
    assert rebuilt.verified.agreed == ("paths",)


def test_a_read_model_with_another_declaration_is_reported_and_not_gated(market: Market) -> None:
    """All other read models are verified."""
    rebuilt = verified(market, domain="CHANGED")
    assert rebuilt.verified is not None
    assert rebuilt.verified.agreed == ("skus", "paths")
    [changed] = rebuilt.verified.changed
    assert (changed.name, changed.by_column["sold"]) == ("stalls", 12)
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE skus SET sold = 0")
    with pytest.raises(DisagreementError, match="skus"):
        verified(market, domain="CHANGED")


def test_the_first_rebuild_has_nothing_to_be_verified_against(market: Market, tmp_path: Path) -> None:
    """The first rebuild is published without a comparison."""
    rebuilt = rebuild(market.log, f"{HERE}:MARKET", str(tmp_path / "new"), OPTIONS, verify=True)
    assert rebuilt.verified is not None
    assert (rebuilt.generation.number, rebuilt.verified.parent) == (1, 0)


# The commands


def refold(market: Market, *arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    settings = ["--domain", f"{HERE}:MARKET", "--log", market.log.url, "--read-models", market.url]
    command = [sys.executable, "-m", "refold", *settings, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_the_commands_report_to_people_and_machines(market: Market) -> None:
    """A difference has exit code 4, and is printed to stdout."""
    with rewriting(market.generations) as connection:
        connection.execute("UPDATE stalls SET sold = NULL WHERE stall = 'stall-3'")
    output = refold(market, "reconcile", code=4).stdout
    assert "A rebuild and generation 2 at position 96 differ" in output
    assert ["stalls", "stall-3", "sold", "NULL", "40"] in [line.split() for line in output.splitlines()]
    refused = refold(market, "rebuild", "--verify", "--json", code=4)
    document = json.loads(refused.stdout)
    assert document["published"] is False
    [difference] = document["differences"]
    # Increments add to no total that was lost: the sum would look right.
    expected = {"key": {"stall": "stall-3"}, "rebuilt": {"sold": 60}, "published": {"sold": None}}
    assert difference["examples"] == [expected]
    assert "Nothing was published" in refused.stderr
    assert numbers(market) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--as-of", "3"], "need each other"), (["--as-of", "3", "--to", "x.duckdb", "--verify"], "publishes nothing")],
)
def test_options_that_contradict_each_other(market: Market, arguments: list[str], message: str) -> None:
    """Contradicting options are rejected before any work."""
    assert message in refold(market, "rebuild", *arguments, code=2).stderr


@pytest.mark.slow
def test_as_of_on_the_command_line(market: Market, tmp_path: Path) -> None:
    """One JSON document reports the result."""
    to = str(tmp_path / "then.duckdb")
    document = json.loads(refold(market, "rebuild", "paths", "--as-of", "30", "--to", to, "--json", code=0).stdout)
    assert (document["path"], document["position"], document["commit"]) == (to, 30, 15)
    assert document["tables"].keys() == {"paths"}
