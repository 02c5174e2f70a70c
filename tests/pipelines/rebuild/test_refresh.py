"""One command for a scheduler: rebuilds what changed, catches up, publishes, reconciles, and reports it all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import EmptyLogError, GenerationError
from refold.event_schemas.orders import StockReceived
from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild import refresh as refreshing
from refold.pipelines.rebuild.publisher import republish
from refold.pipelines.rebuild.refresh import Refreshed, refresh
from refold.warehouse.event_log import Appender, create_log
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import Generation, Generations, open_generations

RECEIVED = StockReceived(sku="cup", quantity=3, unit_cost=Decimal("1.5"), best_before=None)


def append(folder: Path, times: int = 1) -> None:
    """Append some movements of stock, each in a commit."""
    log = create_log(str(folder / "log"), domain_name="orders", bucket_count=2)
    appender = Appender(log, ORDERS.registry)
    for _ in range(times):
        appender.append("stock-cup", [RECEIVED])


def refreshed(folder: Path, *, verify: bool = False, report: Callable[[Any], None] = lambda _: None) -> Refreshed:
    """Refresh a folder's read models."""
    log, url = open_log(str(folder / "log")), str(folder / "read-models")
    return refresh(log, "orders", url, beam_options(None), verify=verify, report=report)


def the_generations(folder: Path) -> Generations:
    """Open a folder's published read models."""
    return open_generations(str(folder / "read-models"), "orders")


def on_hand(folder: Path) -> int:
    """Read the published number of cups."""
    path = str(folder / "read-models" / "orders" / "current.duckdb")
    with closing(duckdb.connect(path, read_only=True)) as connection:
        row = connection.execute("SELECT on_hand FROM inventory_status WHERE sku = 'cup'").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop whose read models are fresh."""
    folder = tmp_path_factory.mktemp("refresh")
    append(folder, 4)
    refreshed(folder)
    return folder


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """A copy of the shop, to change."""
    return shutil.copytree(made, tmp_path / "shop", symlinks=True)


def test_the_first_refresh_rebuilds_all_and_the_second_does_nothing(tmp_path: Path) -> None:
    """A later refresh catches up without a rebuild, and publishes what a rebuild would."""
    append(tmp_path)
    first = refreshed(tmp_path)
    assert first.rebuilt == tuple(m.name for m in ORDERS.read_models)
    second = refreshed(tmp_path, verify=True)
    assert (second.published, second.rebuilt, second.caught_up) == (None, (), 0)
    assert second.reconciliation is not None
    assert second.reconciliation.differences == ()
    append(tmp_path, 2)
    third = refreshed(tmp_path, verify=True)
    assert (third.rebuilt, third.caught_up, on_hand(tmp_path)) == ((), 2, 9)
    assert [g.kind for g in the_generations(tmp_path).all()] == ["rebuild", "refresh"]
    assert third.reconciliation is not None
    assert third.reconciliation.differences == ()


def test_a_backlog_that_is_most_of_a_large_log_is_replayed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parallel replay replaces the catch-up."""
    monkeypatch.setattr(refreshing, "REBUILD_RATHER_FROM", 5)
    append(shop, 4)
    assert refreshed(shop).rebuilt == ()
    append(shop, 9)
    done = refreshed(shop)
    assert (done.rebuilt, on_hand(shop)) == (tuple(m.name for m in ORDERS.read_models), 17 * 3)


def test_an_empty_log_is_an_error(tmp_path: Path) -> None:
    """An empty log is an error, not a generation of empty tables."""
    append(tmp_path, 0)
    with pytest.raises(EmptyLogError, match="refold ingest"):
        refreshed(tmp_path)
    assert the_generations(tmp_path).newest() is None


def test_only_a_published_generation_can_be_republished(shop: Path, tmp_path: Path) -> None:
    """A republish without a generation, or with one of another log, is an error."""
    log, options = open_log(str(shop / "log")), beam_options(None)
    with pytest.raises(GenerationError, match="Nothing is published"):
        republish(log, "orders", str(tmp_path / "nowhere"), options)
    append(tmp_path / "other")
    with pytest.raises(GenerationError, match="built from another log"):
        republish(open_log(str(tmp_path / "other" / "log")), "orders", str(shop / "read-models"), options)


def test_of_two_that_refresh_at_once_none_is_lost(shop: Path) -> None:
    """The second builds on the generation that the first published."""
    append(shop)

    def another(progress: Any) -> None:
        if progress.phase == "publish" and len(the_generations(shop).all()) == 1:
            append(shop)
            refreshed(shop)

    done = refreshed(shop, report=another)
    assert [g.number for g in the_generations(shop).all()] == [1, 2, 3]
    assert done.published is not None
    assert (done.published.parent, on_hand(shop)) == (2, 18)


# As a scheduler runs it


def run(*arguments: str, folder: Path, code: int) -> Any:
    """Run the command as a process, and give its report."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "refold", "refresh", "--json", *arguments]
    command += ["--log", "log", "--read-models", "read-models"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert code == 1 or done.stderr == ""
    return json.loads(done.stdout) if done.stdout else done.stderr


def tampered(folder: Path) -> Generation:
    """Publish a generation with one row that no event made."""
    generations = the_generations(folder)
    newest = generations.newest()
    assert newest is not None
    path = generations.working_copy(newest, folder)
    path.chmod(0o600)
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute("UPDATE inventory_status SET on_hand = on_hand + 1")
    file, size = generations.upload(path)
    wrong = dataclasses.replace(newest, number=newest.number + 1, file=file, bytes=size)
    assert generations.publish(wrong)
    return wrong


@pytest.mark.slow
def test_the_report_has_all_that_was_done(shop: Path) -> None:
    """The command prints one JSON result and nothing on stderr, and exits with 0."""
    append(shop)
    result = run("--verify", folder=shop, code=0)
    assert (result["published"], result["generation"], result["position"], result["caught_up"]) == (
        True,
        2,
        5,
        1,
    )
    assert (result["rebuilt"], result["removed"], result["verified"]["agree"]) == ([], [], True)
    assert result["tables"]["inventory_status"] == 1


@pytest.mark.slow
def test_rows_that_no_event_made_have_an_exit_code(shop: Path) -> None:
    """The exit code is 4, and the report has the table, the key and both values."""
    wrong = tampered(shop)
    result = run("--verify", folder=shop, code=4)
    assert (result["published"], result["generation"]) == (False, wrong.number)
    [difference] = result["verified"]["differences"]
    assert difference["table"] == "inventory_status"
    assert difference["examples"][0]["key"] == {"sku": "cup"}


def test_a_failure_has_an_exit_code_and_leaves_what_was_published(shop: Path) -> None:
    """The exit code is 1, with one paragraph on stderr."""
    append(shop)
    (shop / "log" / "commits" / f"{5:020d}.parquet").write_bytes(b"no commit")
    assert "is damaged, or not a commit" in run(folder=shop, code=1)
    assert (len(the_generations(shop).all()), on_hand(shop)) == (1, 12)
