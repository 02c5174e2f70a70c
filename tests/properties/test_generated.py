"""The law for domains that nobody wrote: any contracts, upcasters and read models, values at the edges of every type.

The oracle is the sequential fold of ``refold reconcile --independent``, which shares no code with the engine.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.database import open_database
from refold.warehouse.read_models.generations.build import StagedModels
from refold.warehouse.read_models.generations.generations import Seed as SeedOf
from refold.warehouse.read_models.generations.generations import open_generations
from refold.warehouse.read_models.generations.publish import publish
from refold.warehouse.read_models.rebuild.seeds import seed_rows
from refold.warehouse.sequential_fold import Start, fold_log
from tests.properties.engine import Tables, in_order, recomputed, scratch_folder
from tests.properties.generated import describe, domains
from tests.properties.histories import STREAMS, Commit, Follow, Given, History, Import, Seal
from tests.properties.hostile_values import TIMES, json_text, misfits, payloads
from tests.properties.reference import Folded
from tests.properties.test_law import BUCKETS, EXAMPLES, World, go_forward, world
from tests.values.logs import same

pytestmark = pytest.mark.slow


@st.composite
def events(draw: st.DrawFn, domain: Domain, streams: tuple[str, ...], *, fitting: bool = False) -> Given:
    """Draw an event of any stored schema; some fit no contract."""
    schema_key = draw(st.sampled_from(domain.registry.schema_keys))
    schema = domain.registry.schema(*schema_key)
    strange = not fitting and draw(st.integers(0, 19)) == 0
    text = draw(misfits(schema)) if strange else json_text(draw(payloads(schema)), schema, draw(st.integers(0, 2)))
    return Given(
        stream_id=draw(st.sampled_from(streams)),
        schema_key=schema_key,
        occurred_at=draw(st.sampled_from(TIMES)),
        payload={},
        strange=strange,
        text=text,
    )


@st.composite
def histories(draw: st.DrawFn, domain: Domain) -> list[Commit | Import | Seal | Follow]:
    """Draw commits with seals, followers and perhaps an import between them."""
    commits = st.builds(Commit, st.lists(events(domain, STREAMS), min_size=1, max_size=6).map(tuple))
    steps: list[Any] = draw(st.lists(commits, min_size=1, max_size=6))
    for step in draw(st.lists(st.sampled_from([Seal(), Follow()]), max_size=4)):
        steps.insert(draw(st.integers(0, len(steps))), step)
    if draw(st.integers(0, 3)) == 0:
        own = st.lists(events(domain, ("bulk-0", "bulk-1"), fitting=True), min_size=1, max_size=6)
        steps.insert(draw(st.integers(0, len(steps))), Import(tuple(draw(own))))
    return steps


def agree(tables: Tables, expected: Folded) -> None:
    """Compare tables with the sequential fold: rows, the published checksum, and the events left out."""
    [model] = tables.domain.read_models
    assert {position for _, position in tables.dead_letters()} == expected.invalid
    rows = with_digits(tables, expected.rows)
    assert same(tables.rows(model.name), rows), (tables.rows(model.name), rows)
    assert tables.checksum(model.name) == tables.checksum_of(model.name, rows)


def with_digits(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give totals without contributions, which the fold begins as the integer 0, the digits of their columns."""
    [model] = tables.domain.read_models

    def typed(name: str, value: Any) -> Any:
        if value != 0 or type(value) is not int:
            return value
        return tables.connection.execute(f"SELECT CAST(0 AS {model.table[name]})").fetchall()[0][0]

    return [{name: typed(name, value) for name, value in row.items()} for row in rows]


def seeded(domain: Domain) -> Domain:
    """Let the read model start from its own published rows."""
    [model] = domain.read_models
    again = dataclasses.replace(model, seed=f"SELECT {', '.join(model.table)} FROM model")
    return dataclasses.replace(domain, read_models=(again,))


def can_seed(tables: Tables) -> bool:
    """Check that the read model has no distinct counts, whose seen values a seed lacks, and no withheld rows."""
    [model] = tables.domain.read_models
    held = withheld.models_with_withheld(tables.connection)
    return not held and not (isinstance(model, Projection) and model.distinct_columns())


def seed_and_follow(made: World, history: History, data: st.DataObject) -> None:
    """Publish the rows of a beginning of the history, start from them, and follow to its end."""
    domain = seeded(made.domain)
    [model] = domain.read_models
    beginning = data.draw(st.integers(0, len(history)))
    with world(made.domain, bucket_count=data.draw(BUCKETS)) as again, scratch_folder() as name:
        folder = Path(name)
        begun = again.tables(dead_letter=True)
        again.write([*history[:beginning], Follow()], begun)
        if not can_seed(begun):
            return
        generations = open_generations(str(folder / "read-models"), "depot")
        path = folder / "begun.duckdb"
        begun.connection.execute("CHECKPOINT")
        shutil.copy(begun.path, path)
        newest = publish(open_database(path), path, again.log, made.domain, generations, None)
        assert newest is not None
        seed = SeedOf(generation=1, position=newest.position, file=newest.file)
        at, rows = seed_rows(model, seed, generations, folder)
        later = Tables(folder / "later", domain, dead_letter=True)
        later.start(again.log, StagedModels([model], at, {"model": [rows]}, replayed=False))
        again.write([*history[beginning:], Seal()])
        go_forward(later, again.log, data)
        start = Start(at.position, begun.rows("model"))
        expected = fold_log(again.log.store, domain, [model], up_to=again.log.head().position, starts={"model": start})
        assert same(later.rows("model"), with_digits(later, in_order(expected.rows["model"], model)))
        found = {p for n, p in later.dead_letters() if n}
        assert found == expected.letters["model"].keys()
        later.close()


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_every_way_is_the_sequential_fold(data: st.DataObject) -> None:
    """Followed in cuts, stepped, rebuilt, and rebuilt from a beginning and followed on."""
    domain = data.draw(domains())
    note(describe(domain))
    history: History = data.draw(histories(domain))
    beginning = data.draw(st.integers(0, len(history)))
    with world(domain, bucket_count=data.draw(BUCKETS)) as made:
        followed, begun, rebuilt, stepped = (made.tables(dead_letter=True) for _ in range(4))
        made.write(history[:beginning], followed)
        begun.rebuild(made.log)
        made.write([*history[beginning:], Follow()], followed, begun)
        expected = recomputed(made.log, domain)["model"]
        agree(followed, expected)
        agree(begun, expected)
        go_forward(stepped, made.log, data)
        agree(stepped, expected)
        made.write([Seal()])
        rebuilt.rebuild(made.log)
        agree(rebuilt, expected)
        if can_seed(rebuilt):
            seed_and_follow(made, history, data)
        made.log.store.delete_prefix("commits")  # from here on, the segments are the record
        assert recomputed(made.log, domain)["model"] == expected
