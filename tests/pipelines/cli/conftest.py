"""Demos for the tests of the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipelines.cli.running import EVENTS, refold


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo, made once; tests only look at it."""
    folder = tmp_path_factory.mktemp("cli")
    refold("demo", "--events", str(EVENTS), "--json", folder=folder)
    return folder / "demo-data"


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    """A demo of one's own, to change."""
    return shutil.copytree(made, tmp_path / "shop", symlinks=True)
