"""Imports into existing streams: where they are cut changes nothing of what their events mean."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from refold.event_schemas import UsageError
from refold.pipelines.ingest.ingest import ImportLimits, ingest
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.event_log import Appender, EventLog, create_log, read_positions, verify
from refold.warehouse.event_log.bulk_import import commit_ranges
from tests.pipelines.ingest.imports import TIME, lines
from tests.pipelines.ingest.meters import METERS, REF, MeterChanged

LIMITS = ImportLimits(chunk_rows=10, commit_events=5)


def meter(name: str, number: int, *, changed: bool = False) -> dict[str, Any]:
    """Make a row."""
    payload = {} if changed else {"value": number}
    event_type = "MeterChanged" if changed else "MeterRead"
    return {
        "stream_id": name,
        "event_type": event_type,
        "event_id": f"{number}",
        "occurred_at": TIME,
        "payload": payload,
    }


def histories() -> Iterator[list[dict[str, Any]]]:
    """Make one long run, runs of one stream after the other, and runs of several streams that overlap."""
    yield [meter("m-1", i) for i in range(33)]
    yield [meter(f"m-{i // 7}", i, changed=i % 7 == 6) for i in range(40)]
    chance = random.Random(10)
    yield [meter(f"m-{chance.randrange(3)}", i, changed=chance.random() < 0.3) for i in range(60)]


def series(log: EventLog, folder: Path) -> dict[str, list[int]]:
    """Return the sizes of the series of each meter."""
    rebuild(log, REF, str(folder))
    with duckdb.connect(str(folder / "meters" / "current.duckdb"), read_only=True) as models:
        return dict(models.execute("SELECT meter, sizes FROM series").fetchall())


def commits(log: EventLog) -> list[list[tuple[str, str]]]:
    """Return stream and type of the events of each commit."""
    found: dict[int, list[tuple[str, str]]] = {}
    for event in read_positions(log, METERS.registry, 0):
        found.setdefault(event.commit_number, []).append((event.stream_id, event.event_type))
    return list(found.values())


def expected_runs(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the lengths of the runs of each stream."""
    runs: dict[str, list[int]] = {}
    ended: set[str] = set()
    for one in rows:
        name = one["stream_id"]
        if one["event_type"] == "MeterChanged":
            ended.add(name)
            continue
        lengths = runs.setdefault(name, [])
        if not lengths or name in ended:
            lengths.append(0)
        ended.discard(name)
        lengths[-1] += 1
    return runs


def runs_of(log: EventLog) -> dict[str, list[int]]:
    """Return the lengths of the runs that mergers see: cut at other events of the stream, and at commits."""
    runs: dict[str, list[int]] = {}
    for commit in commits(log):
        rows = [{"stream_id": stream, "event_type": event_type} for stream, event_type in commit]
        for name, lengths in expected_runs(rows).items():
            runs.setdefault(name, []).extend(lengths)
    return runs


@pytest.mark.parametrize("rows", list(histories()), ids=["one run", "in turn", "overlapping"])
def test_no_run_of_a_merger_is_cut(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Through segments or commits, each run is in one commit; commits are as small as that allows."""
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*rows))
    new, old = (create_log(str(tmp_path / n), domain_name="meters", bucket_count=4) for n in ("new", "old"))
    Appender(old, METERS.registry).append("m-1", [MeterChanged()])
    assert ingest(new, REF, [str(path)], limits=LIMITS).mode == "segments"
    assert ingest(old, REF, [str(path)], limits=LIMITS).mode == "commits"
    assert runs_of(new) == runs_of(old) == expected_runs(rows)
    assert verify(old, METERS.registry).sound
    if len(expected_runs(rows)) > 3:
        assert len(commits(old)) > 4


def test_a_rebuild_sees_the_same_series(tmp_path: Path) -> None:
    """A read model of the merged events is the same in both logs."""
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*[meter("m-1", i) for i in range(33)]))
    new, old = (create_log(str(tmp_path / n), domain_name="meters", bucket_count=4) for n in ("new", "old"))
    Appender(old, METERS.registry).append("m-1", [MeterChanged()])
    for log in (new, old):
        ingest(log, REF, [str(path)], limits=LIMITS)
        assert series(log, tmp_path / f"models-{Path(log.url).name}") == {"m-1": [33]}


def test_a_run_that_no_commit_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not cut in silence; a new log takes it."""
    monkeypatch.setattr(commit_ranges, "MAX_EVENTS", 20)
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*[meter("m-1", i) for i in range(33)]))
    log = create_log(str(tmp_path / "log"), domain_name="meters", bucket_count=4)
    Appender(log, METERS.registry).append("m-1", [MeterChanged()])
    with pytest.raises(UsageError, match="from position 1 to 33, more than one commit"):
        ingest(log, REF, [str(path)], limits=LIMITS)
