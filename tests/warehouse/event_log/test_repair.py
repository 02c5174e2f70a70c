"""A damaged log is repaired from what is still whole, and what is lost is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.event_schemas import DamagedLogError
from refold.warehouse.event_log import Appender, EventLog, read_positions, verify
from refold.warehouse.event_log.layout import COMMITS
from refold.warehouse.event_log.repair import repair
from tests.warehouse.event_log.shop import REGISTRY, Closed, Placed, added, seal, write_commit

PLACED = Placed(customer="c1", currency="EUR")


@pytest.fixture
def sealed(log: EventLog, appender: Appender) -> EventLog:
    """A log of several seals, with typed and untyped segments."""
    for turn in range(5):
        appender.append(f"order-{turn}", [PLACED, added(), Closed()])
        write_commit(log, [(f"odd-{turn}", "Placed", 1, '{"customer": 5}')])
        Appender(log, REGISTRY).append(f"order-{turn}", [added()])
        seal(log)
        appender = Appender(log, REGISTRY)
    return log


def damage(log: EventLog, key: str) -> None:
    """Flip a bit of an object."""
    data = bytearray(log.store.get(key))
    data[len(data) // 2] ^= 4
    log.store.put(key, bytes(data))


def test_nothing_is_damaged(sealed: EventLog) -> None:
    """A sound log stays as it is."""
    done = repair(sealed, REGISTRY)
    assert (done.segments, done.heads, done.lost, done.manifest) == ((), (), (), None)


def test_segments_and_heads_are_made_anew(sealed: EventLog) -> None:
    """Whatever is lost, one at a time or all together, events and versions come out as they were."""
    before = list(read_positions(sealed, REGISTRY, 0))
    manifest = sealed.manifest()
    keys = [s.key for s in manifest.segments]
    for key in (*keys, *(h.key for h in manifest.heads)):
        damage(sealed, key)
    sealed.store.delete(keys[0])
    with pytest.raises(DamagedLogError, match=r"refold log repair|Restore"):
        list(read_positions(sealed, REGISTRY, 0))
    done = repair(sealed, REGISTRY)
    assert (set(done.segments), done.lost) == (set(keys), ())
    assert list(read_positions(sealed, REGISTRY, 0)) == before
    found = verify(sealed, REGISTRY)
    assert (found.findings, found.events) == ((), len(before))


def test_what_is_nowhere_else_is_named(sealed: EventLog) -> None:
    """Without its commits a segment cannot be made again; the others are."""
    first, last = sealed.manifest().segments[0], sealed.manifest().segments[-1]
    for key in list(sealed.store.list_from(COMMITS)):
        sealed.store.delete(key)
    for segment in (first, last):
        damage(sealed, segment.key)
    done = repair(sealed, REGISTRY)
    assert done.segments == ()
    assert [first.key in lost or last.key in lost for lost in done.lost] == [True, True]
    assert "its commits were removed" in done.lost[0]


def test_verify_says_that_it_can_be_repaired(sealed: EventLog) -> None:
    """The finding names the command."""
    damage(sealed, sealed.manifest().segments[0].key)
    assert "refold log repair" in str(verify(sealed, REGISTRY).findings[0])


def test_sizes_alone_are_checked_fast(sealed: EventLog) -> None:
    """Without reading events, a truncated and a missing segment are found, and a flipped bit is not."""
    first, second, third = (s.key for s in sealed.manifest().segments[:3])
    damage(sealed, third)
    assert verify(sealed, REGISTRY, fast=True).sound
    sealed.store.delete(first)
    path = Path(sealed.url, second)
    path.write_bytes(path.read_bytes()[:-1])
    findings = verify(sealed, REGISTRY, fast=True).findings
    assert [f.where.removeprefix(f"{sealed.url}/") for f in findings] == [first, second]


def test_a_digest_that_was_kept_elsewhere(sealed: EventLog) -> None:
    """The digest of a commit proves it and all before it, whether it is sealed or not."""
    Appender(sealed, REGISTRY).append("order-1", [added()])
    infos = list(sealed.commits_after(sealed.start))
    for info in (infos[0], infos[5], infos[-1]):
        assert verify(sealed, REGISTRY, fast=True, known=(info.number, info.digest)).sound
        [finding] = verify(sealed, REGISTRY, fast=True, known=(info.number, "0" * 64)).findings
        assert finding.kind == "chain"
    [finding] = verify(sealed, REGISTRY, fast=True, known=(99, "0" * 64)).findings
    assert "the log has no such commit" in finding.what
