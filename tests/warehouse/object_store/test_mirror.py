"""The cache of remote objects: bounded, and nothing that is in use is deleted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from refold.event_schemas import UsageError
from refold.warehouse.object_store import mirror
from refold.warehouse.object_store.mirror import mirrored

HOUR = 3600


@pytest.fixture(autouse=True)
def _nothing_is_downloaded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.warehouse.object_store.mirror._downloaded", {})
    monkeypatch.setenv("REFOLD_CACHE_BYTES", "1000")


def add(cache: Path, name: str, *, size: int = 400, hours_ago: float = 0) -> Path:
    """Cache an object, and set when it was used last."""

    def download(copy: Path) -> None:
        copy.write_bytes(b"x" * size)

    path = mirrored(cache, f"segments/{name}.parquet", name, download)
    if hours_ago:
        used = path.stat().st_mtime - hours_ago * HOUR
        os.utime(path, (used, path.stat().st_mtime))
    return path


def test_what_was_used_least_recently_is_deleted(tmp_path: Path) -> None:
    """With its folders, so that nothing grows; a copy that was used again is kept, and its time of change too."""
    old, older = add(tmp_path, "old", hours_ago=2), add(tmp_path, "older", hours_ago=3)
    oldest = add(tmp_path, "oldest", size=200, hours_ago=4)
    before = older.stat().st_mtime_ns
    assert add(tmp_path, "older") == older
    assert older.stat().st_mtime_ns == before
    new = add(tmp_path, "new")
    assert (new.exists(), older.exists(), old.exists(), oldest.exists()) == (True, True, False, False)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([new.parents[1].name, older.parents[1].name])


def test_what_may_be_in_use_is_kept(tmp_path: Path) -> None:
    """A reader may not have opened it yet."""
    paths = [add(tmp_path, str(number), hours_ago=0.5) for number in range(5)]
    assert all(path.exists() for path in paths)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """An import of another process has its files beside the copies."""
    other = tmp_path / "ingest" / "part"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"x" * 5_000)
    os.utime(other, (0, 0))
    add(tmp_path, "a")
    assert other.exists()


def test_many_processes_share_a_cache(tmp_path: Path) -> None:
    """While copies are added and deleted, each reader gets a file that exists."""
    failures: list[BaseException] = []

    def use(worker: int) -> None:
        try:
            for number in range(60):
                path = add(tmp_path, str((worker + number) % 7), hours_ago=2 if number % 2 else 0)
                assert number % 2 or path.stat().st_size == 400
        except FileNotFoundError:
            pass  # of the test's own look: it had set the time of another's copy back
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("text", ["20GB", "-1", "0", "1.5", "٣"])
def test_an_invalid_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """It is a usage error that says what to give."""
    monkeypatch.setenv("REFOLD_CACHE_BYTES", text)
    with pytest.raises(UsageError, match="REFOLD_CACHE_BYTES"):
        add(tmp_path, "a")
    assert mirror.CACHE_BYTES == 20 << 30
