"""A manifest is written in parts, so neither a seal nor the opening of a log costs more as the log ages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from refold.event_schemas import DamagedLogError
from refold.warehouse.event_log import Appender, EventLog, create_log, manifest_parts, verify
from refold.warehouse.event_log.layout import bucket_of, manifest_key
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.opening import open_log
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.local import LocalStore
from refold.warehouse.object_store.records import encode_record
from tests.warehouse.event_log.shop import REGISTRY, Placed, added, manifest_values, seal

PLACED = Placed(customer="c", currency="EUR")


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """A log of 64 buckets, and so of four ranges."""
    return create_log(str(tmp_path_factory.mktemp("wide")), domain_name="shop")


def day(log: EventLog, number: int) -> Manifest:
    """Append to streams in all ranges, and seal."""
    appender = Appender(log, REGISTRY)
    for stream in range(12):
        appender.append(f"order-{number}-{stream}", [PLACED, added()])
    return seal(log)


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the objects that are read, by folder."""
    found: Counter[str] = Counter()
    get = LocalStore.get

    def counting(store: LocalStore, key: str) -> bytes:
        found[key.split("/")[0]] += 1
        return get(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", counting)
        yield found


def test_parts_say_what_each_seal_made(wide: EventLog) -> None:
    """The parts together list what was sealed, however many seals there were; and there are few of them."""
    for number in range(20):
        made = day(wide, number)
        found = wide.manifest()
        assert list(found.segments) == list(made.segments)
        assert sorted(h.key for h in found.heads) == sorted(h.key for h in made.heads)
        assert sum(s.rows for s in found.segments) == found.sealed_position == 24 * (number + 1)
        of_range = Counter(ref.range for ref in found.parts)
        assert set(of_range) <= {0, 1, 2, 3}
        assert max(of_range.values()) <= 18
    assert verify(wide, REGISTRY).findings == ()


def test_a_seal_writes_the_ranges_that_it_touched(wide: EventLog) -> None:
    """A range without a new event keeps its parts."""
    before = day(wide, 0) and wide.manifest()
    Appender(wide, REGISTRY).append("order-0-0", [added()])
    seal(wide)
    touched = bucket_of("order-0-0", 64) // 16
    new = set(wide.manifest().parts) - set(before.parts)
    assert {ref.range for ref in new} == {touched}


def test_the_end_of_the_log_needs_no_parts(wide: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at the end reads one manifest; who looks up a stream reads the parts of its range."""
    day(wide, 0)
    with reads(monkeypatch) as found:
        head = open_log(wide.url).head()
        assert (found["manifests"], found["parts"]) == (1, 0)
        bucket = bucket_of("order-0-0", 64)
        assert head.sealed.heads_of(bucket)
        assert found["parts"] == sum(ref.range == bucket // 16 for ref in head.sealed.parts)


def test_a_manifest_of_an_earlier_release_is_continued(wide: EventLog) -> None:
    """It lists everything itself; the next seal writes parts."""
    day(wide, 0)
    wide.store.put(manifest_key(1), encode_record(manifest_values(wide)))
    assert (wide.manifest().parts, wide.manifest().sealed_position) == ((), 24)
    made = day(wide, 1)
    assert wide.manifest().parts
    assert list(wide.manifest().segments) == list(made.segments)
    assert verify(wide, REGISTRY).findings == ()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda store, key, _other: store.delete(key), "is missing, but the manifest names it"),
        (lambda store, key, _other: store.put(key, store.get(key)[:-9]), "or is damaged"),
        (lambda store, key, other: store.put(key, store.get(other)), "it was replaced"),
    ],
    ids=["missing", "damaged", "swapped"],
)
def test_a_part_is_checked(wide: EventLog, how: object, message: str) -> None:
    """Nothing that a part says is believed before its digest was checked; ``verify`` names it."""
    day(wide, 0)
    first, second, *_ = (ref.key for ref in wide.manifest().parts)
    assert callable(how)
    store: ObjectStore = wide.store
    how(store, first, second)
    with pytest.raises(DamagedLogError, match=message) as error:
        list(fresh(wide).segments)
    assert first in str(error.value)
    assert first in verify(fresh_log(wide), REGISTRY).findings[0].what


def fresh(log: EventLog) -> Manifest:
    """Read the newest manifest as another process does."""
    return fresh_log(log).manifest()


def fresh_log(log: EventLog) -> EventLog:
    """Open the log with nothing remembered of its parts."""
    manifest_parts.forget()
    return open_log(log.url)
