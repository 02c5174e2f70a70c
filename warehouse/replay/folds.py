"""Python folds over sorted contributions, tuned for speed.

Columns become Python lists through their dictionary encoding, so each distinct value is converted once. Rows become
named tuples, with one class an event type. The state is a plain dict.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial, reduce
from itertools import chain, islice, repeat
from numbers import Integral
from operator import itemgetter, length_hint, mul
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.types as pt

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.handlers import Handler, arrow_type
from refold.warehouse.declarations.projection import Fold, State
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.engine.duckdb_types import staged, staged_type
from refold.warehouse.engine.sql import columns, quote
from refold.warehouse.replay.contributions import Compiled, position_of

_DIGITS_IN_64_BITS = 18


class FoldFailure(Exception):
    """A fold function raised at the event at ``position``."""

    def __init__(self, position: int, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(position, reason)


def fold_rows(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, source: str, *, table: str | None = None
) -> pa.Table:
    """Fold contributions, key by key, in position order.

    DuckDB numbers the keys: so equal keys are those that it compares as equal, and Python never compares them.

    Args:
        connection: a connection on which ``source`` can be queried.
        compiled: a compiled fold.
        source: a relation of contributions.
        table: a table with the states to continue from; by default, each key starts at None.

    Returns:
        The rows of the keys that have a contribution, in their staged types; without those that the fold deletes.

    Raises:
        FoldFailure: the function raised.
        ProjectionError: a state has a value that its column cannot hold; the message names the column.
    """
    fold = _fold(compiled)
    numbered = f"SELECT *, dense_rank() OVER (ORDER BY {compiled.keys}) AS _key FROM ({source})"
    typed = staged(f"({numbered})", {**fold.key, "_key": "BIGINT"})
    position = f"{position_of(compiled)} AS _position"
    sorted_ = f"SELECT * EXCLUDE (_at), {position} FROM ({typed}) ORDER BY _key, _at"
    contributed = connection.sql(sorted_).to_arrow_table()
    before = _load_states(connection, compiled, table, numbered) if table else {}
    starts = _key_starts(contributed)
    states = _run(fold, contributed, starts, before)
    alive = [(start, state) for start, state in zip(starts, states, strict=True) if state is not None]
    rows = contributed.select(list(fold.key)).take(pa.array([start for start, _ in alive], pa.int64()))
    for name, array in _state_arrays(fold, [state for _, state in alive]).items():
        rows = rows.append_column(name, array)
    return rows


def _run(fold: Fold, table: pa.Table, starts: list[int], before: Mapping[int, State]) -> list[State]:
    """Fold rows that are sorted by key. The loop over the events of one key is ``reduce``, which runs in C."""
    finished: list[State] = []
    if len(table) == 0:
        return finished
    tags = iter(_to_list(table["_handler"]))
    try:
        events = _events(table, fold.handlers, tags)
    except OverflowError as error:
        raise _unreadable(table) from error
    numbers = table["_key"].take(pa.array(starts, pa.int64())).to_pylist()
    try:
        for key, start, end in zip(numbers, starts, [*starts[1:], len(table)], strict=True):
            finished.append(reduce(fold.fold, islice(events, end - start), before.get(key)))
    except Exception as error:  # the user's function may raise anything
        failed_at = len(table) - length_hint(tags) - 1
        position = table["_position"][failed_at].as_py()
        raise FoldFailure(position, f"the fold raised {type(error).__name__}: {error}") from error
    return finished


def _unreadable(table: pa.Table) -> FoldFailure:
    """Return the failure of the first row with a value that Python does not have, such as an infinite time."""
    for index, position in enumerate(table["_position"].to_pylist()):
        for name in table.column_names:
            try:
                table[name][index].as_py()
            except OverflowError:
                return FoldFailure(position, f"column {name}: the time is infinite or outside the years 1 to 9999")
    raise AssertionError("every row can be read")


def _key_starts(table: pa.Table) -> list[int]:
    """Return the indexes of the rows where a new key begins."""
    if len(table) == 0:
        return []
    numbers = table["_key"].to_numpy()
    return [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()]


def _events(table: pa.Table, handlers: tuple[Handler, ...], tags: Iterator[int]) -> Iterator[Any]:
    """Yield rows as named tuples, one for each tag taken; each event type has its own class of tuples."""
    present = pa.compute.unique(table["_handler"]).to_pylist()
    streams = {}
    for tag in present:
        handler = handlers[tag]
        own = table if len(present) == 1 else table.filter(pa.compute.equal(table["_handler"], tag))
        names = sorted(handler.names)
        row_class = namedtuple("Event", names)  # type: ignore[misc]
        row_class.event_type = handler.event_type  # type: ignore[attr-defined]
        rows = zip(*(_to_list(own[name]) for name in names), strict=True) if names else repeat((), len(own))
        streams[tag] = map(partial(tuple.__new__, row_class), rows)  # twice as fast as the class's own constructor
    if len(present) == 1:
        return map(itemgetter(1), zip(tags, streams[present[0]], strict=True))
    return (next(streams[tag]) for tag in tags)


def _to_list(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as Python values; each distinct value is converted once."""
    if len(column) == 0:  # Arrow fails on an empty column of UUIDs
        return []
    array = column.combine_chunks()
    if pt.is_integer(array.type) or pt.is_boolean(array.type) or pt.is_nested(array.type) or pt.is_null(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    if isinstance(array.type, pa.BaseExtensionType):
        return array.to_pylist()  # type: ignore[no-any-return]
    encoded = array.dictionary_encode()
    values = np.array([*_scalars(encoded.dictionary), None], dtype=object)
    indices = encoded.indices.fill_null(len(values) - 1).to_numpy()
    return values[indices].tolist()  # type: ignore[no-any-return]


def _scalars(array: pa.Array) -> list[Any]:
    """Return distinct values as Python values; decimals through 64-bit integers, twice as fast as Arrow."""
    if not pt.is_decimal128(array.type) or array.type.precision > _DIGITS_IN_64_BITS or array.type.scale < 0:
        return array.to_pylist()  # type: ignore[no-any-return]
    lower_halves = np.frombuffer(array.buffers()[1], dtype=np.int64)[2 * array.offset :: 2][: len(array)]
    unit = Decimal(1).scaleb(-array.type.scale)
    return list(map(mul, map(Decimal, lower_halves.tolist()), repeat(unit)))


def _state_arrays(fold: Fold, states: list[State]) -> dict[str, pa.Array]:
    """Return the columns of states, for a published table."""
    for state in states:
        _check_state(fold, state)
    return {
        name: _array(fold, name, declared, [s.get(name) for s in states if s is not None])
        for name, declared in fold.columns.items()
    }


def _check_state(fold: Fold, state: Any) -> None:
    """Check that the published table can hold a state, because an increment reads it back from there."""
    if not isinstance(state, dict):
        raise ProjectionError(
            f"Fold {fold.name}: the state is {state!r}; expected a dict of its columns, or None to delete the row."
        )
    if not state.keys() <= fold.columns.keys():
        unknown = ", ".join(sorted(map(str, state.keys() - fold.columns.keys())))
        raise ProjectionError(
            f"Fold {fold.name}: the state has {unknown}, which is not a column and would be lost between increments. "
            "Declare it in columns=."
        )


def _array(fold: Fold, name: str, declared: str, values: list[Any]) -> pa.Array:
    dtype = arrow_type(staged_type(declared), where=f"Fold {fold.name}, column {name}")
    try:
        _check_exact(values, dtype)
        if pt.is_decimal(dtype):
            values = [Decimal(v) if isinstance(v, int) else v for v in values]
        return array_of(values, dtype)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ProjectionError(
            f"Fold {fold.name}, column {name}: the state has a value that does not fit {declared} ({error}). Quantize "
            "or convert it in the fold."
        ) from error


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], type, type | tuple[()]], ...] = (
    (pt.is_integer, Integral, bool),
    (pt.is_floating, object, bool),
    (pt.is_decimal, object, bool),
    (pt.is_boolean, bool, ()),
    (pt.is_string, str, ()),
    (pt.is_date, date, datetime),
    (lambda _dtype: True, object, ()),
)
"""The kind of values of a type, and a kind among them that Arrow would change."""


def _check_exact(values: Sequence[Any], dtype: pa.DataType) -> None:
    """Check, at any depth, that Arrow would cut nothing off silently: the fraction of a number, the time of a date.

    Raises:
        TypeError: a value is of another kind.
        OverflowError: a time is outside the years 1 to 9999 in UTC, and could not be read back.
    """
    if pt.is_list(dtype) or pt.is_struct(dtype):
        present = [value for value in values if value is not None]
        if pt.is_list(dtype):
            _check_exact(list(chain.from_iterable(present)), dtype.value_type)
        for field in dtype.fields if pt.is_struct(dtype) else ():
            _check_exact([value.get(field.name) for value in present if isinstance(value, Mapping)], field.type)
        return
    wanted, changed = next((kind, other) for matches, kind, other in _KINDS if matches(dtype))
    for kind in set(map(type, values)) - {type(None)}:
        if not issubclass(kind, wanted) or issubclass(kind, changed):
            raise TypeError(f"found {kind.__name__}")
    if pt.is_timestamp(dtype):
        for value in values:
            if isinstance(value, datetime) and value.tzinfo is not None and value.year in (1, 9999):
                value.astimezone(UTC)


def _load_states(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, table: str, numbered: str
) -> dict[int, State]:
    """Return the states that a published table has, by the numbers of their keys."""
    fold = _fold(compiled)
    wanted = f"SELECT DISTINCT _key, {compiled.keys} FROM ({numbered})"
    found = connection.sql(
        f"SELECT {columns(['_key', *fold.columns])} FROM {quote(table)} JOIN ({wanted}) USING ({compiled.keys})"
    ).to_arrow_table()
    values: Iterable[tuple[Any, ...]] = zip(*(_to_list(found[c]) for c in fold.columns), strict=True)
    if not fold.columns:
        values = ((),) * len(found)
    return {k: dict(zip(fold.columns, v, strict=True)) for k, v in zip(_to_list(found["_key"]), values, strict=True)}


def _fold(compiled: Compiled) -> Fold:
    assert isinstance(compiled.model, Fold), "only a fold has states"
    return compiled.model
