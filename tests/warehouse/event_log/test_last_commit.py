"""The last commit of a log is found by a few lookups and its own footer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from refold.event_schemas import DamagedLogError
from refold.warehouse.event_log import Appender, EventLog, create_log, layout, read_positions, verify
from refold.warehouse.event_log.commit import encode
from refold.warehouse.event_log.layout import commit_key
from refold.warehouse.object_store.local import LocalStore
from refold.warehouse.read_models.lag import find_end
from tests.warehouse.event_log.shop import SHOP, Closed, seal

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


def test_a_listing_may_lack_a_commit_of_this_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's listing has a file that was made meanwhile, and not the one that was made before it: none is missing."""
    log = create_log(str(tmp_path), domain_name="shop", bucket_count=2)
    other = Appender(log, SHOP.registry)
    other.append("order-1", [Closed()])
    listed = LocalStore.list_from

    def list_from(store: LocalStore, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """List while another process appends two commits; the listing has only the second of them."""
        if prefix != layout.COMMITS:
            return listed(store, prefix, start_after=start_after)
        missed = commit_key(other.append("order-2", [Closed()]).commit_number)
        other.append("order-3", [Closed()])
        return (key for key in listed(store, prefix, start_after=start_after) if key != missed)

    monkeypatch.setattr(LocalStore, "list_from", list_from)
    assert Appender(log, SHOP.registry).append("order-4", [Closed()]).last_position == 4
    assert [f for f in verify(log, SHOP.registry).findings if f.kind == "commit"] == []
    seal(log)


@pytest.mark.parametrize("read", [EventLog.head, find_end, lambda log: list(read_positions(log, SHOP.registry, 0))])
def test_a_missing_commit_is_no_end(tmp_path: Path, read: Callable[[EventLog], object]) -> None:
    """A log does not end before a commit that is missing."""
    log = create_log(str(tmp_path), domain_name="shop", bucket_count=2)
    appender = Appender(log, SHOP.registry)
    for number in range(4):
        appender.append(f"order-{number}", [Closed()])
    (tmp_path / commit_key(3)).unlink()
    with pytest.raises(DamagedLogError, match=r"0003.parquet is missing, but .*0004.parquet exists"):
        read(log)
