"""What ``refold status`` says of the lag, and with which exit code."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.object_store.records import checked_content, encode_record
from refold.warehouse.orders import ORDERS
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.lag import checkpoint_of, find_end, lag_of
from tests.pipelines.cli.running import EVENTS, RECEIVED, Call, answer, append


def test_status_of_what_is_caught_up(call: Call, made: Path) -> None:
    """Head, generation, no lag, and every read model at the generation's position."""
    document = answer(call("status", "--json", folder=made))
    head = document["log"]["position"]
    assert head >= EVENTS
    assert document["lag"] == {"events": 0, "seconds": 0.0}
    assert document["generation"]["number"] == 1
    assert {m["position"] for m in document["read_models"]} == {document["generation"]["position"]} == {head}
    assert {m["name"] for m in document["read_models"]} == {m.name for m in ORDERS.read_models}
    assert document["read_models"][0]["last_updated"] == document["generation"]["last_updated"]
    shown = call("status", folder=made).stdout
    assert "Lag         none" in shown
    assert "order_summary" in shown


def test_status_before_anything_is_published(call: Call, shop: Path) -> None:
    """Status is not an error without read models: it names the next step."""
    document = answer(call("status", "--json", "--read-models", "elsewhere", folder=shop))
    assert document["generation"] is None
    assert document["lag"]["events"] == document["log"]["position"]
    assert document["lag"]["seconds"] > 0
    assert "nothing is published yet" in call("status", "--read-models", "elsewhere", folder=shop).stdout


def test_the_lag_is_the_age_of_the_oldest_event_that_is_not_shown(shop: Path) -> None:
    """The age is read from the footer of the first commit that the generation lacks."""
    newest = open_generations(str(shop / "read-models"), "orders").newest()
    assert newest is not None
    append(shop, RECEIVED)
    log = append(shop, RECEIVED, RECEIVED)
    first = log.commit_info(newest.commit_number + 1)
    assert first is not None
    least = (datetime.now(UTC) - first.recorded_at).total_seconds()
    lag = lag_of(log, find_end(log), checkpoint_of(newest))
    most = (datetime.now(UTC) - first.recorded_at).total_seconds()
    assert lag.events == 3
    assert lag.seconds is not None
    assert least - 0.001 <= lag.seconds <= most + 0.001


def test_the_lag_is_known_when_the_commit_is_collected(shop: Path) -> None:
    """If the sealed commit is deleted, status reports a lower bound of the lag."""
    newest = open_generations(str(shop / "read-models"), "orders").newest()
    assert newest is not None
    log = append(shop, RECEIVED)
    end = find_end(log)
    log.store.delete(commit_key(end.commit_number))
    lag = lag_of(log, end, checkpoint_of(newest))
    assert lag.events == 1
    assert lag.seconds is not None
    assert lag.seconds > 0


def test_a_lag_beyond_the_objective_has_an_exit_code(call: Call, shop: Path) -> None:
    """The exit code is 4, for alerts of a scheduler."""
    call("status", "--max-lag", "0", folder=shop)
    append(shop, RECEIVED)
    call("status", "--max-lag", "3600", folder=shop)
    assert "above --max-lag" in call("status", "--max-lag", "0", "--json", folder=shop, code=4).stderr


def test_read_models_of_another_log_are_not_compared(call: Call, shop: Path) -> None:
    """Status shows no lag: the positions belong to another log."""
    path = shop / "log" / "refold.json"
    config = json.loads(checked_content(path.read_bytes()))
    path.unlink()
    path.write_bytes(encode_record({**config, "log_id": "another"}))
    result = call("status", "--json", folder=shop)
    assert answer(result)["lag"]["seconds"] is None
    assert "another log" in result.stderr
