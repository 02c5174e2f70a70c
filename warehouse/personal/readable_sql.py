"""Decryption inside of DuckDB queries: a relation of stored events becomes one that has the values of its contract.

A function of Python decrypts a vector of values at a time. DuckDB calls it only for columns that the query uses. It is
registered on the connection; the key store is named by its URL, so keys are never part of a plan or of a query.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from refold.event_schemas import PayloadError, RefoldError, Registry
from refold.event_schemas.personal import PersonalField
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.engine.sql import duckdb_type, literal, quote
from refold.warehouse.personal.personal_data import PersonalData

READ = "refold_read_personal"
"""The function: event type, field, stored text -> text; NULL if the key was destroyed."""

_numbers = itertools.count(1)
_failures: OrderedDict[str, RefoldError] = OrderedDict()
_MAX_FAILURES = 100
_NUMBER = re.compile(r"\(failure (\d+) of a decryption\)")


def register(connection: duckdb.DuckDBPyConnection, data: PersonalData) -> None:
    """Make the personal data of a log readable on a connection, in place of that of another log."""

    def read(event_types: pa.ChunkedArray, fields: pa.ChunkedArray, stored: pa.ChunkedArray) -> pa.Array:
        if not len(stored):
            return pa.array([], pa.string())
        try:
            texts = data.texts(stored.to_pylist(), event_types[0].as_py(), fields[0].as_py())
        except PayloadError:
            raise
        except RefoldError as error:
            raise RuntimeError(f"{error} {_kept(error)}") from error
        return pa.array(texts, pa.string())

    with suppress(duckdb.InvalidInputException):  # the connection has none yet
        connection.remove_function(READ)
    connection.create_function(
        READ,
        read,
        ["VARCHAR", "VARCHAR", "VARCHAR"],
        "VARCHAR",
        type=PythonUDFType.ARROW,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=False,
    )


def readable(registry: Registry, key: SchemaKey, relation: str) -> str:
    """Return the relation of stored events of a schema with the values of its contract.

    Without personal fields, it is the same relation. With them, the connection must have the function of
    :func:`register`.
    """
    fields = registry.personal(key)
    if not fields:
        return relation
    replaced = ", ".join(f"{_value(key[0], f)} AS {quote(f.name)}" for f in fields)
    return f"(SELECT * REPLACE ({replaced}) FROM {relation})"


def _value(event_type: str, field: PersonalField) -> str:
    stored, dtype = quote(field.name), duckdb_type(field.type)
    text = f"{READ}({literal(event_type)}, {literal(field.name)}, {stored})"
    value = text if field.is_text else f"CAST({text} AS {dtype})"
    if field.erased is None:
        return value
    shown = field.erased if isinstance(field.erased, str) else json.dumps(field.erased)
    erased = f"coalesce({value}, CAST({literal(shown)} AS {dtype}))"
    return f"CASE WHEN {stored} IS NOT NULL THEN {erased} END" if field.nullable else erased


def _kept(error: RefoldError) -> str:
    """Keep an error for :func:`raise_failure`: DuckDB passes on only its text."""
    number = str(next(_numbers))
    _failures[number] = error
    while len(_failures) > _MAX_FAILURES:
        _failures.popitem(last=False)
    return f"(failure {number} of a decryption)"


def raise_failure(error: Exception) -> None:
    """Raise the error that ended a decryption, such as a lost key, if a query failed for that reason.

    No event is to blame then, and none may be left out.

    Raises:
        RefoldError: that error.
    """
    if (found := _NUMBER.search(str(error))) and (failure := _failures.pop(found[1], None)):
        raise failure from error


def register_if_needed(
    connection: duckdb.DuckDBPyConnection, registry: Registry, keys: Iterable[SchemaKey], data: PersonalData
) -> None:
    """Register the function if some schemas have personal fields; others cost nothing."""
    if not registry.personal_keys.isdisjoint(keys):
        register(connection, data)
