"""The law for domains that nobody wrote: any contracts, upcasters and read models, values at the edges of every type.

The oracle is the sequential fold of ``refold reconcile --independent``, which shares no code with the engine.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from refold.warehouse.declarations.domain import Domain
from tests.properties.engine import Tables, recomputed
from tests.properties.generated import describe, domains
from tests.properties.histories import STREAMS, Commit, Follow, Given, History, Import, Seal
from tests.properties.hostile_values import TIMES, json_text, misfits, payloads
from tests.properties.reference import Folded
from tests.properties.test_law import BUCKETS, EXAMPLES, go_forward, world

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
    assert tables.rows(model.name) == expected.rows
    assert tables.checksum(model.name) == tables.checksum_of(model.name, expected.rows)


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
        made.log.store.delete_prefix("commits")  # from here on, the segments are the record
        assert recomputed(made.log, domain)["model"] == expected
