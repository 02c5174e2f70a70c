"""``refold events``: what is in the log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.pipelines.cli.running import RECEIVED, Call, answer, append


def test_tail_shows_the_last_events(call: Call, made: Path) -> None:
    """The newest last, every column of the log."""
    document = answer(call("events", "tail", "--count", "3", "--json", folder=made))
    positions = [event["position"] for event in document["events"]]
    assert positions == [document["position"] - 2, document["position"] - 1, document["position"]]
    assert set(document["events"][0]) >= {"stream_id", "event_type", "schema_version", "correlation_id", "payload"}
    assert len(call("events", "tail", "-n", "3", folder=made).stdout.splitlines()) == 3


def test_stream_shows_one_stream_or_a_part_of_it(call: Call, made: Path) -> None:
    """By stream version; a stream that is not there has no events."""
    whole = answer(call("events", "stream", "order-000001", "--json", folder=made))["events"]
    assert [event["stream_version"] for event in whole] == list(range(1, len(whole) + 1))
    part = answer(call("events", "stream", "order-000001", "--from", "2", "--to", "3", "--json", folder=made))["events"]
    assert part == whole[1:3]
    nothing = call("events", "stream", "nobody", folder=made)
    assert (nothing.stdout, nothing.stderr) == ("", "No events.\n")


def test_trace_follows_a_correlation(call: Call, made: Path) -> None:
    """Across streams, with what caused each event."""
    found = answer(call("events", "trace", "cart-000001", "--json", folder=made))["events"]
    assert {event["correlation_id"] for event in found} == {"cart-000001"}
    assert found[0]["event_type"] == "OrderPlaced"
    assert f"caused by {found[0]['causation_id']}" in call("events", "trace", "cart-000001", folder=made).stdout


def test_tail_follows_new_commits_until_ctrl_c(shop: Path) -> None:
    """Each event is one JSON document on a line; Ctrl-C is how it ends, not an error."""
    command = [sys.executable, "-m", "refold", "events", "tail", "-n", "1", "--follow", "--json"]
    with subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last = json.loads(process.stdout.readline())["position"]
        append(shop, RECEIVED, RECEIVED)
        append(shop, RECEIVED)
        followed = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
    assert [event["position"] for event in followed] == [last + 1, last + 2, last + 3]
    assert followed[0]["payload"]["unit_cost"] == "1.5000"


def test_stats_count_events_by_shape(call: Call, made: Path) -> None:
    """Counts per schema add up to the events of the log."""
    document = answer(call("events", "stats", "--json", folder=made))
    assert sum(schema_key["events"] for schema_key in document["schemas"]) == document["events"]
    assert "OrderPlaced v1" in call("events", "stats", folder=made).stdout


def test_verify_finds_damage(call: Call, shop: Path) -> None:
    """Exit code 1, and each finding says where."""
    assert answer(call("events", "verify", "--json", folder=shop))["sound"]
    [segment, *_] = (shop / "log" / "segments").rglob("*.parquet")
    damaged = segment.read_bytes()[:-8]
    segment.unlink()
    segment.write_bytes(damaged)
    document = answer(call("events", "verify", "--json", folder=shop, code=1))
    assert not document["sound"]
    assert segment.name in call("events", "verify", folder=shop, code=1).stdout
