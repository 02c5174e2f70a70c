"""Few open files, or files that may not grow: an action completes or says why not, and nothing is lost."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.faults.faulty_store import COMPLETED, FAILED, Case, run
from tests.faults.test_store_faults import prepared, state_of

pytestmark = pytest.mark.slow

LIMITS = {"64 open files": (resource.RLIMIT_NOFILE, 64), "files of 2 kB": (resource.RLIMIT_FSIZE, 2048)}


@pytest.mark.parametrize("action", ["append", "seal", "rebuild", "stream", "publish"])
@pytest.mark.parametrize("limit", LIMITS)
def test_limits(tmp_path: Path, limit: str, action: str) -> None:
    """The action fails with an error of refold or completes; without the limit it completes."""
    place = prepared(str(tmp_path), action)
    before, output = state_of(place), tmp_path / "output.txt"
    ended = run(Case(action=action, url=place.url, folder=str(tmp_path), limit=LIMITS[limit]))
    assert ended in (COMPLETED, FAILED), output.read_text()
    between = state_of(place)
    assert run(Case(action=action, url=place.url, folder=str(tmp_path))) == COMPLETED, output.read_text()
    assert between in (before, state_of(place))
