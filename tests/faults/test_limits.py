"""Few open files, files that may not grow, a full or read-only disk: an action completes or says why not."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.faulty_store import COMPLETED, FAILED, Case, run
from tests.faults.places import Place
from tests.faults.test_store_faults import State, allowed, prepared, state_of

pytestmark = pytest.mark.slow

LIMITS = {"64 open files": (resource.RLIMIT_NOFILE, 64), "files of 2 kB": (resource.RLIMIT_FSIZE, 2048)}
ACTIONS = ["append", "bulk_import", "seal", "archive", "rebuild", "stream", "publish", "erase"]
DISK_KB = 65536
FREE_KB = (0, 64, 1024, 4096)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("limit", LIMITS)
def test_limits(tmp_path: Path, limit: str, action: str) -> None:
    """The action fails with an error of refold or completes; without the limit it completes."""
    place = prepared(str(tmp_path), action)
    before = state_of(place)
    between = after_trying(place, action, tmp_path, LIMITS[limit])
    assert between in allowed(action, before, completed(place, action, tmp_path))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("free", FREE_KB)
def test_a_full_disk(tmp_path: Path, free: int, action: str) -> None:
    """With few kilobytes left it fails or completes; when there is space again, it completes."""
    with a_disk(tmp_path / "disk") as disk:
        place = prepared(str(disk), action)
        before, balloon = state_of(place), disk / "balloon"
        left = os.statvfs(disk)
        balloon.write_bytes(bytes(max(left.f_bavail * left.f_frsize - free * 1024, 0)))
        between = after_trying(place, action, tmp_path)
        balloon.unlink()
        assert between in allowed(action, before, completed(place, action, tmp_path))


@pytest.mark.parametrize("action", ACTIONS)
def test_a_read_only_disk(tmp_path: Path, action: str) -> None:
    """It fails, and all can be read; when the disk can be written, it completes."""
    with a_disk(tmp_path / "disk") as disk:
        place = prepared(str(disk), action)
        before = state_of(place)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert after_trying(place, action, tmp_path) == before
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        completed(place, action, tmp_path)


def after_trying(place: Place, action: str, folder: Path, limit: tuple[int, int] | None = None) -> State:
    """Run an action that may fail with an error of refold, and return what there is then."""
    ended = run(Case(action=action, url=place.url, folder=str(folder), limit=limit))
    assert ended in (COMPLETED, FAILED), (folder / "output.txt").read_text()
    return state_of(place)


def completed(place: Place, action: str, folder: Path) -> State:
    """Run an action that completes, and return what there is then."""
    assert run(Case(action=action, url=place.url, folder=str(folder))) == COMPLETED, (folder / "output.txt").read_text()
    return state_of(place)


@contextmanager
def a_disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk in memory, which takes the rights to do so."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
