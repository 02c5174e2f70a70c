"""Logs to test with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refold.warehouse.event_log import (
    Appender,
    EventLog,
    NewEvent,
    create_log,
    open_log,
)
from tests.warehouse.event_log.shop import REGISTRY, Closed, Placed, added, bulk_import, seal

PLACED = Placed(customer="c1", currency="EUR")


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log of four buckets."""
    return create_log(str(tmp_path / "log"), domain_name="shop", bucket_count=4)


@pytest.fixture
def appender(log: EventLog) -> Appender:
    """An appender to it."""
    return Appender(log, REGISTRY)


@pytest.fixture(scope="session")
def mixed_template(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """Positions 1 to 6 sealed, 7 to 10 imported in bulk, 11 to 14 in commits."""
    log = create_log(str(tmp_path_factory.mktemp("mixed") / "log"), domain_name="shop", bucket_count=2)
    appender = Appender(log, REGISTRY)
    appender.append("order-1", [PLACED, added()])
    appender.append("order-2", [NewEvent(payload=PLACED, correlation_id="visit"), added()])
    appender.append("orders-1", [PLACED, Closed()])
    seal(log)
    bulk_import(log, "visit", [("order-8", PLACED), ("order-9", PLACED), ("order-8", added()), ("z", Closed())])
    appender.append("order-1", [added(), Closed()])
    appender.append("order-10", [NewEvent(payload=PLACED, correlation_id="visit")])
    appender.append("order-8", [Closed()])
    return log


@pytest.fixture
def mixed(mixed_template: EventLog, tmp_path: Path) -> EventLog:
    """A copy of that log."""
    shutil.copytree(mixed_template.url, tmp_path / "mixed")
    return open_log(str(tmp_path / "mixed"))
