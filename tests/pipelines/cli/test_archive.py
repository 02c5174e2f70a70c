"""``refold archive`` by the command line, and every read model equal afterwards."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from refold.event_schemas.orders import OrderPlaced
from refold.warehouse.event_log import Appender, open_log
from refold.warehouse.orders import ORDERS
from tests.pipelines.cli.running import Call, answer, refold


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of a sealed history, made once."""
    folder = tmp_path_factory.mktemp("archived")
    refold("demo", "--events", "2000", "--json", folder=folder)
    return folder / "demo-data"


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """A demo of one's own, with an order that was placed a moment ago."""
    folder = shutil.copytree(made, tmp_path / "shop", symlinks=True)
    placed = OrderPlaced(order_id="order-new", customer_id="c", currency="EUR", deliver_on=None)
    Appender(open_log(str(folder / "log")), ORDERS.registry).append("order-new", [placed])
    return folder


@pytest.mark.slow
def test_archived_rebuilt_and_restored(shop: Path, call: Call) -> None:
    """Rebuilds read both places; a plan shows the cost; --hot-only refuses; all comes back."""
    cold = str(shop / "cold")
    call("seal", folder=shop)
    call("rebuild", "--all", folder=shop)
    planned = answer(call("archive", "--before", "0s", "--to", cold, "--dry-run", "--json", folder=shop))
    assert not Path(cold).exists()
    moved = answer(call("archive", "--before", "0s", "--to", cold, "--json", folder=shop))
    assert (moved["segments"], moved["events"]) == (planned["segments"], planned["events"])
    assert moved["events"] == open_log(str(shop / "log")).head().position

    assert "of it archived" in call("events", "stats", folder=shop).stdout
    plan = answer(call("plan", "--all", "--archive-price", "1000000", "--json", folder=shop, code=5))
    assert 0 < plan["archived_bytes"] <= moved["bytes"]
    assert plan["archive_cost"] == pytest.approx(plan["archived_bytes"] / 1000, abs=0.01)
    shown = call("plan", "--all", "--archive-price", "1000000", folder=shop, code=5).stdout
    assert "from the archive, which costs" in shown
    refused = call("rebuild", "--all", "--hot-only", folder=shop, code=2)
    assert "needs" in refused.stderr
    assert f"from the archive {cold}" in refused.stderr

    verified = answer(call("rebuild", "--verify", "--json", folder=shop))["verified"]
    assert len(verified["agreed"]) == len(ORDERS.read_models)
    call("events", "verify", folder=shop)
    assert answer(call("archive", "restore", "--json", folder=shop))["events"] == moved["events"]
    call("rebuild", "--all", "--hot-only", folder=shop)
    assert "Nothing to restore" in call("archive", "restore", folder=shop).stdout


def test_times_and_usage(shop: Path, call: Call) -> None:
    """A date, a time with its offset, or an age; anything else says what to write."""
    cold = str(shop / "cold")
    for text in ("2020-01-01", "2020-01-01T12:00:00+02:00", "3650d"):
        shown = call("archive", "--before", text, "--to", cold, "--dry-run", folder=shop).stdout
        assert "Nothing to move: no sealed segment has only events recorded before" in shown
    for text in ("yesterday", "2020-01-01T12:00:00", "99999999999999d"):
        assert "write 2025-01-01" in call("archive", "--before", text, "--to", cold, folder=shop, code=2).stderr
    assert "Give --before and --to" in call("archive", "--to", cold, folder=shop, code=2).stderr
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert (
        "must be outside of the log"
        in call("archive", "--before", later, "--to", "log/cold", folder=shop, code=2).stderr
    )


@pytest.mark.slow
def test_the_window_of_what_is_kept(shop: Path, call: Call) -> None:
    """It is a setting: of the file, of the environment, or of one run."""
    assert answer(call("log", "gc", "--json", folder=shop)) == {"removed": False, "bytes": 0, "objects": []}
    settings = shop / "refold.toml"
    text = settings.read_text()
    settings.write_text(f'window = "10m"\n{text}')
    assert "an hour or more" in call("log", "gc", folder=shop, code=2).stderr
    settings.write_text(f'window = "soon"\n{text}')
    assert "The window: 'soon' is no duration; write 5s" in call("log", "gc", folder=shop, code=2).stderr
    call("log", "gc", "--window", "2h", folder=shop)


@pytest.mark.slow
def test_an_independent_check_reads_the_archive(shop: Path, call: Call) -> None:
    """Where the commits were removed, the events are in archived segments only."""
    call("seal", folder=shop)
    call("rebuild", "--all", folder=shop)
    call("archive", "--before", "0s", "--to", str(shop / "cold"), folder=shop)
    for path in (shop / "log").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert answer(call("log", "gc", "--window", "1h", "--yes", "--json", folder=shop))["bytes"] > 0
    call("reconcile", "--independent", folder=shop)
