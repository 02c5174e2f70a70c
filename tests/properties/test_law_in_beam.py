"""The law through a complete rebuild: Beam, staging, loading, catch-up and publishing, of all read models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.independent import reconcile_independently
from refold.pipelines.rebuild.rebuild import rebuild
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.event_log import EventLog
from refold.warehouse.read_models.generations.generations import Generation, open_generations
from tests.properties.domain import DEPOT, FRAGILE
from tests.properties.engine import Writer, expected_rows, read_only, scratch_folder, seal, table_checksum, table_rows
from tests.properties.histories import Commit, Follow, History, Import, Seal, histories, stored_events

pytestmark = pytest.mark.slow

EXAMPLES = max(2, int(os.environ.get("REFOLD_HYPOTHESIS_EXAMPLES", "4")) // 10)
PHASES = (Phase.reuse, Phase.generate)  # an example takes seconds, so that shrinking one would take an hour
NAMES = [model.name for model in DEPOT.read_models]
DEPOT_REF = "tests.properties.domain:DEPOT"
FRAGILE_REF = "tests.properties.domain:FRAGILE"

each_mode = pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])


def options_of(mode: str) -> list[str]:
    """Give Beam's options for a mode of its local runner, with more workers than a small history has work for."""
    return [f"--direct_running_mode={mode}", "--direct_num_workers=3"]


def write(history: History, writer: Writer) -> None:
    """Write a history to a log, and seal where it says so."""
    for step in history:
        if isinstance(step, Commit | Import):
            writer.write(step)
        elif isinstance(step, Seal):
            seal(writer.log, DEPOT.registry)


def agree(log: EventLog, url: str, generation: Generation, domain: Domain, history: History) -> None:
    """Compare a published generation with both oracles: every table row by row, and every checksum."""
    stored = stored_events(history)
    assert generation.position == len(stored)
    letters = {("", e.position) for e in stored if e.strange}
    with read_only(open_generations(url, domain.name).path(generation)) as connection:
        for model in domain.read_models:
            expected = expected_rows(domain, model.name, stored)
            assert table_rows(connection, model) == expected.rows
            published = generation.tables[model.name]
            assert (published.rows, published.checksum) == table_checksum(connection, model, expected.rows)
            letters |= {(model.name, position) for position in expected.invalid}
        found = connection.execute("SELECT read_model, position FROM refold.dead_letters ORDER BY ALL").fetchall()
        assert found == sorted(letters)
    assert reconcile_independently(log, DEPOT_REF if domain is DEPOT else FRAGILE_REF, url).differences == ()


Histories = st.SearchStrategy[list[Commit | Import | Seal | Follow]]


def histories_of(domain: Domain, *, breaking: bool = False) -> Histories:
    """Give histories with events for all read models of a domain."""
    return histories(sorted({t for m in domain.read_models for t in m.event_types}), breaking=breaking, max_steps=6)


@each_mode
@settings(max_examples=EXAMPLES, phases=PHASES)
@given(data=st.data())
def test_a_published_rebuild_is_the_fold(mode: str, data: st.DataObject) -> None:
    """All read models are rebuilt and published; then some are rebuilt and the others caught up."""
    history = data.draw(histories_of(DEPOT))
    more = [step for step in data.draw(histories_of(DEPOT)) if not isinstance(step, Import)]
    only = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    options = beam_options(None, options_of(mode))
    with scratch_folder() as folder:
        url = str(Path(folder) / "read-models")
        writer = Writer(Path(folder), DEPOT.registry, bucket_count=data.draw(st.integers(1, 8)))
        write(history, writer)
        rebuilt = rebuild(writer.log, DEPOT_REF, url, options)
        agree(writer.log, url, rebuilt.generation, DEPOT, history)
        write(more, writer)
        rebuilt = rebuild(writer.log, DEPOT_REF, url, options, only=only)
        agree(writer.log, url, rebuilt.generation, DEPOT, [*history, *more])


@each_mode
@settings(max_examples=EXAMPLES, phases=PHASES)
@given(data=st.data())
def test_a_rebuild_with_dead_letters_is_the_fold(mode: str, data: st.DataObject) -> None:
    """Events that cannot be applied are dead letters, once each, and the rows are those of the remaining history."""
    history = data.draw(histories_of(FRAGILE, breaking=True))
    more = [step for step in data.draw(histories_of(FRAGILE, breaking=True)) if not isinstance(step, Import)]
    only = data.draw(st.sampled_from([m.name for m in FRAGILE.read_models]))
    options = beam_options(None, options_of(mode))
    with scratch_folder() as folder:
        url = str(Path(folder) / "read-models")
        writer = Writer(Path(folder), FRAGILE.registry, bucket_count=data.draw(st.integers(1, 8)))
        write(history, writer)
        rebuilt = rebuild(writer.log, FRAGILE_REF, url, options, dead_letter=True)
        agree(writer.log, url, rebuilt.generation, FRAGILE, history)
        write(more, writer)
        rebuilt = rebuild(writer.log, FRAGILE_REF, url, options, only=[only], dead_letter=True)
        agree(writer.log, url, rebuilt.generation, FRAGILE, [*history, *more])
