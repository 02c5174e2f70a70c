"""Running Python folds over sorted contributions, as fast as Python goes.

Columns become Python lists by way of their dictionaries (each distinct value is converted once), rows become named tuples
of one class an event type, and the loop holds the state in a plain dict.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from event_schemas import ProjectionError
from warehouse.contributions import Compiled, position_of
from warehouse.projection import Fold, Handler, State, arrow_type
from warehouse.sql import columns, quote

Key = tuple[Any, ...]


class FoldFailure(Exception):
    """A fold function raised; ``position`` says at which event."""

    def __init__(self, position: int, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(position, reason)


def fold_rows(
    connection: duckdb.DuckDBPyConnection,
    compiled: Compiled,
    source: str,
    *,
    states: Mapping[Key, State] | None = None,
) -> dict[Key, State]:
    """Fold contributions, key by key, in position order.

    Args:
        connection: where ``source`` can be queried.
        compiled: of a fold.
        source: a relation of contributions.
        states: states to go on from; a key that is absent starts at None.

    Returns:
        Key to last state, for every key that has a contribution; None where the row is to go.

    Raises:
        FoldFailure: the function raised.
    """
    fold = _fold(compiled)
    position = f"{position_of(compiled)} AS _position"
    query = f"SELECT * EXCLUDE (_at), {position} FROM ({source}) ORDER BY {compiled.keys}, _at"
    table = connection.sql(query).to_arrow_table()
    keys = zip(*(_to_list(table[k]) for k in fold.key), strict=True)
    positions = table["_position"].to_pylist()
    events = _events(table, fold.handlers)
    return _run(fold.fold, zip(keys, positions, events, strict=True), states or {})


def _run(
    function: Callable[[Any, Any], State], rows: Iterable[tuple[Key, int, Any]], before: Mapping[Key, State]
) -> dict[Key, State]:
    finished: dict[Key, State] = {}
    current: Key | None = None
    state: State = None
    position = 0
    try:
        for key, position, event in rows:  # noqa: B007 - the position is for the failure
            if key != current:
                if current is not None:
                    finished[current] = state
                current, state = key, before.get(key)
            state = function(state, event)
    except Exception as error:  # whatever a user's function raises is this event's failure
        raise FoldFailure(position, f"the fold raised {type(error).__name__}: {error}") from error
    if current is not None:
        finished[current] = state
    return finished


def _events(table: pa.Table, handlers: tuple[Handler, ...]) -> Iterator[Any]:
    """Turn rows into named tuples; the class of a tuple is that of its event type."""
    tags = _to_list(table["_handler"])
    present = sorted(set(tags))
    if not present:
        return iter(())
    streams = {}
    for tag in present:
        handler = handlers[tag]
        own = table if len(present) == 1 else table.filter(pa.compute.equal(table["_handler"], tag))
        names = sorted(handler.names)
        row_class = namedtuple(handler.event_type, names)  # type: ignore[misc]
        row_class.event_type = handler.event_type  # type: ignore[attr-defined]
        lists = [_to_list(own[name]) for name in names]
        streams[tag] = map(row_class._make, zip(*lists, strict=True)) if names else iter([row_class()] * len(own))
    if len(present) == 1:
        return streams[present[0]]
    return (next(streams[tag]) for tag in tags)


def _to_list(column: pa.ChunkedArray) -> list[Any]:
    """Convert a column to Python values, each distinct value once."""
    array = column.combine_chunks()
    if pt.is_integer(array.type) or pt.is_boolean(array.type) or pt.is_nested(array.type) or pt.is_null(array.type):
        return array.to_pylist()  # type: ignore[no-any-return]
    if isinstance(array.type, pa.BaseExtensionType):
        return array.to_pylist()  # type: ignore[no-any-return]
    encoded = array.dictionary_encode()
    values = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    indices = encoded.indices.fill_null(len(values) - 1).to_numpy()
    return values[indices].tolist()  # type: ignore[no-any-return]


def states_table(compiled: Compiled, states: Mapping[Key, State]) -> pa.Table:
    """Write states that are not None as rows of the published table.

    Raises:
        ProjectionError: a state has a value that its column cannot hold; the message names the column.
    """
    fold = _fold(compiled)
    alive = {k: s for k, s in states.items() if s is not None}
    arrays: dict[str, pa.Array] = {}
    for index, (name, declared) in enumerate(fold.key.items()):
        arrays[name] = _array(fold, name, declared, [k[index] for k in alive])
    for name, declared in fold.columns.items():
        arrays[name] = _array(fold, name, declared, [s.get(name) for s in alive.values() if s is not None])
    return pa.table(arrays)


def _array(fold: Fold, name: str, declared: str, values: list[Any]) -> pa.Array:
    dtype = arrow_type(declared, where=f"Fold {fold.name}, column {name}")
    try:
        if pt.is_decimal(dtype):
            values = [Decimal(v) if isinstance(v, int) else v for v in values]
        return pa.array(values, dtype)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ProjectionError(
            f"Fold {fold.name}, column {name}: the state holds a value that is no {declared} ({error}). Quantize or "
            "convert it in the fold."
        ) from error


def load_states(connection: duckdb.DuckDBPyConnection, compiled: Compiled, table: str, source: str) -> dict[Key, State]:
    """Read the states that a published table holds for the keys of some contributions."""
    fold = _fold(compiled)
    wanted = f"SELECT DISTINCT {compiled.keys} FROM ({source})"
    found = connection.sql(
        f"SELECT {columns(fold.table)} FROM {quote(table)} SEMI JOIN ({wanted}) USING ({compiled.keys})"
    ).to_arrow_table()
    keys = zip(*(_to_list(found[k]) for k in fold.key), strict=True)
    values: Iterable[tuple[Any, ...]] = zip(*(_to_list(found[c]) for c in fold.columns), strict=True)
    if not fold.columns:
        values = ((),) * len(found)
    return {k: dict(zip(fold.columns, v, strict=True)) for k, v in zip(keys, values, strict=True)}


def _fold(compiled: Compiled) -> Fold:
    assert isinstance(compiled.model, Fold), "a projection is combined by SQL"
    return compiled.model
