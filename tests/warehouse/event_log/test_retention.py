"""What a log no longer needs is removed after a window, and nobody misses it."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from refold.event_schemas import UsageError
from refold.warehouse.event_log import Appender, EventLog, read_positions, read_stream, verify
from refold.warehouse.event_log.layout import COMMITS, MANIFESTS
from refold.warehouse.event_log.retention import MIN_WINDOW, apply_retention, plan_retention
from tests.warehouse.event_log.shop import REGISTRY, Placed, added, bulk_import, seal

WINDOW = timedelta(days=7)
IMPORTED = [("order-8", Placed(customer="c", currency="EUR")), ("order-8", added())]


@pytest.fixture
def old(log: EventLog, appender: Appender) -> EventLog:
    """A log that was sealed five times, an import among that, ten days ago; and once today."""
    for turn in range(5):
        appender.append(f"order-{turn}", [Placed(customer="c", currency="EUR"), added()])
        if turn == 2:
            bulk_import(log, "history", IMPORTED)
            appender = Appender(log, REGISTRY)
        seal(log)
    for path in Path(log.url).rglob("*"):
        os.utime(path, (time.time() - 10 * 86_400,) * 2)
    appender.append("order-1", [added()])
    seal(log)
    appender.append("order-1", [added()])
    return log


def test_all_events_are_there_afterwards(old: EventLog) -> None:
    """Sealed commits, old manifests, and the segments that were merged into others are removed."""
    before = list(read_positions(old, REGISTRY, 0))
    planned = plan_retention(old, window=WINDOW)
    assert apply_retention(old, planned) == sum(left.bytes for left in planned.objects) > 0
    assert list(read_positions(old, REGISTRY, 0)) == before
    found = verify(old, REGISTRY)
    assert (found.findings, found.unchecked, found.events) == ((), (), len(before))
    commits = [int(Path(key).stem) for key in old.store.list_from(COMMITS)]
    [imported] = old.manifest().imports.values()
    assert commits == [imported, *range(old.manifest().removed_before, commits[-1] + 1)]
    live = {s.key for s in old.manifest().segments}
    assert {key for key in planned_keys(old) if key.startswith("segments/")} == set()
    assert live <= set(old.store.list_from("segments"))


def planned_keys(log: EventLog) -> list[str]:
    """Return what would be removed now."""
    return [left.key for left in plan_retention(log, window=WINDOW).objects]


def test_a_second_run_removes_nothing(old: EventLog) -> None:
    """So does a run on a log that is younger than the window."""
    apply_retention(old, plan_retention(old, window=WINDOW))
    assert planned_keys(old) == []
    assert plan_retention(old, window=timedelta(days=90)).objects == ()


def test_a_killed_run_is_completed(old: EventLog) -> None:
    """Objects are removed one after the other; the next run removes the rest."""
    before = list(read_positions(old, REGISTRY, 0))
    planned = plan_retention(old, window=WINDOW)
    apply_retention(old, type(planned)(planned.removed_before, planned.objects[: len(planned.objects) // 2]))
    assert verify(old, REGISTRY).sound
    apply_retention(old, plan_retention(old, window=WINDOW))
    assert planned_keys(old) == []
    assert list(read_positions(old, REGISTRY, 0)) == before


def test_the_import_is_known_afterwards(old: EventLog) -> None:
    """An import that is run again still finds that it was published."""
    apply_retention(old, plan_retention(old, window=WINDOW))
    events = old.head().position
    bulk_import(old, "history", IMPORTED)
    assert old.head().position == events


def test_an_appender_goes_on(old: EventLog) -> None:
    """It appends behind the end, with the right versions."""
    sleeper = Appender(old, REGISTRY)
    sleeper.append("order-4", [added()])
    apply_retention(old, plan_retention(old, window=WINDOW))
    sleeper.append("order-4", [added()])
    assert [e.stream_version for e in read_stream(old, REGISTRY, "order-4")] == [1, 2, 3, 4]
    assert len(list(old.store.list_from(MANIFESTS))) >= 2


def test_a_short_window_is_refused(old: EventLog) -> None:
    """Readers and writers rely on what they have read for a while."""
    with pytest.raises(UsageError, match="The window is"):
        plan_retention(old, window=MIN_WINDOW / 2)
