"""Hypothesis strategies: histories of the depot domain, cut into commits, seals and imports at any point."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.properties.depot.contracts import POISON, UNLUCKY
from tests.properties.reference import SchemaKey, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An event to append.

    Attributes:
        stream_id: where to.
        shape: as which event type and schema version.
        occurred_at: when it happened.
        payload: in Python values.
        terse: whether optional fields that are None are left out of the JSON text.
        strange: whether it fits no contract.
        text: the JSON text of the payload; made by the engine's rules by default.
    """

    stream_id: str
    schema_key: SchemaKey
    occurred_at: datetime
    payload: Mapping[str, Any]
    terse: bool = False
    strange: bool = False
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Append events at once, of as many streams as they name."""

    events: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Import:
    """Append events as a bulk import, which writes segments."""

    events: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal all that is not sealed yet."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Let a follower catch up."""


History = Sequence[Commit | Import | Seal | Follow]

STREAMS = ("s-0", "s-1", "strøm-2")
WORDS = st.sampled_from(["a", "b", "", "été", "🙂 x", "'q\"\\", "null", "\x00"]) | st.text(max_size=3)
SKUS = st.sampled_from(["a", "b", "B", "é", None])
QUANTITIES = st.sampled_from([0, 1, 2, -3, 95, UNLUCKY, 2**55 + 1, 2**55 + 3, -(2**55) - 1])
PRICES = st.none() | st.sampled_from([Decimal("0.01"), Decimal("19.99"), Decimal("-3.50"), Decimal("0.00")])
REFS = st.none() | st.sampled_from([uuid.UUID(int=1), uuid.UUID(int=3), uuid.UUID(int=(1 << 127) + 5)])
TIMES = st.sampled_from(
    [
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
        datetime(2023, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC),
    ]
)
DAYS = st.none() | st.sampled_from([date(2024, 2, 29), date(1969, 7, 20)])
LINES = st.lists(
    st.fixed_dictionaries({"sku": st.sampled_from(["a", "b", None]), "quantity": st.integers(0, 3)}), max_size=4
)
OWNERS = st.sampled_from(["a", "B", "a+B", "", "a+a", "x+Y+z", "é"])

PAYLOADS: dict[SchemaKey, st.SearchStrategy[dict[str, Any]]] = {
    ("Opened", 1): st.fixed_dictionaries(
        {"owner_name": OWNERS, "day": st.sampled_from(["2024-02-29", "1969-07-20", "", None])}
    ),
    ("Opened", 2): st.fixed_dictionaries({"owner": OWNERS, "day": st.sampled_from(["2024-02-29", None])}),
    ("Opened", 3): st.fixed_dictionaries({"owner": OWNERS, "opened_on": DAYS, "vip": st.booleans()}),
    ("depot.Sold", 1): st.fixed_dictionaries(
        {"sku": SKUS, "quantity": QUANTITIES, "cents": st.sampled_from([None, 1, 1999, -350])}
    ),
    ("depot.Sold", 2): st.fixed_dictionaries(
        {"sku": SKUS, "quantity": QUANTITIES, "price": PRICES, "ref": REFS, "sold_at": st.none() | TIMES}
    ),
    ("Packed", 1): st.fixed_dictionaries({"lines": LINES, "labels": st.lists(WORDS, max_size=4)}),
    ("Labelled", 1): st.fixed_dictionaries({"label": WORDS}),
    ("Addressed", 1): st.fixed_dictionaries({"trail": WORDS, "halves": st.integers(0, 3)}),
    ("Closed", 1): st.just({}),
    ("Recalled", 1): st.fixed_dictionaries({"sku": SKUS, "reason": WORDS, "level": st.integers(0, 2)}),
    ("Bundled", 1): st.fixed_dictionaries({"sku": SKUS, "pieces": st.none() | st.integers(0, 3)}),
    ("Labels", 1): st.fixed_dictionaries({"labels": st.lists(WORDS, max_size=4)}),
    ("Notes", 1): st.fixed_dictionaries({"notes": st.lists(WORDS, max_size=3)}),
    ("Notes", 2): st.fixed_dictionaries({"note": st.none() | WORDS}),
    ("Trio", 1): st.fixed_dictionaries({"parts": st.lists(WORDS, max_size=3)}),
    ("Trio", 2): st.fixed_dictionaries({"part": WORDS}),
    ("Trio", 3): st.fixed_dictionaries({"part": WORDS}),
    ("HalfA", 1): st.fixed_dictionaries({"street": st.sampled_from(["x", "", "nowhere", None])}),
    ("HalfA", 2): st.fixed_dictionaries({"street": WORDS}),
    ("HalfB", 1): st.fixed_dictionaries({"city": WORDS}),
}
"""Every event type and schema version that a depot's log may hold."""

BREAKING: dict[SchemaKey, st.SearchStrategy[dict[str, Any]]] = {
    ("Opened", 1): st.just({"owner_name": POISON, "day": None}),
    ("Opened", 2): st.sampled_from([{"owner": "a", "day": "some day"}, {"owner": POISON, "day": None}]),
    ("depot.Sold", 2): st.fixed_dictionaries(
        {
            "sku": st.sampled_from([None, "a"]),
            "quantity": st.just(UNLUCKY),
            "price": PRICES,
            "ref": REFS,
            "sold_at": st.none(),
        }
    ),
    ("Packed", 1): st.just({"lines": [{"sku": "a", "quantity": 1}, {"sku": None, "quantity": 2}], "labels": ["a"]}),
    ("Recalled", 1): st.just({"sku": None, "reason": "", "level": 1}),
    ("Bundled", 1): st.fixed_dictionaries({"sku": SKUS, "pieces": st.integers(0, 3)}),
    ("Labels", 1): st.just({"labels": ["fine", "bad"]}),
    ("Notes", 1): st.just({"notes": ["fine", "bad"]}),
    ("Trio", 1): st.just({"parts": ["bad", "fine"]}),
    ("HalfA", 2): st.sampled_from([{"street": "bad"}, {"street": "x"}, {"street": POISON}]),
    ("HalfB", 1): st.sampled_from([{"city": "bad"}, {"city": "y"}, {"city": POISON}]),
}
"""Events that some of the fragile read models cannot apply."""

STRANGE: dict[SchemaKey, st.SearchStrategy[dict[str, Any]]] = {
    ("Unheard", 1): st.just({"a": 1}),
    ("Recalled", 7): st.just({}),
    ("Labelled", 1): st.just({"label": None}),
    ("Closed", 1): st.just({"why": "no such field"}),
}
"""Events that match no contract."""


def _given(
    payloads: Mapping[SchemaKey, st.SearchStrategy[dict[str, Any]]], streams: Sequence[str], *, strange: bool = False
) -> Any:
    def events(schema_key: SchemaKey) -> Any:
        return st.builds(
            Given,
            stream_id=st.sampled_from(streams),
            schema_key=st.just(schema_key),
            occurred_at=TIMES,
            payload=payloads[schema_key],
            terse=st.booleans(),
            strange=st.just(strange),
        )

    return st.sampled_from(sorted(payloads)).flatmap(events)


def _leading_shapes(event_types: set[str]) -> list[SchemaKey]:
    """Pick the shapes that matter to some event types."""
    retired = {
        "depot.Sold": {"Bundled"},
        "Packed": {"Bundled"},
        "Labelled": {"Labels", "Notes", "Trio"},
        "Addressed": {"HalfA", "HalfB"},
    }
    wanted = event_types.union(*(retired.get(t, set()) for t in event_types))
    return [schema_key for schema_key in PAYLOADS if schema_key[0] in wanted]


def events(schema_keys: Sequence[SchemaKey], *, breaking: bool = False, streams: Sequence[str] = STREAMS) -> Any:
    """Draw events, most of them of some schemas; some may be invalid."""
    choices = [_given({s: PAYLOADS[s] for s in schema_keys}, streams)] * 5 + [_given(PAYLOADS, streams)]
    if breaking:
        choices += [_given({s: b for s, b in BREAKING.items() if s in schema_keys} or BREAKING, streams)] * 3
        choices += [_given(STRANGE, streams, strange=True)]
    return st.one_of(choices)


@st.composite
def histories(
    draw: st.DrawFn, event_types: Sequence[str], *, breaking: bool = False, max_steps: int = 9, follow: bool = False
) -> list[Commit | Import | Seal | Follow]:
    """Give a history: commits of some events each, with seals, imports and followers between them.

    It is made of few shapes, others each time: so those that there are meet one another often.
    """
    schema_keys = draw(
        st.lists(st.sampled_from(_leading_shapes(set(event_types))), min_size=1, max_size=5, unique=True)
    )
    commits = st.builds(Commit, st.lists(events(schema_keys, breaking=breaking), min_size=1, max_size=6).map(tuple))
    steps: list[Commit | Import | Seal | Follow] = draw(st.lists(commits, min_size=1, max_size=max_steps))
    for between in (Seal(), Follow()) if follow else (Seal(),):
        for place in sorted(draw(st.lists(st.integers(0, len(steps)), max_size=3)), reverse=True):
            steps.insert(place, between)
    if draw(st.integers(0, 3)) == 0:
        own = [f"bulk-{i}" for i in range(3)]
        imported = draw(st.lists(events(schema_keys, streams=own), min_size=1, max_size=8))
        steps.insert(draw(st.integers(0, len(steps))), Import(tuple(imported)))
    return steps


def stored_events(history: History) -> list[Stored]:
    """Number the events of a history as the log does."""
    return list(_stored(history))


def _stored(history: History) -> Iterator[Stored]:
    position, number = 0, 0
    versions: dict[str, int] = {}
    for step in history:
        if not isinstance(step, Commit | Import):
            continue
        number += 1
        for given in step.events:
            position += 1
            versions[given.stream_id] = versions.get(given.stream_id, 0) + 1
            yield Stored(
                position=position,
                commit_number=number,
                stream_id=given.stream_id,
                stream_version=versions[given.stream_id],
                schema_key=given.schema_key,
                occurred_at=given.occurred_at,
                payload=given.payload,
                strange=given.strange,
            )
