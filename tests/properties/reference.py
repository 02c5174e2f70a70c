"""The expected result of a history: a sequential fold in pure Python, which shares no code with the engine.

Every stored event is carried to its newest form, in position order; every read model then folds what its handlers,
written in Python, make of it. An event that a read model cannot apply is left out as if it had never been stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

SchemaKey = tuple[str, int]
Payload = Mapping[str, Any]
Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An event as it was appended; ``payload`` in Python values of the stored shape, unless it is strange to it."""

    position: int
    commit_number: int
    stream_id: str
    stream_version: int
    schema_key: SchemaKey
    occurred_at: datetime
    payload: Payload
    strange: bool = False


@dataclass(frozen=True, slots=True)
class _Carried:
    """An event on its way to its newest form: what it came from, and its place among its siblings."""

    last: Stored
    origins: frozenset[int]
    path: tuple[int, ...]
    schema_key: SchemaKey
    payload: Payload

    def as_event(self) -> SimpleNamespace:
        event = self.last
        return SimpleNamespace(
            position=event.position,
            commit_number=event.commit_number,
            stream_id=event.stream_id,
            stream_version=event.stream_version,
            event_type=self.schema_key[0],
            occurred_at=event.occurred_at,
            **self.payload,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """An upcaster: the shapes it reads, those it may yield, and one event (or a run) to (shape, payload) pairs."""

    sources: tuple[SchemaKey, ...]
    targets: frozenset[SchemaKey]
    apply: Callable[[list[SimpleNamespace]], list[tuple[SchemaKey, Payload]]]
    merges: bool = False

    @classmethod
    def one(
        cls, event_type: str, version: int, to_type: str, to_version: int, twin: Callable[[Any], list[Row]]
    ) -> Step:
        """Say an SQL upcaster in Python."""
        to = (to_type, to_version)
        return cls(((event_type, version),), frozenset({to}), lambda run: [(to, row) for row in twin(run[0])])

    @classmethod
    def of(cls, upcaster: Any) -> Step:
        """Take the user's own function of an upcaster that is written in Python anyway."""
        sources = tuple((s.event_type, s.schema_version) for s in upcaster.sources)
        following = (sources[0][0], sources[0][1] + 1)
        classes = {c: (c.__event_type__, c.__schema_version__) for c in upcaster.into}
        merges = upcaster.form.value == "merge"

        def apply(run: list[SimpleNamespace]) -> list[tuple[SchemaKey, Payload]]:
            made = upcaster.function(run if merges else run[0])
            return [(classes[type(m)], dataclasses.asdict(m)) if type(m) in classes else (following, m) for m in made]

        return cls(sources, frozenset(classes.values()) or frozenset({following}), apply, merges)


@dataclass(frozen=True, slots=True)
class Model:
    """What a read model means.

    Attributes:
        name: the table.
        key: its key columns.
        handlers: event type to a function from an event to rows, and whether they are deletions.
        kinds: column to the name of its reducer.
        fold: for a fold, its function.
        fold_columns: for a fold, its columns.
    """

    name: str
    key: tuple[str, ...]
    handlers: Mapping[str, tuple[Callable[[Any], list[Row]], bool]]
    kinds: Mapping[str, str] = field(default_factory=dict)
    fold: Callable[..., Any] | None = None
    fold_columns: tuple[str, ...] = ()


REDUCERS: dict[str, Callable[[list[Any]], Any]] = {
    "total": lambda given: sum(v for v in given if v is not None),
    "count": lambda given: sum(v is not None for v in given),
    "minimum": lambda given: min((v for v in given if v is not None), default=None),
    "maximum": lambda given: max((v for v in given if v is not None), default=None),
    "first": lambda given: next((v for v in given if v is not None), None),
    "latest": lambda given: given[-1] if given else None,
    "collect": lambda given: [v for v in given if v is not None],
    "count_distinct": lambda given: len({v for v in given if v is not None}),
}
"""What each reducer makes of all that events contributed to its column, in order."""


@dataclass(frozen=True, slots=True)
class Folded:
    """The result of a history.

    Attributes:
        rows: one dict a row.
        invalid: positions of the events that the read model leaves out.
    """

    rows: list[Row]
    invalid: frozenset[int]


class _InvalidEvents(Exception):
    """Some stored events cannot be applied."""

    def __init__(self, origins: Iterable[int]) -> None:
        self.origins = frozenset(origins)
        super().__init__()


def fold_history(history: Sequence[Stored], steps: Sequence[Step], model: Model) -> Folded:
    """Fold a history, one event after the other; start again without events that turn out to be invalid."""
    invalid: frozenset[int] = frozenset()
    while True:
        kept = [e for e in history if e.position not in invalid and not e.strange]
        try:
            return Folded(_fold(list(_newest(kept, steps, set(model.handlers))), model), invalid)
        except _InvalidEvents as found:
            invalid |= found.origins


def _newest(history: Sequence[Stored], steps: Sequence[Step], wanted: set[str]) -> Iterator[_Carried]:
    """Carry events to their newest form, in the order of position, and of siblings within it."""
    leading = _leading_to(steps, wanted)
    finished: list[_Carried] = []
    waiting = [
        _Carried(e, frozenset({e.position}), (), e.schema_key, e.payload)
        for e in sorted(history, key=lambda e: e.position)
    ]
    while waiting:
        moved: list[_Carried] = []
        for step in leading:
            mine = [c for c in waiting if c.schema_key in step.sources]
            feeders = {schema_key for s in leading if s.targets & {*step.sources} for schema_key in s.sources}
            if step.merges and any(c.schema_key in feeders for c in waiting):
                moved += mine  # others are still on their way to this merger
                continue
            for run in _runs(mine) if step.merges else [[c] for c in mine]:
                moved += _applied(step, run)
        through = {schema_key for step in leading for schema_key in step.sources}
        finished += [c for c in waiting if c.schema_key not in through]
        waiting = moved
    return iter(sorted(finished, key=lambda c: (c.last.position, c.path)))


def _leading_to(steps: Sequence[Step], wanted: set[str]) -> list[Step]:
    schema_keys = {schema_key for step in steps for schema_key in step.targets if schema_key[0] in wanted}
    leading: list[Step] = []
    while more := [s for s in steps if s not in leading and s.targets & schema_keys]:
        leading += more
        schema_keys |= {source for step in more for source in step.sources}
    return leading


def _runs(given: list[_Carried]) -> list[list[_Carried]]:
    """Cut a stream's events into runs: one commit, and no other event of the stream between them."""
    runs: list[list[_Carried]] = []
    for c in sorted(given, key=lambda c: (c.last.stream_id, c.last.stream_version, c.path)):
        before = runs[-1][-1].last if runs else None
        if (
            before is not None
            and before.stream_id == c.last.stream_id
            and before.commit_number == c.last.commit_number
            and c.last.stream_version <= before.stream_version + 1
        ):
            runs[-1].append(c)
        else:
            runs.append([c])
    return runs


def _applied(step: Step, run: list[_Carried]) -> list[_Carried]:
    origins = frozenset().union(*(c.origins for c in run))
    events = [c.as_event() for c in run]
    for event, c in zip(events, run, strict=True):
        event.payload = c.payload
    try:
        made = step.apply(events)
    except Exception:
        raise _InvalidEvents(origins) from None
    last = run[-1]
    return [_Carried(last.last, origins, (*last.path, i), schema_key, p) for i, (schema_key, p) in enumerate(made)]


def _fold(events: list[_Carried], model: Model) -> list[Row]:
    states: dict[Key, Any] = {}
    for c in events:
        if c.schema_key[0] not in model.handlers:
            continue
        handler, deletes = model.handlers[c.schema_key[0]]
        try:
            _take(states, handler(c.as_event()), model, c.schema_key[0], deletes=deletes)
        except Exception:
            raise _InvalidEvents(c.origins) from None
    return [{**dict(zip(model.key, key, strict=True)), **_values(model, state)} for key, state in states.items()]


def _take(states: dict[Key, Any], rows: list[Row], model: Model, event_type: str, *, deletes: bool) -> None:
    keys = [tuple(row.pop(k) for k in model.key) for row in rows]
    if any(value is None for key in keys for value in key):
        raise ValueError("a key is NULL")
    for key, row in zip(keys, rows, strict=True):
        if deletes:
            states.pop(key, None)
        elif model.fold is not None:
            state = model.fold(states.get(key), SimpleNamespace(event_type=event_type, **row))
            states.pop(key, None) if state is None else states.__setitem__(key, state)
        else:
            given = states.setdefault(key, {column: [] for column in model.kinds})
            for column, value in row.items():
                given[column].append(value)


def _values(model: Model, state: Any) -> Row:
    if model.fold is not None:
        return {column: state.get(column) for column in model.fold_columns}
    return {column: REDUCERS[kind](state[column]) for column, kind in model.kinds.items()}
