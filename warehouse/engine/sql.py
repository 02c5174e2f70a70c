"""SQL text: names, literals and types, and DuckDB's errors as sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.types as pt

from refold.event_schemas import RefoldError
from refold.warehouse.engine.engine_paths import real_paths

_SIMPLE_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.date32(): "DATE",
    pa.uuid(): "UUID",
}


class SqlError(RefoldError):
    """SQL that refold cannot run. The caller adds whose SQL it is."""


_ADVICE = re.compile(
    r"\n+(Possible (solutions|fixes)|The search space used was|Stack Trace|Use \"SET |See also)\b.*", re.S
)
_EXCERPT = re.compile(r"\n[^\n]*\n *\^+ *(?=\n|$)")
_NEXT_SENTENCE = re.compile(r"(?<![.!?:;,])\s*\n\s*(?=[A-Z])")


def first_line(error: Exception) -> str:
    r"""Return a DuckDB error as text of one line that ends like a sentence.

    DuckDB adds lines that mean nothing in another message: an excerpt of the query with carets below it, an excerpt of
    a value, settings to try, a stack trace. These are left out, and links to files are replaced by their real paths.

    Example:
        >>> first_line(ValueError('Binder Error: no column "x"\nCandidate bindings: "y"\n\nLINE 1: SELECT x\n   ^'))
        'Binder Error: no column "x". Candidate bindings: "y".'
    """
    text = _EXCERPT.sub("", _ADVICE.sub("", real_paths(str(error).rstrip())))
    text = " ".join(_NEXT_SENTENCE.sub(". ", text.strip()).split()) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text.removesuffix(':')}."


def quote(name: str) -> str:
    """Quote an identifier.

    Example:
        >>> quote('a"b')
        '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def columns(names: Iterable[str], *, prefix: str = "") -> str:
    """Return a list of quoted columns, each with an optional prefix such as ``"e."``."""
    return ", ".join(prefix + quote(n) for n in names)


def duckdb_type(dtype: pa.DataType) -> str:
    """Return the DuckDB type of an Arrow type.

    Example:
        >>> duckdb_type(pa.list_(pa.struct([("sku", pa.string())])))
        'STRUCT("sku" VARCHAR)[]'
    """
    if dtype in _SIMPLE_TYPES:
        return _SIMPLE_TYPES[dtype]
    if pt.is_timestamp(dtype):
        return "TIMESTAMPTZ" if dtype.tz else "TIMESTAMP"
    if pt.is_decimal(dtype):
        return f"DECIMAL({dtype.precision},{dtype.scale})"
    if pt.is_list(dtype):
        return f"{duckdb_type(dtype.value_type)}[]"
    if pt.is_struct(dtype):
        inner = ", ".join(f"{quote(f.name)} {duckdb_type(f.type)}" for f in _fields(dtype))
        return f"STRUCT({inner})"
    raise SqlError(f"Arrow type {dtype} is not supported: it has no DuckDB type that keeps its values.")


def json_structure(dtype: pa.DataType) -> Any:
    """Return a type in the notation of DuckDB's ``json_transform``."""
    if pt.is_struct(dtype):
        return {f.name: json_structure(f.type) for f in _fields(dtype)}
    if pt.is_list(dtype):
        return [json_structure(dtype.value_type)]
    return duckdb_type(dtype)


def null_in_required(expression: str, field: pa.Field) -> list[str]:
    """Return the conditions under which a required value inside ``expression`` is NULL."""
    conditions = [] if field.nullable else [f"{expression} IS NULL"]
    if pt.is_struct(field.type):
        for inner in _fields(field.type):
            parts = null_in_required(f"{expression}.{quote(inner.name)}", inner)
            conditions += [f"({expression} IS NOT NULL AND {p})" for p in parts]
    if pt.is_list(field.type):
        element = field.type.value_field
        parts = null_in_required("_x", element)
        if parts:
            conditions.append(f"len(list_filter({expression}, lambda _x: {' OR '.join(parts)})) > 0")
    return conditions


_VALID_RANGES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pt.is_floating, "isfinite({})"),
    (pt.is_date, "{} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"),
    (pt.is_timestamp, "isfinite({0}) AND epoch_us({0}) BETWEEN -62135596800000000 AND 253402300799999999"),
)
"""What DuckDB's types hold beyond the values of fields: NaN and infinity, and times outside the years 1 to 9999."""


def invalid_value(expression: str, dtype: pa.DataType) -> list[str]:
    """Return the conditions under which ``expression`` has a value of a DuckDB type that no field can have."""
    if pt.is_struct(dtype):
        return [c for f in _fields(dtype) for c in invalid_value(f"{expression}.{quote(f.name)}", f.type)]
    if pt.is_list(dtype):
        inner = " OR ".join(invalid_value("_x", dtype.value_type))
        return [f"len(list_filter({expression}, lambda _x: {inner})) > 0"] if inner else []
    return [f"NOT ({valid.format(expression)})" for matches, valid in _VALID_RANGES if matches(dtype)]


def _fields(dtype: pa.DataType) -> Iterator[pa.Field]:
    return (dtype.field(i) for i in range(dtype.num_fields))


def empty_relation(schema: pa.Schema) -> str:
    """Return an SQL relation of this schema without rows, for binding."""
    typed = ", ".join(f"NULL::{duckdb_type(f.type)} AS {quote(f.name)}" for f in schema)
    return f"(SELECT {typed} WHERE false)"


def result_schema(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Schema:
    """Return the Arrow schema of a query's result, with plain booleans in place of DuckDB's ``arrow.bool8``."""
    schema = connection.sql(query).to_arrow_table().schema
    return pa.schema([f.with_type(_plain(f.type)) for f in schema])


def _plain(dtype: pa.DataType) -> pa.DataType:
    if isinstance(dtype, pa.Bool8Type):
        return pa.bool_()
    if pt.is_list(dtype):
        return pa.list_(dtype.value_field.with_type(_plain(dtype.value_type)))
    if pt.is_struct(dtype):
        return pa.struct([f.with_type(_plain(f.type)) for f in _fields(dtype)])
    if pt.is_map(dtype):
        return pa.map_(_plain(dtype.key_type), dtype.item_field.with_type(_plain(dtype.item_type)))
    return dtype


def same_value(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Check whether values of one type convert to the other without being rounded or reinterpreted.

    A value that overflows a narrower integer type is an error at run time, so it is never changed silently.
    """
    if found == wanted or pt.is_null(found):
        return True
    if pt.is_integer(found):
        return bool(pt.is_integer(wanted) or pt.is_decimal(wanted) or pt.is_floating(wanted))
    if pt.is_decimal(found):
        return bool(pt.is_decimal(wanted) and found.scale <= wanted.scale)
    if pt.is_floating(found):
        return bool(pt.is_floating(wanted))
    if pt.is_timestamp(found):
        return bool(pt.is_timestamp(wanted)) and bool(found.tz) == bool(wanted.tz)
    if pt.is_list(found) and pt.is_list(wanted):
        return same_value(found.value_type, wanted.value_type)
    if pt.is_struct(found) and pt.is_struct(wanted):
        pairs = {f.name: f.type for f in _fields(found)}
        return {f.name for f in _fields(wanted)} == set(pairs) and all(
            same_value(pairs[f.name], f.type) for f in _fields(wanted)
        )
    return False
