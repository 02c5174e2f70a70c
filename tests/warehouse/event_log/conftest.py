"""Logs to test with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.warehouse.event_log.shop import REGISTRY
from warehouse.event_log import Appender, EventLog, create_log


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log of four buckets."""
    return create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=4)


@pytest.fixture
def appender(log: EventLog) -> Appender:
    """An appender to it."""
    return Appender(log, REGISTRY)
