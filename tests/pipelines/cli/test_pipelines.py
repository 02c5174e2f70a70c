"""Commands that run Beam, as processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from tests.pipelines.cli.running import HALF, RECEIVED, Call, answer, append, on_terminal, refold


@pytest.mark.slow
def test_from_a_file_to_an_answer(tmp_path: Path) -> None:
    """Import into a new log, seal, rebuild and query work in pipes, with nothing on stderr."""
    adjusted = {"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2025-01-01T00:00:00Z"}
    lines = [{**adjusted, "payload": {"sku": "cup", "quantity": n, "reason": "counted"}} for n in (5, -2)]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    beam = ("--quiet", "--", "--direct_num_workers=1")
    imported = refold(
        "ingest", "history.jsonl", "--domain", "orders", "--buckets", "2", "--json", *beam, folder=tmp_path
    )
    assert (answer(imported)["events"], imported.stderr) == (2, "")
    append(tmp_path / "refold-data", RECEIVED)
    sealed = refold("seal", "--json", *beam, folder=tmp_path)
    assert (answer(sealed)["events"], sealed.stderr) == (1, "")
    rebuilt = refold("rebuild", "--json", *beam, folder=tmp_path)
    assert (answer(rebuilt)["position"], rebuilt.stderr) == (3, "")
    stock = answer(refold("query", "--json", "FROM inventory_status", folder=tmp_path))
    assert [row["on_hand"] for row in stock["rows"]] == [6]


def test_a_misspelt_file_leaves_no_log_behind(tmp_path: Path) -> None:
    """A failed import creates no log."""
    assert "There is no file 'nope.jsonl'" in refold("ingest", "nope.jsonl", folder=tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_some_read_models_are_rebuilt_beside_the_others(shop: Path) -> None:
    """Selected by name or --only; the generation has all read models at one position."""
    append(shop, RECEIVED)
    document = answer(refold("rebuild", "inventory_status", "--only", "purchase_cost", "--json", folder=shop))
    assert (document["generation"], document["dead_letters"]) == (2, 0)
    assert document["tables"].keys() == {m.name for m in ORDERS.read_models}
    stock = answer(refold("query", "--json", "FROM inventory_status WHERE sku = 'cup'", folder=shop))
    assert stock["position"] == document["position"]
    assert stock["rows"][0]["on_hand"] == 3


def test_rebuild_refuses_a_name_that_is_no_read_model_before_it_starts_beam(call: Call, made: Path) -> None:
    """The error lists the read models."""
    assert "order_summary" in call("rebuild", "orders", folder=made, code=2).stderr


@pytest.mark.slow
def test_an_invalid_event_stops_a_rebuild_or_becomes_a_dead_letter(shop: Path) -> None:
    """A stopped rebuild publishes nothing; with dead letters, all other events are applied."""
    append(shop, HALF, stream_id="order-half")
    stopped = refold("rebuild", "order_summary", "--quiet", folder=shop, code=1)
    assert "CityChanged is missing" in stopped.stderr
    assert len(stopped.stderr.splitlines()) == 1
    kept = refold("rebuild", "order_summary", "--dead-letter", folder=shop)
    assert "1 open dead letter: see" in kept.stderr
    letters = answer(refold("query", "--json", "FROM refold.dead_letters", folder=shop))
    assert {row["stream_id"] for row in letters["rows"]} == {"order-half"}
    assert letters["generation"] == 2


@pytest.mark.slow
def test_a_rebuild_shows_its_phases_on_a_terminal(shop: Path) -> None:
    """Bars with staged and planned objects; nothing of Beam's own."""
    shown = on_terminal("rebuild", "inventory_status", folder=shop)
    for part in ("seal", "replay", "load", "catch up", "publish", "Published generation 2"):
        assert part in shown
    done, planned = re.findall(r"(\d+)/(\d+)", shown)[-1]
    assert done == planned
    assert "apitools" not in shown


@pytest.mark.slow
def test_nothing_of_beam_is_heard_from_worker_processes(shop: Path) -> None:
    """Workers write to descriptor 2 directly, before their logging can be configured."""
    beam = ("--quiet", "--", "--direct_running_mode=multi_processing", "--direct_num_workers=1")
    assert refold("rebuild", "inventory_status", "--json", *beam, folder=shop).stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_rebuild_that_is_stopped_leaves_what_was_published(shop: Path, number: signal.Signals) -> None:
    """It prints one word, exits with the code of Ctrl-C and leaves no scratch file; the next run publishes."""
    command = [sys.executable, "-m", "refold", "rebuild", "inventory_status", "--quiet"]
    staging = shop / "read-models" / "orders" / "staging"
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(staging.glob("*/plan.json")):
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "Stopped.\n")
    assert not list((shop / "read-models" / "orders").glob("work/*"))
    assert [g.number for g in open_generations(str(shop / "read-models"), "orders").all()] == [1]


@pytest.mark.slow
def test_an_import_that_loses_rows_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """Code 6, each time, with the reasons on the screen and in JSON; 0 within --max-rejects; beyond it nothing."""
    adjusted = {"stream_id": "stock-cup", "event_type": "StockAdjusted", "occurred_at": "2025-01-01T00:00:00"}
    lines = [{**adjusted, "payload": {"sku": "cup", "quantity": n, "reason": "counted"}} for n in (5, "NA")]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "none.jsonl").write_text(json.dumps(lines[1]))
    (tmp_path / "empty.jsonl").write_text("")
    given = ("--domain", "orders", "--buckets", "2", "--quiet")
    beam = ("--", "--direct_num_workers=1")
    limited = refold("ingest", "some.jsonl", "--max-rejects", "0", *given, *beam, folder=tmp_path, code=6)
    assert "1 of 2 rows are invalid, more than --max-rejects 0 allows" in limited.stderr
    assert "'NA'" in limited.stderr
    nothing = refold("ingest", "none.jsonl", *given, *beam, folder=tmp_path, code=6)
    assert "1 row: quantity: expected int64; first at none.jsonl, line 1" in " ".join(nothing.stderr.split())
    some = answer(refold("ingest", "some.jsonl", "--json", *given, *beam, folder=tmp_path, code=6))
    assert [(r["reason"], r["rows"], r["line"]) for r in some["reasons"]] == [("quantity: expected int64", 1, 2)]
    assert some["local_times"] == 2
    again = refold("ingest", "some.jsonl", *given, *beam, folder=tmp_path, code=6)
    assert "already in the log" in again.stdout
    assert "1 row: quantity: expected int64; first at some.jsonl, line 2" in " ".join(again.stderr.split())
    within = refold("ingest", "some.jsonl", "--max-rejects", "50%", "--json", *given, *beam, folder=tmp_path)
    assert (answer(within)["already"], answer(within)["rejected"]) == (True, 1)
    beyond = refold("ingest", "some.jsonl", "--max-rejects", "49%", *given, *beam, folder=tmp_path, code=6)
    assert "1 of 2 rows are invalid, more than --max-rejects 49% allows" in beyond.stderr
    assert "These files were imported without them" in beyond.stderr
    empty = refold("ingest", "empty.jsonl", "--max-rejects", "0", *given, *beam, folder=tmp_path)
    assert "the files have no rows" in empty.stdout


def test_a_demo_needs_a_folder_on_this_machine(call: Call, tmp_path: Path) -> None:
    """A URL makes no folder of that name."""
    assert (
        "needs a folder on this machine" in call("demo", "--folder", "s3://bucket/demo", folder=tmp_path, code=2).stderr
    )
    assert not list(tmp_path.iterdir())
