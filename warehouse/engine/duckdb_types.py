"""DuckDB types: which ones a declaration may use, and how staged files and Arrow tables hold their values.

Rows pass through Parquet files and Arrow tables between workers and the loader. Neither has all of DuckDB's types: an
ENUM becomes text, a HUGEINT a rounded double, a TIMETZ loses its zone. So each type has a staged type, which both
containers hold exactly, and values are cast to it on the way in and back on the way out. A type that is not listed here
is refused when it is declared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import duckdb
from duckdb.sqltypes import DuckDBPyType

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import SqlError, quote
from refold.warehouse.engine.types import resolved_type

Type: TypeAlias = DuckDBPyType

_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
_HUGE_INTEGERS = ("hugeint", "uhugeint")
_FLOATS = ("float", "double")
_TIMESTAMPS = {"timestamp_s": 0, "timestamp_ms": 3, "timestamp": 6, "timestamp_ns": 9}
_ZONED = {"timestamp with time zone": 6, "timestamptz_ns": 9}

_KEPT = frozenset(
    (*_INTEGERS, *_FLOATS, "boolean", "decimal", "varchar", "blob", "date", "time", "time_ns", "uuid", "timestamp")
) | {"timestamp_ns", *_ZONED}
"""Types whose values Parquet and Arrow both hold."""
_STAGED_AS = dict.fromkeys(
    (*_HUGE_INTEGERS, "bignum", "bit", "interval", "time with time zone", "enum", "timestamp_s", "timestamp_ms"),
    "VARCHAR",
)
"""Types that pass through the containers as another type, which holds each of their values exactly."""
_IN_PYTHON = _KEPT - {"time_ns", "timestamp_ns", "timestamptz_ns"}
"""Types whose values Python has too."""
_NESTED = ("list", "struct", "map")
_NOT_KEPT = "Declare a type that holds them, such as VARCHAR, BLOB or a STRUCT"
_INSTEAD = {"array": "Declare a list"}


@functools.lru_cache(maxsize=4096)
def resolve(declared: str) -> Type:
    """Return the type that a declaration names, whatever alias it uses.

    Raises:
        SqlError: DuckDB has no such type, or refold cannot keep its values.

    Example:
        >>> str(resolve("FLOAT8")), str(resolve("numeric(9, 2)[]"))
        ('DOUBLE', 'DECIMAL(9,2)[]')
    """
    found = scratch().sql(f"SELECT CAST(NULL AS {resolved_type(declared)}) AS x").types[0]
    if unsupported := next((t for t in _leaves(found) if t.id not in _KEPT and t.id not in _STAGED_AS), None):
        raise SqlError(
            f"{declared!r} is not supported: files and tables on the way to readers do not keep values of "
            f"{unsupported.id.upper()}. {_INSTEAD.get(unsupported.id, _NOT_KEPT)}."
        )
    return found


def _children(dtype: Type) -> list[tuple[str, Type]]:
    return [(name, child) for name, child in dtype.children if isinstance(child, Type)]


def _element(dtype: Type) -> Type:
    """Return the type of the elements of a LIST or an ARRAY."""
    return dict(_children(dtype))["child"]


def _leaves(dtype: Type) -> list[Type]:
    """Return the types that a type is made of; itself, if it is not nested."""
    if dtype.id not in _NESTED:
        return [dtype]
    return [leaf for _, child in _children(dtype) for leaf in _leaves(child)]


@functools.lru_cache(maxsize=4096)
def staged_type(declared: str) -> str:
    """Return the type as which staged files and Arrow tables hold the values of a declared type.

    Example:
        >>> staged_type("STRUCT(level ENUM('low', 'high'), daily TIMETZ)[]"), staged_type("BIGINT")
        ('STRUCT("level" VARCHAR, "daily" VARCHAR)[]', 'BIGINT')
    """
    return _staged(resolve(declared))


def _staged(dtype: Type) -> str:
    if dtype.id == "list":
        return f"{_staged(_element(dtype))}[]"
    if dtype.id == "map":
        return f"MAP({', '.join(_staged(child) for _, child in _children(dtype))})"
    if dtype.id == "struct":
        return f"STRUCT({', '.join(f'{quote(name)} {_staged(child)}' for name, child in _children(dtype))})"
    if str(dtype) == "JSON":
        return "VARCHAR"
    return _STAGED_AS.get(dtype.id, str(dtype))


@functools.lru_cache(maxsize=4096)
def readable_type(declared: str) -> str:
    """Return the type as which JSON and Python can have the values of any type: what they lack is text.

    Example:
        >>> readable_type("INTERVAL[]"), readable_type("MAP(DATE, HUGEINT)"), readable_type("DATE")
        ('VARCHAR[]', 'MAP(VARCHAR, VARCHAR)', 'DATE')
    """
    return _readable(scratch().sql(f"SELECT CAST(NULL AS {declared}) AS x").types[0])


def _readable(dtype: Type) -> str:
    if dtype.id in ("list", "array"):
        return f"{_readable(_element(dtype))}[]"
    if dtype.id == "map":
        return f"MAP(VARCHAR, {_readable(dict(_children(dtype))['value'])})"
    if dtype.id == "struct":
        return f"STRUCT({', '.join(f'{quote(name)} {_readable(child)}' for name, child in _children(dtype))})"
    return str(dtype) if dtype.id in _IN_PYTHON and str(dtype) != "JSON" else "VARCHAR"


def staged(source: str, types: Mapping[str, str]) -> str:
    """Return a query whose columns have their staged types, for a container.

    Args:
        source: a relation.
        types: its columns with their DuckDB types.
    """
    return _cast(source, {name: staged_type(dtype) for name, dtype in types.items()}, types)


def unstaged(source: str, types: Mapping[str, str]) -> str:
    """Return a query over what a container holds, with columns of their own types again.

    Args:
        source: a relation of staged columns.
        types: the columns with their DuckDB types.
    """
    return _cast(source, types, {name: staged_type(dtype) for name, dtype in types.items()})


def _cast(source: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    casts = [
        f"CAST({quote(name)} AS {dtype}) AS {quote(name)}"
        for name, dtype in wanted.items()
        if str(resolve(dtype)) != str(resolve(found[name])) or resolve(dtype).id in ("uuid", *_NESTED)
    ]
    return f"SELECT * REPLACE ({', '.join(casts)}) FROM {source}" if casts else f"SELECT * FROM {source}"


def is_float(declared: str) -> bool:
    """Check whether a declared type is FLOAT or DOUBLE."""
    return resolve(declared).id in _FLOATS


def scale_of(declared: str) -> int | None:
    """Return the digits after the point of an integer or decimal type; None for any other type."""
    dtype = resolve(declared)
    if dtype.id == "decimal":
        return _digits(dtype, "scale")
    return 0 if dtype.id in (*_INTEGERS, *_HUGE_INTEGERS) else None


def _digits(decimal: Type, which: str) -> int:
    return next(int(str(value)) for name, value in decimal.children if name == which)


def digits_of(declared: str) -> int:
    """Return the largest number of digits of an integer or decimal type."""
    dtype = resolve(declared)
    if dtype.id == "decimal":
        return _digits(dtype, "precision")
    return 39 if dtype.id in _HUGE_INTEGERS else 20


def with_one_zero(value: str, declared: str) -> str:
    """Return an expression in which every float zero is positive, so that equal values are also written equally.

    DuckDB compares -0.0 and 0.0 as equal. Which of them a row kept would depend on which came first.

    Args:
        value: an expression of the declared type.
        declared: its DuckDB type.
    """
    return _each_float(value, resolve(declared), lambda each, dtype: f"({each} + 0::{dtype})", 0)


def has_float(declared: str) -> bool:
    """Check whether a type is or contains FLOAT or DOUBLE."""
    return any(leaf.id in _FLOATS for leaf in _leaves(resolve(declared)))


def floats_as_bits(value: str, declared: str) -> str:
    """Return an expression in which every float is its bits, which aggregates keep as they are.

    DuckDB's ``arg_max`` keeps a value in a form in which -0.0 is 0.0, unless it has a variant for the type.

    Args:
        value: an expression of the declared type.
        declared: its DuckDB type.
    """
    return _each_float(value, resolve(declared), lambda each, _: f"CAST({each} AS BIT)", 0)


def bits_as_floats(value: str, declared: str) -> str:
    """Return the value of a declared type for an expression of :func:`floats_as_bits`."""
    return _each_float(value, resolve(declared), lambda each, dtype: f"CAST({each} AS {dtype})", 0)


def _each_float(value: str, dtype: Type, change: Callable[[str, Type], str], depth: int) -> str:
    """Return a value in which each float, at any depth, is replaced by an expression over it."""
    if dtype.id in _FLOATS:
        return change(value, dtype)
    if all(leaf.id not in _FLOATS for leaf in _leaves(dtype)):
        return value
    element = f"_e{depth}"
    if dtype.id == "struct":
        fields = ", ".join(
            f"{quote(name)} := {_each_float(f'({value}).{quote(name)}', child, change, depth)}"
            for name, child in _children(dtype)
        )
        return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({fields}) END"
    if dtype.id == "map":
        key, item = (_each_float(f"{element}.{part}", child, change, depth + 1) for part, child in _children(dtype))
        entries = f"list_transform(map_entries({value}), lambda {element}: {{'key': {key}, 'value': {item}}})"
        return f"map_from_entries({entries})"
    inner = _each_float(element, _element(dtype), change, depth + 1)
    return f"list_transform({value}, lambda {element}: {inner})"


def compares_exactly(declared: str) -> str | None:
    """Return the part of a type in which equal values can look different; None if there is none.

    DuckDB compares one month and 30 days as equal.
    """
    return next((leaf.id.upper() for leaf in _leaves(resolve(declared)) if leaf.id == "interval"), None)


def has_map(declared: str) -> bool:
    """Check whether a type is or contains a MAP."""
    return _has(resolve(declared), "map")


def _has(dtype: Type, kind: str) -> bool:
    return dtype.id == kind or (dtype.id in _NESTED and any(_has(child, kind) for _, child in _children(dtype)))


def not_in_python(declared: str) -> str | None:
    """Return the part of a type whose values Python cannot hold as they are; None if there is none."""
    return next((str(leaf) for leaf in _leaves(resolve(declared)) if leaf.id not in _IN_PYTHON), None)


def types_of(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Type]:
    """Return the columns of a query with their types."""
    found = connection.sql(query)
    return dict(zip(found.columns, found.types, strict=True))


def keeps_values(found: Type, wanted: Type) -> bool:
    """Check whether values of one type convert to the other without being rounded or reinterpreted.

    A value that is beyond the range of the other type is an error at run time, so it is never changed silently.
    """
    if str(found) == str(wanted) or found.id == "null":
        return True
    if found.id in _INTEGERS or found.id in _HUGE_INTEGERS:
        return wanted.id in (*_INTEGERS, *_HUGE_INTEGERS, *_FLOATS, "decimal", "bignum")
    if found.id == wanted.id == "decimal":
        return _digits(found, "scale") <= _digits(wanted, "scale")
    if found.id in _FLOATS:
        return wanted.id in _FLOATS
    for precisions in (_TIMESTAMPS, _ZONED):
        if found.id in precisions:
            return wanted.id in precisions and precisions[found.id] <= precisions[wanted.id]
    if found.id == "time":
        return wanted.id == "time_ns"
    if found.id in ("varchar", "enum"):
        return wanted.id == "varchar"
    return _keeps_nested(found, wanted)


def _keeps_nested(found: Type, wanted: Type) -> bool:
    if found.id == "struct" and wanted.id == "struct":
        theirs = dict(_children(found))
        ours = dict(_children(wanted))
        return theirs.keys() == ours.keys() and all(keeps_values(theirs[n], t) for n, t in ours.items())
    if found.id in ("list", "array") and wanted.id == "list":
        return keeps_values(_element(found), _element(wanted))
    if found.id == "map" and wanted.id == "map":
        pairs = zip(_children(found), _children(wanted), strict=True)
        return all(keeps_values(a, b) for (_, a), (_, b) in pairs)
    return False
