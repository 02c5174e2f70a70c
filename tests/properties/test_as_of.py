"""The law as of any position: a build as of position P is the fold of the first P events."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from refold.pipelines.beam.runners import beam_options
from refold.pipelines.rebuild.as_of import rebuild_as_of
from refold.warehouse.declarations.domain import Domain
from tests.properties.domain import DEPOT, FRAGILE
from tests.properties.engine import Writer, expected_rows, read_only, scratch_folder, seal, table_rows
from tests.properties.histories import Commit, History, Import, Seal, histories, stored_events

pytestmark = pytest.mark.slow

EXAMPLES = max(2, int(os.environ.get("REFOLD_HYPOTHESIS_EXAMPLES", "4")) // 10)
PHASES = (Phase.reuse, Phase.generate)  # an example takes seconds, so that shrinking one would take an hour


def write(history: History, writer: Writer) -> None:
    """Write a history to a log, and seal where it says so."""
    for step in history:
        if isinstance(step, Commit | Import):
            writer.write(step)
        elif isinstance(step, Seal):
            seal(writer.log, DEPOT.registry)


def agree(path: Path, domain: Domain, history: History, position: int) -> None:
    """Compare a file with the fold of the first events: all rows, and the dead letters."""
    stored = stored_events(history)[:position]
    letters = {("", e.position) for e in stored if e.strange}
    with read_only(path) as connection:
        for model in domain.read_models:
            expected = expected_rows(domain, model.name, stored)
            assert table_rows(connection, model) == expected.rows, (model.name, position)
            letters |= {(model.name, invalid) for invalid in expected.invalid}
        found = connection.execute("SELECT read_model, position FROM refold.dead_letters ORDER BY ALL").fetchall()
        assert found == sorted(letters)
        assert connection.execute("SELECT position FROM refold.checkpoint").fetchall() == [(position,)]


@pytest.mark.parametrize("domain", [DEPOT, FRAGILE], ids=["sound", "breaking"])
@settings(max_examples=EXAMPLES, phases=PHASES)
@given(data=st.data())
def test_as_of_a_position_is_the_fold_of_what_is_before_it(domain: Domain, data: st.DataObject) -> None:
    """The law holds at any position, within commits too, sealed or not, with any later events."""
    breaking = domain is FRAGILE
    types = sorted({t for m in domain.read_models for t in m.event_types})
    history = data.draw(histories(types, breaking=breaking, max_steps=8))
    last = len(stored_events(history))
    positions = data.draw(st.lists(st.integers(1, last), min_size=1, max_size=3, unique=True))
    options = beam_options(None, ["--direct_running_mode=in_memory", "--direct_num_workers=1"])
    name = "FRAGILE" if breaking else "DEPOT"
    with scratch_folder() as folder:
        writer = Writer(Path(folder), DEPOT.registry, bucket_count=data.draw(st.integers(1, 4)))
        write(history, writer)
        for position in positions:
            built = rebuild_as_of(
                writer.log,
                f"tests.properties.domain:{name}",
                options,
                position=position,
                to=Path(folder) / f"as-of-{position}.duckdb",
                staging_url=str(Path(folder) / "staging"),
                dead_letter=breaking,
            )
            agree(built.path, domain, history, position)
