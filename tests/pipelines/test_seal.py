"""A complete seal: the loser of the race for a manifest deletes its own files and no others."""

from __future__ import annotations

from pathlib import Path

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.seal import _discard, seal
from refold.warehouse.event_log import Appender, create_log, read_positions, verify
from refold.warehouse.event_log.seal import publish
from tests.warehouse.event_log.shop import REGISTRY, Closed, added, bulk_import, prepare_seal


def test_the_loser_of_a_race_keeps_a_bulk_import(tmp_path: Path) -> None:
    """The winner saw a shorter tail: segments of an import behind it belong to the import, not to the loser."""
    log = create_log(str(tmp_path), domain_name="shop", bucket_count=2)
    Appender(log, REGISTRY).append("x", [Closed()])
    winner = prepare_seal(log)
    bulk_import(log, "import", [("y", added()), ("z", Closed())])
    seen = log.head()
    loser = prepare_seal(log)
    assert publish(log, winner)
    assert not publish(log, loser)
    _discard(log, seen, loser)
    assert verify(log, REGISTRY).sound
    assert [e.position for e in read_positions(log, REGISTRY, 0)] == [1, 2, 3]
    live = {s.key for s in log.manifest().segments} | {s.key for i in log.head().tail for s in i.segments}
    assert set(log.store.list_from("segments")) == live


def test_nothing_to_seal(tmp_path: Path) -> None:
    """An empty log is sealed already."""
    log = create_log(str(tmp_path), domain_name="shop", bucket_count=2)
    assert seal(log, "orders", beam_options(None)).commits == 0
