"""The law: however a history is cut, sealed, bucketed and applied, a read model equals a plain fold of it.

Below Beam (``engine.py``), one read model at a time; ``test_law_in_beam.py`` runs complete rebuilds. The variable
``REFOLD_HYPOTHESIS_EXAMPLES`` is the number of histories per test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.fingerprint import fingerprint_parts
from refold.warehouse.event_log import EventLog
from refold.warehouse.read_models.increments.spans import SpanLimits, next_step
from refold.warehouse.read_models.live.indexes import NO_INDEXES
from refold.warehouse.replay import event_ranges as events
from tests.properties import domain as depot
from tests.properties.engine import Tables, Writer, expected_rows, recomputed, scratch_folder, seal
from tests.properties.histories import Commit, Follow, History, Import, Seal, histories, stored_events
from tests.properties.reference import Folded, Step

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("REFOLD_HYPOTHESIS_EXAMPLES", "20"))
BUCKETS = st.sampled_from([1, 2, 3, 8])
THREADS = st.sampled_from([1, 4])

GROUPS = (
    ("accounts", "open_accounts", "paths"),
    ("skus", "live_skus", "switches"),
    ("owners", "days", "sums_of_refs", "refs"),
    ("recalls", "ties", "ties_of_skus", "labels_in_use"),
)
"""Read models that share events, and so one history."""

FRAGILE_GROUPS = (("fragile_skus", "fragile_sku_paths"), ("fragile_trails", "fragile_paths"))

domain_of = cache(depot.some)


def event_types(domain: Domain) -> list[str]:
    """Give the event types that the read models of a domain read."""
    return sorted({t for m in domain.read_models for t in m.event_types})


class World:
    """A log that is being written, and read models at some positions of it.

    Args:
        folder: parent folder of log and read models.
        domain: of the read models.
        bucket_count: of the log.
    """

    def __init__(self, folder: Path, domain: Domain, *, bucket_count: int) -> None:
        self.domain = domain
        self.writer = Writer(folder, domain.registry, bucket_count=bucket_count)
        self._folder = folder
        self._opened: list[Tables] = []

    @property
    def log(self) -> EventLog:
        """The log."""
        return self.writer.log

    def tables(self, *, threads: int = 1, dead_letter: bool = False, indexed: bool = False) -> Tables:
        """Open empty tables."""
        folder = self._folder / f"tables-{len(self._opened)}"
        indexes = {m.name: [c for c, t in m.table.items() if "[]" not in t] for m in self.domain.read_models}
        given = indexes if indexed else NO_INDEXES
        self._opened.append(Tables(folder, self.domain, threads=threads, dead_letter=dead_letter, indexes=given))
        return self._opened[-1]

    def write(self, history: History, *followers: Tables) -> None:
        """Write events and seal; followers catch up where the history says so."""
        for step in history:
            if isinstance(step, Commit | Import):
                self.writer.write(step)
            elif isinstance(step, Seal):
                seal(self.log, self.domain.registry)
            else:
                for follower in followers:
                    follower.catch_up(self.log)

    def close(self) -> None:
        """Close all tables."""
        for tables in self._opened:
            tables.close()


@contextmanager
def world(domain: Domain, *, bucket_count: int) -> Iterator[World]:
    """Make a new log, and remove all afterwards."""
    with scratch_folder() as folder:
        made = World(Path(folder), domain, bucket_count=bucket_count)
        try:
            yield made
        finally:
            made.close()


def agree(tables: Tables, log: EventLog, history: History, steps: Sequence[Step] = depot.STEPS) -> None:
    """Compare tables with both oracles: row by row, by the checksum that is published, and in what was left out."""
    stored = stored_events(history)
    strange = {event.position for event in stored if event.strange}
    letters = {("", position) for position in strange}
    second = recomputed(log, tables.domain)
    for model in tables.domain.read_models:
        expected = expected_rows(tables.domain, model.name, stored, steps)
        assert tables.rows(model.name) == expected.rows, model.name
        assert tables.checksum(model.name) == tables.checksum_of(model.name, expected.rows), model.name
        assert second[model.name] == Folded(expected.rows, expected.invalid | strange), model.name
        letters |= {(model.name, position) for position in expected.invalid}
    assert tables.dead_letters() == letters


def go_forward(tables: Tables, log: EventLog, data: st.DataObject) -> None:
    """Apply a log to its end in micro-batches of any size, split for any number of workers."""
    most = data.draw(st.integers(1, 12))
    limits = SpanLimits(small_events=data.draw(st.sampled_from([0, 3, 100])), max_events=most)
    with patch.object(events, "FEW", data.draw(st.sampled_from([0, 256]))):
        while True:
            sealed = log.manifest() if data.draw(st.booleans()) else None
            step = next_step(log, tables.at, workers=data.draw(st.integers(1, 3)), sealed=sealed, limits=limits)
            if step is None:
                return
            tables.go_forward(log, step)


@pytest.mark.parametrize("names", GROUPS, ids="-".join)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_way_is_the_fold(names: tuple[str, ...], data: st.DataObject) -> None:
    """Followed, rebuilt, rebuilt from a beginning and followed on, or in any steps: the rows are the same."""
    domain = domain_of(*names)
    history = data.draw(histories(event_types(domain), follow=True))
    beginning = data.draw(st.integers(0, len(history)))
    with world(domain, bucket_count=data.draw(BUCKETS)) as depot_world:
        followed, begun, rebuilt = (depot_world.tables(threads=data.draw(THREADS)) for _ in range(3))
        stepped = depot_world.tables(threads=data.draw(THREADS), indexed=data.draw(st.booleans()))
        depot_world.write(history[:beginning], followed)
        begun.rebuild(depot_world.log)
        depot_world.write([*history[beginning:], Follow()], followed, begun)
        agree(followed, depot_world.log, history)
        agree(begun, depot_world.log, history)
        go_forward(stepped, depot_world.log, data)
        agree(stepped, depot_world.log, history)
        depot_world.write([Seal()] if data.draw(st.booleans()) else [])
        rebuilt.rebuild(depot_world.log)
        rebuilt.catch_up(depot_world.log)
        agree(rebuilt, depot_world.log, history)


@pytest.mark.parametrize("names", FRAGILE_GROUPS, ids="-".join)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_invalid_events_are_left_out_alike(names: tuple[str, ...], data: st.DataObject) -> None:
    """Rebuild and follower have the same dead letters, and the rows of the remaining history."""
    domain = domain_of(*names)
    history = data.draw(histories(event_types(domain), breaking=True, follow=True))
    with world(domain, bucket_count=data.draw(BUCKETS)) as depot_world:
        followed = depot_world.tables(dead_letter=True)
        depot_world.write([*history, Follow()], followed)
        agree(followed, depot_world.log, history)
        stepped = depot_world.tables(dead_letter=True)
        go_forward(stepped, depot_world.log, data)
        agree(stepped, depot_world.log, history)
        rebuilt = depot_world.tables(dead_letter=True)
        rebuilt.rebuild(depot_world.log)
        rebuilt.catch_up(depot_world.log)
        agree(rebuilt, depot_world.log, history)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_an_upcaster_that_is_changed_later(data: st.DataObject) -> None:
    """Read models of old code are detected as stale and rebuilt, and equal those of the new code alone."""
    names = ("accounts", "skus", "paths")
    domain, changed = domain_of(*names), depot.later(*names)
    for before, after in zip(domain.read_models, changed.read_models, strict=True):
        assert fingerprint_parts(before, domain) != fingerprint_parts(after, changed)
    history = data.draw(histories(event_types(domain), follow=True))
    deployed = data.draw(st.integers(0, len(history)))
    with world(domain, bucket_count=data.draw(BUCKETS)) as depot_world:
        followed = depot_world.tables()
        depot_world.write([*history[:deployed], Follow()], followed)
        agree(followed, depot_world.log, history[:deployed])
        depot_world.write([Seal()])
        with scratch_folder() as folder:
            rebuilt = Tables(Path(folder), changed)
            rebuilt.rebuild(depot_world.log)
            depot_world.write(history[deployed:], rebuilt)
            go_forward(rebuilt, depot_world.log, data)
            agree(rebuilt, depot_world.log, history, depot.LATER_STEPS)
            rebuilt.close()
