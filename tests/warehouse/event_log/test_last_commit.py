"""The last commit of a log is found by a few lookups and its own footer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from refold.warehouse.event_log import Appender, EventLog, create_log
from refold.warehouse.event_log.commit import encode
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.object_store.local import LocalStore
from tests.warehouse.event_log.shop import SHOP, Closed

COMMITS = 21


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """A log of a few commits, of which only the last can be read."""
    log = create_log(str(tmp_path_factory.mktemp("log")), domain_name="shop", bucket_count=2)
    appender = Appender(log, SHOP.registry)
    for number in range(COMMITS):
        appender.append(f"order-{number}", [Closed()])
    for number in range(1, COMMITS):
        path = Path(log.url) / commit_key(number)
        path.unlink()
        path.write_bytes(b"")
    return log


@pytest.mark.parametrize("after", range(COMMITS))
def test_from_wherever_it_is_looked_for(log: EventLog, after: int) -> None:
    """No footer but the last one is read."""
    found = log.last_commit(after)
    assert found is not None
    assert (found.number, found.last_position) == (COMMITS, COMMITS)


def test_there_is_none_after_the_last(log: EventLog, tmp_path: Path) -> None:
    """Nor in an empty log."""
    assert log.last_commit(COMMITS) is None
    assert create_log(str(tmp_path), domain_name="shop", bucket_count=2).last_commit(0) is None


class _Counting(LocalStore):
    """A local store that counts lookups."""

    lookups = 0

    def exists(self, key: str) -> bool:
        """Count, and return the result."""
        type(self).lookups += 1
        return super().exists(key)


def test_a_long_tail_takes_few_looks(tmp_path: Path) -> None:
    """The number of lookups is about twice the logarithm of the log's length."""
    log = create_log(str(tmp_path), domain_name="shop", bucket_count=2)
    appender = Appender(log, SHOP.registry)
    appender.append("order-1", [Closed()])
    for number in range(2, 1024):
        (tmp_path / commit_key(number)).write_bytes(b"")
    first = log.commit_info(1)
    assert first is not None
    info = replace(first, number=1024)
    (tmp_path / commit_key(1024)).write_bytes(encode(info, ())[1])
    store = _Counting(str(tmp_path))
    assert EventLog(store, "shop", 2, log.log_id).last_commit(0) is not None
    assert _Counting.lookups <= 22
