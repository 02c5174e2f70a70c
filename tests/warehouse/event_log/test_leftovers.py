"""Leftovers of dead writers are found; objects of the history or of a live writer never are."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from refold.warehouse.event_log import EventLog, create_log, verify
from refold.warehouse.event_log.archive import archive
from refold.warehouse.event_log.orphaned_objects import Leftover, delete_leftovers, log_leftovers
from refold.warehouse.object_store.store import TEMP_PREFIX
from tests.warehouse.event_log.shop import REGISTRY, prepare_seal, seal

DAY = timedelta(days=1)


def age(log: EventLog, by: timedelta = 2 * DAY) -> None:
    """Backdate all objects of a log."""
    then = time.time() - by.total_seconds()
    for path in Path(log.url).rglob("*"):
        os.utime(path, (then, then))


def put(log: EventLog, *keys: str) -> None:
    """Write some objects."""
    for key in keys:
        log.store.put(key, b"left")


def leftovers(log: EventLog) -> list[Leftover]:
    """Find leftovers older than a day."""
    return log_leftovers(log, before=datetime.now(UTC) - DAY)


def keys(log: EventLog) -> set[str]:
    """Return their keys."""
    return {left.key for left in leftovers(log)}


def test_a_sound_log_has_none(mixed: EventLog) -> None:
    """Sealed segments, imports and commits are referenced, whatever their age."""
    age(mixed)
    assert keys(mixed) == set()
    seal(mixed)
    age(mixed)
    assert keys(mixed) == set()


def test_replaced_segments_belong_to_older_manifests(mixed: EventLog) -> None:
    """A rebuild that was planned on one of them may still read them."""
    before = {s.key for s in mixed.manifest().segments}
    seal(mixed)
    assert before - {s.key for s in mixed.manifest().segments}, "no segment was replaced"
    age(mixed)
    assert keys(mixed) == set()


def test_a_seal_that_lost_its_race_or_died(mixed: EventLog) -> None:
    """Its segments and heads are unreferenced, and nothing reads its staged objects."""
    lost = prepare_seal(mixed)
    put(mixed, "staging/seal-dead/gathered/0.parquet", "staging/seal-dead/manifest.json")
    assert keys(mixed) == set(), "a seal under way is young"
    live = {s.key for s in mixed.manifest().segments} | {s.key for i in mixed.head().tail for s in i.segments}
    heads = {h.key for h in mixed.manifest().heads} | {h.key for i in mixed.head().tail for h in i.heads_runs}
    age(mixed)
    found = leftovers(mixed)
    written = ({s.key for s in lost.segments} | {h.key for h in lost.heads}) - live - heads
    assert written
    assert {left.key for left in found} == written | {
        "staging/seal-dead/gathered/0.parquet",
        "staging/seal-dead/manifest.json",
    }
    assert delete_leftovers(found) == sum(left.bytes for left in found) > 0
    assert verify(mixed, REGISTRY).sound
    assert not (Path(mixed.url) / "staging" / "seal-dead").exists()
    assert keys(mixed) == set()


def test_while_an_import_is_under_way_no_segment_is_left_over(mixed: EventLog) -> None:
    """An import references its segments only at its end; until then its staged objects show that it is alive."""
    orphan = "segments/event_type=Placed/schema_version=1/bucket=00/orphan.parquet"
    put(mixed, orphan, "staging/ingest-a/built/0001")
    age(mixed)
    assert keys(mixed) == {orphan, "staging/ingest-a/built/0001"}
    put(mixed, "staging/ingest-a/built/0002")
    assert keys(mixed) == set()


def test_payloads_of_an_import_that_died_are_removed(mixed: EventLog) -> None:
    """Its folder has the values of its files, which may be personal."""
    put(mixed, "staging/ingest-a/built/0001", "staging/ingest-a.lock")
    age(mixed)
    delete_leftovers(leftovers(mixed))
    assert list((Path(mixed.url) / "staging").iterdir()) == []


def test_a_file_that_an_appender_did_not_finish(mixed: EventLog) -> None:
    """It has a name that no listing shows, in the log or in its archive."""
    seal(mixed)
    cold = Path(mixed.url).parent / "cold"
    archive(mixed, before=datetime.now(UTC) + DAY, to=str(cold))
    unfinished = [Path(mixed.url, "commits", f"{TEMP_PREFIX}1"), cold / "segments" / f"{TEMP_PREFIX}2"]
    for path in unfinished:
        path.write_bytes(b"left")
    assert keys(mixed) == set(), "its writer may be alive"
    for path in unfinished:
        os.utime(path, (0, 0))
    found = leftovers(mixed)
    assert delete_leftovers(found) == 4 * len(unfinished)
    assert not any(path.exists() for path in unfinished)
    assert verify(mixed, REGISTRY).sound


@pytest.mark.parametrize("left", ["segments/event_type=A/schema_version=1/bucket=00/a.parquet", "heads/bucket=00/a"])
def test_on_a_remote_store(left: str) -> None:
    """The age of an object is that in the store."""
    log = create_log(f"memory://{uuid.uuid4().hex}", domain_name="shop", bucket_count=2)
    put(log, left)
    assert keys(log) == set()
    [found] = log_leftovers(log, before=datetime.now(UTC) + DAY)
    assert (found.key, found.bytes) == (left, 4)
    delete_leftovers([found])
    assert not log.store.exists(left)
