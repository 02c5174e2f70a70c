"""The law: however a history is cut, sealed, bucketed and applied, a read model equals a plain fold of it.

Most examples run below Beam (``engine.py``), one read model at a time. ``REFOLD_HYPOTHESIS_EXAMPLES`` sets how many
examples each test takes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import domain as depot
from tests.properties.engine import Tables, Writer, expected_rows, scratch_folder, seal
from tests.properties.histories import Commit, Follow, History, Import, Seal, histories, stored_events
from warehouse.domain import Domain
from warehouse.event_log.log import EventLog
from warehouse.read_models.catch_up import advance
from warehouse.read_models.database import Checkpoint

EXAMPLES = int(os.environ.get("REFOLD_HYPOTHESIS_EXAMPLES", "8"))
BUCKETS = st.sampled_from([1, 2, 3, 8])
THREADS = st.sampled_from([1, 4])

each_model = pytest.mark.parametrize("name", [model.name for model, _ in depot.MODELS])
each_fragile_model = pytest.mark.parametrize("name", [model.name for model, _ in depot.FRAGILE_MODELS])

domain_of = cache(depot.only)


def write(history: History, writer: Writer, *followers: Tables) -> None:
    """Write a history to a log; followers catch up where it says so."""
    for step in history:
        if isinstance(step, Commit | Import):
            writer.write(step)
        elif isinstance(step, Seal):
            seal(writer.log, depot.DEPOT.registry)
        else:
            for follower in followers:
                follower.catch_up(writer.log)


def agree(tables: Tables, domain: Domain, history: History) -> None:
    """Compare every table with the fold: row by row, and by the checksum that is published."""
    stored = stored_events(history)
    for model in domain.read_models:
        expected = expected_rows(domain, model.name, stored)
        assert tables.rows(model.name) == expected.rows
        assert tables.checksum(model.name) == tables.checksum_of(model.name, expected.rows)
        letters = {(model.name, p) for p in expected.broken} | {("", e.position) for e in stored if e.strange}
        assert tables.dead_letters() == letters


@each_model
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_rebuild_is_the_fold(name: str, data: st.DataObject) -> None:
    """A rebuild of all that is sealed, and a catch-up over the tail, come to what a plain fold comes to."""
    domain = domain_of(name)
    history = data.draw(histories(domain.read_models[0].event_types, follow=False))
    with scratch_folder() as folder:
        writer = Writer(Path(folder), domain.registry, bucket_count=data.draw(BUCKETS))
        write(history, writer)
        if data.draw(st.booleans()):
            seal(writer.log, domain.registry)
        tables = Tables(Path(folder) / "rebuilt", domain, threads=data.draw(THREADS))
        tables.rebuild(writer.log)
        tables.catch_up(writer.log)
        agree(tables, domain, history)
        tables.close()


@each_model
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_following_is_the_fold(name: str, data: st.DataObject) -> None:
    """Catching up now and then while the log grows and is sealed comes to what a plain fold comes to."""
    domain = domain_of(name)
    history = [*data.draw(histories(domain.read_models[0].event_types, follow=True)), Follow()]
    with scratch_folder() as folder:
        writer = Writer(Path(folder), domain.registry, bucket_count=data.draw(BUCKETS))
        tables = Tables(Path(folder) / "followed", domain, threads=data.draw(THREADS))
        write(history, writer, tables)
        agree(tables, domain, history)
        tables.close()


@each_model
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_ranges_of_commits_are_the_fold(name: str, data: st.DataObject) -> None:
    """Increments cut between any two commits come to what a plain fold comes to, on sealed history too."""
    domain = domain_of(name)
    history = data.draw(histories(domain.read_models[0].event_types))
    with scratch_folder() as folder:
        writer = Writer(Path(folder), domain.registry, bucket_count=data.draw(BUCKETS))
        write(history, writer)
        tables = Tables(Path(folder) / "ranges", domain, threads=data.draw(THREADS))
        for after, to in ranges(writer.log, data):
            advance(
                tables.connection,
                writer.log,
                domain,
                domain.read_models,
                writer.log.head(),
                after=after,
                to=to,
                dead_letter=False,
            )
        agree(tables, domain, history)
        tables.close()


def ranges(log: EventLog, data: st.DataObject) -> list[tuple[int, Checkpoint]]:
    """Cut a log between commits, anywhere."""
    infos = list(log.commits_after(0))
    cuts, after = [], 0
    for info in infos:
        if info is infos[-1] or data.draw(st.booleans()):
            cuts.append((after, Checkpoint(info.last_position, info.number, info.recorded_at.isoformat())))
            after = info.last_position
    return cuts


@each_model
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_rebuild_of_a_beginning_goes_on(name: str, data: st.DataObject) -> None:
    """A rebuild of the first part of a history, caught up over the rest, comes to what a plain fold comes to."""
    domain = domain_of(name)
    beginning, rest = (
        data.draw(histories(domain.read_models[0].event_types, max_steps=5, follow=f)) for f in (False, True)
    )
    rest = [step for step in rest if not isinstance(step, Import)]
    with scratch_folder() as folder:
        writer = Writer(Path(folder), domain.registry, bucket_count=data.draw(BUCKETS))
        write(beginning, writer)
        seal(writer.log, domain.registry)
        tables = Tables(Path(folder) / "rebuilt", domain, threads=data.draw(THREADS))
        tables.rebuild(writer.log)
        write([*rest, Follow()], writer, tables)
        agree(tables, domain, [*beginning, *rest])
        tables.close()


@each_fragile_model
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_broken_events_are_left_out_alike(name: str, data: st.DataObject) -> None:
    """Rebuild and follower leave out the same events, as dead letters, and hold what the rest of the history means."""
    domain = domain_of(name)
    history = [*data.draw(histories(domain.read_models[0].event_types, breaking=True, follow=True)), Follow()]
    with scratch_folder() as folder:
        writer = Writer(Path(folder), domain.registry, bucket_count=data.draw(BUCKETS))
        followed = Tables(Path(folder) / "followed", domain, dead_letter=True)
        write(history, writer, followed)
        agree(followed, domain, history)
        rebuilt = Tables(Path(folder) / "rebuilt", domain, dead_letter=True)
        rebuilt.rebuild(writer.log)
        rebuilt.catch_up(writer.log)
        agree(rebuilt, domain, history)
        followed.close()
        rebuilt.close()
