"""One read model: what an event contributes to it, and the rows that contributions make, one after the other."""

from __future__ import annotations

import copy
import itertools
import math
from collections import namedtuple
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from refold.event_schemas import event_type_of, schema_of
from refold.warehouse.declarations.handlers import Delete
from refold.warehouse.declarations.projection import Fold, ReadModel
from refold.warehouse.declarations.reducers import Kind, Reducer
from refold.warehouse.sequential_fold import combine
from refold.warehouse.sequential_fold.limits import Limits, limits_of
from refold.warehouse.sequential_fold.one_event import OneEvent
from refold.warehouse.sequential_fold.sample import Sample
from refold.warehouse.sequential_fold.upcast import InvalidError, Made
from refold.warehouse.sequential_fold.values import name_in_sql

_NOT_EXACT = ("_NS", "INTERVAL")


class NotByStreamError(Exception):
    """A key of a read model that is taken to be keyed by the stream belongs to another stream."""


def exact_in_python(model: ReadModel) -> str | None:
    """Return a type of the read model whose values Python cannot hold without loss; None if there is none."""
    types = [*model.key.values(), *filter(None, _value_types(model).values())]
    return next((t for t in types if any(part in t.upper() for part in _NOT_EXACT)), None)


_Value = TypeVar("_Value")
Row = tuple[tuple[Any, ...], dict[str, Any]]
"""A key, and the state of its row: what the fold function returned, or the value of each column."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one row of a handler contributes.

    Attributes:
        origins: the positions of the recorded events that it comes from.
        position: the position of the event.
        event_type: the type of the event.
        key: the key of the row.
        values: column to value; None deletes the row.
    """

    origins: frozenset[int]
    position: int
    event_type: str
    key: tuple[Any, ...]
    values: Mapping[str, Any] | None


@dataclass(slots=True)
class Table:
    """The rows of one read model.

    Args:
        model: its declaration.
        sql: where handlers run.
        sample: the keys to keep; all by default.

    Attributes:
        rows: key to row, also those that are withheld.
        withheld: key of a row with a total that does not fit its column, to the position since which none did.
    """

    model: ReadModel
    sql: OneEvent
    sample: Sample | None = None
    rows: dict[Hashable, Row] = field(default_factory=dict)
    withheld: dict[Hashable, int] = field(default_factory=dict)
    _handlers: dict[str, tuple[type, str, bool]] = field(init=False)
    _ranks: dict[str, Callable[[Any], Any]] = field(init=False)
    _limits: dict[str, Limits] = field(init=False)

    def __post_init__(self) -> None:
        selects = {
            cls: (on.select, True) if isinstance(on, Delete) else (on, False) for cls, on in self.model.on.items()
        }
        self._handlers = {event_type_of(cls): (cls, *select) for cls, select in selects.items()}
        reducers = {} if isinstance(self.model, Fold) else self.model.columns
        self._ranks = {name: _rank_of(self.sql, reducer) for name, reducer in reducers.items()}
        totals = {name: str(reducer.type) for name, reducer in reducers.items() if reducer.kind is Kind.TOTAL}
        self._limits = {name: limits_of(_own_name(self.sql, dtype)) for name, dtype in totals.items()}

    def contributions(self, made: Made) -> list[Contribution]:
        """Return what one event contributes to the keys of the sample.

        Raises:
            InvalidError: the handler fails on the event, yields NULL in a key, or what is no number for a total.
        """
        event = made.event
        if event.event_type not in self._handlers:
            return []
        cls, select, deletes = self._handlers[event.event_type]
        types, values, sample = _value_types(self.model), list[str](), self.sample

        def outputs(names: frozenset[str]) -> list[str]:
            values.extend(n for n in types if n.lower() in names)
            typed = [*self.model.key.items(), *((n, types[n]) for n in values)]
            return [*(_cast(n, t) for n, t in typed), sample.condition() if sample else "true"]

        try:
            rows = self.sql.rows(select, event, schema_of(cls), outputs)
        except Exception as error:
            raise InvalidError(made.origins) from error
        width = len(self.model.key)
        if any(value is None for row in rows for value in row[:width]):
            raise InvalidError(made.origins)
        self._check_stream(event.stream_id, [row[:width] for row in rows])
        given = [{n: _in_utc(v) for n, v in zip(values, row[width:], strict=False)} for row in rows]
        if not deletes and any(_is_no_number(each[n]) for each in given for n in each.keys() & self._limits.keys()):
            raise InvalidError(made.origins)
        return [
            Contribution(
                made.origins,
                event.position,
                event.event_type,
                key=tuple(map(combine.with_one_zero, row[:width])),
                values=None if deletes else each,
            )
            for row, each in zip(rows, given, strict=True)
            if row[-1]
        ]

    def _check_stream(self, stream_id: str, keys: Sequence[tuple[Any, ...]]) -> None:
        """Check what the sample relies on: that the events of other streams cannot reach the keys of this one."""
        if self.sample is not None and self.sample.by_stream:
            index = list(self.model.key).index(self.sample.columns[0])
            if any(key[index] != stream_id for key in keys):
                raise NotByStreamError(self.model.name)

    def apply(self, contributions: Sequence[Contribution]) -> None:
        """Apply the contributions of one commit, in order, all or none.

        Raises:
            InvalidError: the fold function fails on one of them.
        """
        changed: dict[Hashable, Row | None] = {}
        withheld: dict[Hashable, int | None] = {}
        for position, together in itertools.groupby(contributions, key=lambda c: c.position):
            touched = [self._apply(contribution, changed, withheld) for contribution in together]
            for key in touched:
                row = changed[key]
                if row is None or self._fits(row[1]):
                    withheld[key] = None
                elif withheld.get(key, self.withheld.get(key)) is None:
                    withheld[key] = position
        _update(self.rows, changed)
        _update(self.withheld, withheld)

    def _apply(
        self, given: Contribution, changed: dict[Hashable, Row | None], withheld: dict[Hashable, int | None]
    ) -> Hashable:
        """Apply one contribution to what the commit changed so far, and return the key."""
        key = combine.identity(list(given.key))
        row = changed[key] if key in changed else self.rows.get(key)
        try:
            state = self._next_state(None if row is None else row[1], given, copied=key not in changed)
        except Exception as error:  # the user's function may raise anything
            raise InvalidError(given.origins) from error
        changed[key] = None if state is None else (given.key if row is None else row[0], state)
        if state is None:
            withheld[key] = None
        return key

    def _fits(self, state: Mapping[str, Any]) -> bool:
        return all(limits.fits(state[name]) for name, limits in self._limits.items())

    def _next_state(self, state: dict[str, Any] | None, given: Contribution, *, copied: bool) -> dict[str, Any] | None:
        if given.values is None:
            return None
        if isinstance(self.model, Fold):
            names = sorted(given.values)
            row_class = namedtuple("Event", names)  # type: ignore[misc]
            row_class.event_type = given.event_type  # type: ignore[attr-defined]
            event = row_class(*(given.values[n] for n in names))
            return self.model.fold(copy.deepcopy(state) if copied else state, event)
        columns = self.model.columns
        state = state or {n: combine.START[r.kind]() for n, r in columns.items()}
        return state | {
            n: combine.combine(columns[n].kind, state[n], v, self._ranks[n]) for n, v in given.values.items()
        }

    def published(self) -> list[dict[str, Any]]:
        """Return the rows as readers see them."""
        return [
            self._key(key) | self._columns(state) for i, (key, state) in self.rows.items() if i not in self.withheld
        ]

    def withheld_rows(self) -> list[dict[str, Any]]:
        """Return the withheld rows as ``refold.withheld_<model>`` has them, described in ``file-formats.md``."""
        return [
            self._key(key) | self._columns(state) | self._beyond(state) | {"_position": self.withheld[i]}
            for i, (key, state) in self.rows.items()
            if i in self.withheld
        ]

    def _key(self, key: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.model.key, key, strict=True))

    def _columns(self, state: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(self.model, Fold):
            return {name: state.get(name) for name in self.model.columns}
        values = {name: combine.published(r.kind, state[name]) for name, r in self.model.columns.items()}
        return values | {name: None for name, limits in self._limits.items() if not limits.fits(state[name])}

    def _beyond(self, state: Mapping[str, Any]) -> dict[str, str | None]:
        totals = ((name, limits, state[name]) for name, limits in self._limits.items())
        return {f"_beyond_{n}": None if limits.fits(total) else limits.text(total) for n, limits, total in totals}


def _update(kept: dict[Hashable, _Value], changed: Mapping[Hashable, _Value | None]) -> None:
    """Change what is kept of some keys; None removes it."""
    for key, value in changed.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def _value_types(model: ReadModel) -> Mapping[str, str | None]:
    """Return what handlers may contribute, with the DuckDB types; None for any."""
    return model.event_columns if isinstance(model, Fold) else {n: r.type for n, r in model.columns.items()}


def _cast(name: str, dtype: str | None) -> str:
    return name_in_sql(name) if dtype is None else f"CAST({name_in_sql(name)} AS {dtype})"


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _own_name(sql: OneEvent, dtype: str) -> str:
    """Return DuckDB's own name of a type."""
    return str(sql.connection.execute(f"SELECT typeof(NULL::{dtype})").fetchall()[0][0])


def _rank_of(sql: OneEvent, reducer: Reducer) -> Callable[[Any], Any]:
    """Return what orders a column's contributions; the members of an ENUM have the order of their declaration."""
    if reducer.kind in (Kind.MINIMUM, Kind.MAXIMUM) and str(reducer.type).upper().startswith("ENUM"):
        members = sql.connection.execute(f"SELECT enum_range(NULL::{reducer.type})").fetchall()[0][0]
        return {name: i for i, name in enumerate(members)}.__getitem__
    return combine.rank
