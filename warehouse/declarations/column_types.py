"""Checks of the types that a read model declares: each is kept by every container, or refused with a reason.

Equality is DuckDB's. A key, a minimum or a maximum shows one of several equal values, so values that are equal must
also look equal; a float zero is made positive for that, and an INTERVAL is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations import totals
from refold.warehouse.declarations.handlers import Handler, common_type
from refold.warehouse.declarations.reducers import Kind, Reducer
from refold.warehouse.engine.duckdb_types import (
    compares_exactly,
    has_map,
    is_float,
    not_in_python,
    resolve,
    scale_of,
)
from refold.warehouse.engine.sql import SqlError

_ONE_OF_EQUALS = (Kind.MINIMUM, Kind.MAXIMUM)


def check_key(model: str, key: Mapping[str, str]) -> None:
    """Check the types of key columns.

    Raises:
        ProjectionError: naming the read model and the column.
    """
    for column, declared in key.items():
        where = f"Read model {model}, key column {column}"
        _check_type(where, declared)
        _check_equality(where, declared)
        if has_map(declared):
            raise ProjectionError(
                f"{where}: a MAP cannot be a key, because maps with the same entries in another order differ. Use a "
                "STRUCT, or a sorted list."
            )


def check_columns(model: str, columns: Mapping[str, Reducer]) -> None:
    """Check the types of the columns of a projection.

    Raises:
        ProjectionError: naming the read model and the column.
    """
    for column, reducer in columns.items():
        if reducer.type is None:
            continue
        where = f"Read model {model}, column {column}"
        _check_type(where, reducer.type)
        if reducer.kind in _ONE_OF_EQUALS:
            _check_equality(where, reducer.type)
        if reducer.kind is Kind.TOTAL and scale_of(reducer.type) is None and not is_float(reducer.type):
            raise ProjectionError(f"{where}: {reducer.type} has no sum. Use an integer or a DECIMAL.")


def check_states(fold: str, columns: Mapping[str, str]) -> None:
    """Check the types of a fold's columns, which must exist in Python.

    Raises:
        ProjectionError: naming the read model and the column.
    """
    for column, declared in columns.items():
        where = f"Fold {fold}, column {column}"
        _check_type(where, declared)
        check_in_python(where, declared)


def check_in_python(where: str, declared: str) -> None:
    """Check that Python has values for a type.

    Raises:
        ProjectionError: it has not.
    """
    if (unknown := not_in_python(declared)) is not None:
        raise ProjectionError(
            f"{where}: a fold cannot use {declared}, because Python has no value that is the same as one of {unknown}. "
            "Cast it to another type, such as VARCHAR or DECIMAL(38,0)."
        )


def _check_type(where: str, declared: str) -> None:
    try:
        resolve(declared)
    except SqlError as error:
        raise ProjectionError(f"{where}: {error}") from error


def _check_equality(where: str, declared: str) -> None:
    if (unequal := compares_exactly(declared)) is not None:
        raise ProjectionError(
            f"{where}: values of {unequal} can be equal and look different, such as 1 month and 30 days, so which of "
            "them a row shows would depend on the order of events. Use a number, such as epoch(x) for seconds."
        )


def contributed_types(model: str, columns: Mapping[str, Reducer], handlers: Collection[Handler]) -> dict[str, str]:
    """Return the DuckDB type of the contributions to each column of a projection.

    Raises:
        ProjectionError: handlers contribute values of different types to a distinct count.
    """
    found = {}
    for column, reducer in columns.items():
        if reducer.kind is Kind.COUNT:
            found[column] = "BOOLEAN"
        elif reducer.type is not None:
            found[column] = reducer.type
        else:
            where = f"Read model {model}, column {column}"
            named = [(h.event_type, h.types[column]) for h in handlers if column in h.names]
            found[column] = common_type(where, named)
            _check_equality(where, found[column])
    return found


def is_wide_total(column: str, reducer: Reducer, handlers: Collection[Handler]) -> bool:
    """Check whether the contributions to a total may fill a sum of 38 digits."""
    if reducer.kind is not Kind.TOTAL or not totals.is_wide(str(reducer.type)):
        return False
    return any(_may_fill(h.types[column]) for h in handlers if column in h.names)


def _may_fill(contributed: str) -> bool:
    return scale_of(contributed) is not None and totals.is_wide(contributed)
