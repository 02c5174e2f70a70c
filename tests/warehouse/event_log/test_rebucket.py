"""The bucket count of a log changes, and nothing that it says does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from refold.event_schemas import LogError, RecordedEvent, UsageError
from refold.pipelines.seal import seal as seal_command
from refold.warehouse.event_log import (
    Appender,
    EventLog,
    manifest,
    open_log,
    read_positions,
    read_stream,
    rebucket,
    verify,
)
from refold.warehouse.event_log.bulk_import.bulk_segments import publish_import
from refold.warehouse.event_log.layout import bucket_of
from refold.warehouse.event_log.rebucket import rebucket as change
from tests.warehouse.event_log.shop import REGISTRY, Closed, Placed, added, bulk_import, seal

PLACED = Placed(customer="c", currency="EUR")
IMPORTED = [(f"order-{number}", added(quantity=number)) for number in range(40, 60)]


def everything(log: EventLog) -> list[RecordedEvent]:
    """Read the whole log."""
    return list(read_positions(log, REGISTRY, 0))


@pytest.fixture
def grown(log: EventLog, appender: Appender) -> EventLog:
    """A log of four buckets with commits, an import, and events that are not sealed."""
    for number in range(12):
        appender.append(f"order-{number}", [PLACED, added(), Closed()])
    bulk_import(log, "history", IMPORTED)
    seal(log)
    Appender(log, REGISTRY).append("order-3", [added()])
    return log


def test_everything_reads_as_before(grown: EventLog) -> None:
    """Events, streams and their versions are the same; every segment lies in its new bucket."""
    before = everything(grown)
    done = change(grown, 16)
    assert (done.before, done.after, done.manifest) == (4, 16, 2)
    sealed = grown.manifest()
    assert sealed.bucket_count == open_log(grown.url).manifest().bucket_count == 16
    assert {s.bucket for s in sealed.segments} == {bucket_of(e.stream_id, 16) for e in before}
    assert everything(grown) == before
    found = verify(grown, REGISTRY)
    assert (found.findings, found.unchecked) == ((), ())
    Appender(grown, REGISTRY).append("order-45", [Closed()], expected_version=1)
    seal(grown)
    assert [e.stream_version for e in read_stream(grown, REGISTRY, "order-45")] == [1, 2]
    assert verify(grown, REGISTRY).sound


def test_an_appender_goes_on(grown: EventLog) -> None:
    """One that read the log before looks streams up in the buckets of its manifest, and takes an import of the new."""
    appender = Appender(grown, REGISTRY)
    appender.append("order-1", [added()], expected_version=3)
    change(grown, 8)
    appender.append("order-1", [added()], expected_version=4)
    bulk_import(grown, "more", [("order-99", PLACED)])
    appender.append("order-99", [added()], expected_version=1)
    appender.append("order-2", [added()], expected_version=3)
    assert verify(grown, REGISTRY).sound


def test_a_seal_that_came_first(grown: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote is rewritten too, and nothing else a second time."""
    written: list[str] = []
    original = rebucket._rewrite

    def rewrite(log: EventLog, segment: manifest.Segment, bucket_count: int) -> list[manifest.Segment]:
        if not written:
            seal(log)
        written.append(segment.key)
        return original(log, segment, bucket_count)

    monkeypatch.setattr(rebucket, "_rewrite", rewrite)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    before = everything(grown)
    assert change(grown, 8).manifest == 3
    assert len(set(written)) == len(written)
    assert everything(grown) == before
    assert verify(grown, REGISTRY).sound


def test_an_import_in_the_same_instant(grown: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the old buckets: nobody reads it in the new ones until a seal has rewritten it."""
    original = manifest.publish

    def publish_late(store: object, made: manifest.Manifest) -> bool:
        bulk_import(grown, "late", [("order-70", PLACED), ("order-71", PLACED)])
        return original(grown.store, made)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "publish", publish_late)
        change(grown, 16)
    with pytest.raises(LogError, match=r"is an import for 4 buckets, .* changed them to 16. Run `refold seal`"):
        Appender(grown, REGISTRY).append("order-70", [added()], expected_version=0)
    sealed = seal_mixed(grown)
    assert {s.bucket for s in sealed.segments if s.commit_base} <= {bucket_of(f"order-{n}", 16) for n in (70, 71)}
    Appender(grown, REGISTRY).append("order-70", [added()], expected_version=1)
    assert verify(grown, REGISTRY).sound


def seal_mixed(log: EventLog) -> manifest.Manifest:
    """Seal as the command does."""
    seal_command(log, "tests.warehouse.event_log.shop:SHOP")
    return log.manifest()


def test_an_import_that_began_before(grown: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused: its segments have other buckets."""
    change(grown, 16)
    with pytest.raises(LogError, match="has 16 buckets now, but the import began when it had 4"):
        publish_import(grown, "late", 0, (), bucket_count=4)


@pytest.mark.parametrize("count", [0, 2, 6, -4, 2048])
def test_a_count_that_is_no_multiple(grown: EventLog, count: int) -> None:
    """A bucket is divided, never joined with others."""
    with pytest.raises(UsageError, match=f"has 4 buckets, not {count}. Give a multiple of that, up to 1024"):
        change(grown, count)


def test_two_at_once(grown: EventLog) -> None:
    """One wins, and the other finds that it is done."""
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: change(grown, 16), range(2)))
    assert [one.after for one in done] == [16, 16]
    assert verify(grown, REGISTRY).sound
