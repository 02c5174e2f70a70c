"""Old segments move to an archive and back; every reader sees the same events at any step."""

from __future__ import annotations

import dataclasses
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from refold.event_schemas import DamagedLogError, LogError, UsageError
from refold.warehouse.event_log import Appender, EventLog, create_log, manifest, read_positions, stats, verify
from refold.warehouse.event_log import archive as archives
from refold.warehouse.event_log import seal as sealing
from refold.warehouse.event_log.archive import Moved, archive, restore, to_archive
from refold.warehouse.event_log.orphaned_objects import delete_leftovers, log_leftovers
from refold.warehouse.event_log.repair import repair
from refold.warehouse.event_log.retention import apply_retention, plan_retention
from tests.warehouse.event_log.shop import REGISTRY, Placed, added, bulk_import, seal

IMPORTED = [("order-8", Placed(customer="c", currency="EUR")), ("order-8", added())]


@pytest.fixture
def cut(log: EventLog, appender: Appender) -> datetime:
    """A log with commits and an import before a time, and commits after it; all sealed."""
    for turn in range(3):
        appender.append(f"order-{turn}", [Placed(customer="c", currency="EUR"), added()])
    bulk_import(log, "history", IMPORTED)
    seal(log)
    last = max(datetime.fromisoformat(s.last_recorded_at) for s in log.manifest().segments)
    between = last + timedelta(microseconds=1)
    appender = Appender(log, REGISTRY)
    for turn in range(3):
        appender.append(f"order-{turn}", [added()])
    with patch.object(sealing, "_MERGE_FACTOR", 0):  # a large log's old segments are not merged either
        seal(log)
    return between


@pytest.fixture(params=["folder", "memory"])
def cold(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an archive: a folder, or another store."""
    return str(tmp_path / "cold") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


def everything(log: EventLog) -> list[object]:
    """Return all events."""
    return list(read_positions(log, REGISTRY, 0))


def age(*folders: str) -> None:
    """Make all files of some folders look ten days old."""
    for path in (p for folder in folders for p in Path(folder).rglob("*")):
        os.utime(path, (time.time() - 10 * 86_400,) * 2)


def test_every_reader_sees_the_same(log: EventLog, cut: datetime, cold: str) -> None:
    """Events, statistics and verification are those of before; only what is old has moved."""
    before, counted = everything(log), stats(log)
    old = to_archive(log, cut)
    moved = archive(log, before=cut, to=cold)
    assert (moved.segments, moved.events) == (len(old), sum(s.rows for s in old))
    assert {s.archive for s in log.manifest().segments} == {"", cold}
    assert everything(log) == before
    assert stats(log) == dataclasses.replace(counted, archived_bytes=moved.bytes)
    assert verify(log, REGISTRY).sound
    assert verify(log, REGISTRY, fast=True).sound
    assert archive(log, before=cut, to=cold) == Moved()


def test_new_events_are_sealed_beside_it(log: EventLog, cut: datetime, cold: str) -> None:
    """A seal merges small segments, but none of the archive."""
    archive(log, before=cut, to=cold)
    archived = {s.key for s in log.manifest().segments if s.archive}
    Appender(log, REGISTRY).append("order-1", [added()])
    seal(log)
    assert {s.key for s in log.manifest().segments if s.archive} == archived
    assert verify(log, REGISTRY).sound


def test_what_was_copied_is_removed_after_the_window(log: EventLog, cut: datetime, tmp_path: Path) -> None:
    """Before that, the log still holds it for readers that have an older manifest."""
    cold, before = str(tmp_path / "cold"), everything(log)
    archive(log, before=cut, to=cold)
    held = set(log.store.list_from("segments"))
    assert plan_retention(log, window=timedelta(days=7)).objects == ()
    age(log.url, cold)
    apply_retention(log, plan_retention(log, window=timedelta(days=7)))
    live = {s.key for s in log.manifest().segments if not s.archive}
    assert set(log.store.list_from("segments")) == live < held
    assert log_leftovers(log, before=datetime.now(UTC)) == []
    assert (everything(log), verify(log, REGISTRY).findings) == (before, ())


def test_restored(log: EventLog, cut: datetime, tmp_path: Path) -> None:
    """All is in the log again; the archive's objects are removed after the window."""
    cold, before = str(tmp_path / "cold"), everything(log)
    moved = archive(log, before=cut, to=cold)
    age(log.url, cold)
    apply_retention(log, plan_retention(log, window=timedelta(days=7)))
    assert restore(log, after=datetime.now(UTC)) == Moved()
    assert restore(log).events == moved.events
    assert {s.archive for s in log.manifest().segments} == {""}
    age(log.url, cold)
    Appender(log, REGISTRY).append("order-1", [added()])
    seal(log)
    age(log.url, cold)
    apply_retention(log, plan_retention(log, window=timedelta(days=7)))
    assert not list(Path(cold).rglob("*.parquet"))
    assert everything(log)[: len(before)] == before
    assert archive(log, before=cut, to=cold).events > 0
    assert (everything(log)[: len(before)], verify(log, REGISTRY).findings) == (before, ())


@pytest.mark.parametrize("copied", range(3))
def test_a_killed_run_is_completed(log: EventLog, cut: datetime, cold: str, copied: int) -> None:
    """Copied or not: the log stays as it was until the manifest, and the next run finds the copies."""
    before, copy = everything(log), archives._copy
    answers: Iterator[None] = iter([None] * copied)

    def killed(*arguments: object) -> int:
        next(answers)
        return copy(*arguments)  # type: ignore[arg-type]

    with patch.object(archives, "_copy", killed), pytest.raises(RuntimeError):
        archive(log, before=cut, to=cold)
    assert (everything(log), verify(log, REGISTRY).findings) == (before, ())
    archive(log, before=cut, to=cold)
    assert (everything(log), verify(log, REGISTRY).findings) == (before, ())


def test_a_seal_meanwhile(log: EventLog, cut: datetime, cold: str) -> None:
    """The manifest is made again from the newest one."""
    publish, before = manifest.publish, everything(log)
    Appender(log, REGISTRY).append("order-1", [added()])

    def overtaken(*arguments: object) -> bool:
        with patch.object(manifest, "publish", publish):
            if log.head().tail:
                seal(log)
        return publish(*arguments)  # type: ignore[arg-type]

    with patch.object(manifest, "publish", overtaken):
        moved = archive(log, before=cut, to=cold)
    assert moved.manifest == log.manifest().number
    assert everything(log)[: len(before)] == before
    assert verify(log, REGISTRY).sound


def test_a_lost_copy_is_a_leftover(log: EventLog, cut: datetime, tmp_path: Path) -> None:
    """What a run that died has copied to a known archive is found by the collection."""
    cold = tmp_path / "cold"
    archive(log, before=cut, to=str(cold))
    stray = next(cold.rglob("*.parquet")).with_name("00000-moved9.parquet")
    stray.write_bytes(b"copied")
    [found] = log_leftovers(log, before=datetime.now(UTC) + timedelta(hours=1))
    assert (found.store_url, Path(found.key).name) == (str(cold), stray.name)
    assert delete_leftovers([found]) == 6
    assert verify(log, REGISTRY).sound


def test_damage_in_the_archive_is_found_and_repaired(log: EventLog, cut: datetime, tmp_path: Path) -> None:
    """A rebuild refuses it, and it is made again from its commits, in the log."""
    cold, before = tmp_path / "cold", everything(log)
    archive(log, before=cut, to=str(cold))
    damaged = next(s for s in log.manifest().segments if s.archive and not s.commit_base)
    path = Path(log.url_of(damaged))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedLogError, match=str(path)):
        everything(log)
    assert [f.where for f in verify(log, REGISTRY).findings] == [str(path)]
    path.unlink()
    assert [f.where for f in verify(log, REGISTRY, fast=True).findings] == [str(path)]
    assert repair(log, REGISTRY).segments == (damaged.key,)
    assert (everything(log), verify(log, REGISTRY).findings) == (before, ())


def test_a_copy_is_read_back(log: EventLog, cut: datetime, tmp_path: Path) -> None:
    """A store that keeps other bytes than it was given moves nothing."""
    before = log.manifest()
    with patch("refold.warehouse.object_store.local.LocalStore.put_file", autospec=True) as put:
        put.side_effect = lambda store, key, _: store.put(key, b"something else")
        with pytest.raises(DamagedLogError, match="right after it was written"):
            archive(log, before=cut, to=str(tmp_path / "cold"))
    assert log.manifest() == before


def test_an_archive_belongs_to_one_log(log: EventLog, cut: datetime, cold: str, tmp_path: Path) -> None:
    """A second log is refused, and so is a place inside the log."""
    archive(log, before=cut, to=cold)
    other = create_log(str(tmp_path / "other"), domain_name="shop")
    Appender(other, REGISTRY).append("order-1", [Placed(customer="c", currency="EUR")])
    seal(other)
    now = datetime.now(UTC) + timedelta(minutes=1)
    with pytest.raises(LogError, match=f"holds events of the log {log.log_id}"):
        archive(other, before=now, to=cold)
    for inside in (log.url, f"{log.url}/cold", str(Path(log.url).parent)):
        with pytest.raises(UsageError, match="must be outside"):
            archive(log, before=now, to=inside)
