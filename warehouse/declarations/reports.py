"""Reports that are asked together: one query, with a row of parameters for each.

Most of the millisecond that a small report takes goes into setting up its query: 64 asked together take seven. So a
report that ends with ORDER BY ALL, and in which DuckDB takes columns where it took parameters, becomes a lateral join.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from refold.warehouse.engine.sql import quote

_END = re.compile(r"\bORDER\s+BY\s+ALL\s*$", re.IGNORECASE)
_PARAMETER = re.compile(r"\$(\w+)")
_MAX_EXAMPLES = re.compile(r"'[^']*\$[^']*'")

Row = tuple[Any, ...]


def lateral_sql(sql: str, types: Mapping[str, str], count: int) -> str:
    """Write the query that asks a report so many times at once; its first column is the number of the one who asks.

    Args:
        sql: of the report.
        types: its parameters, and their DuckDB types.
        count: how many values of each there are; they are bound in order, asker by asker.

    Returns:
        SQL; empty if the report cannot be asked so.

    Example:
        >>> lateral_sql("SELECT sku FROM stock WHERE left < $less ORDER BY ALL", {"less": "BIGINT"}, 1).splitlines()[0]
        'SELECT _asked._number, _row.* FROM (VALUES (0, CAST(? AS BIGINT))) _asked (_number, "less"), LATERAL ('
    """
    if not types or not _END.search(sql) or _MAX_EXAMPLES.search(sql):
        return ""
    casts = ", ".join(f"CAST(? AS {dtype})" for dtype in types.values())
    values = ", ".join(f"({number}, {casts})" for number in range(count))
    names = ", ".join(["_number", *map(quote, types)])
    asked = _PARAMETER.sub(lambda found: f"_asked.{quote(found[1])}", _END.sub("", sql))
    return (
        f"SELECT _asked._number, _row.* FROM (VALUES {values}) _asked ({names}), LATERAL (\n{asked}\n) _row "
        "ORDER BY ALL"
    )


def can_be_asked_together(
    connection: duckdb.DuckDBPyConnection, sql: str, types: Mapping[str, str], columns: Mapping[str, str], sample: Row
) -> bool:
    """Try whether a report's lateral query binds, to the columns that the report has.

    Args:
        connection: where its tables are.
        sql: of the report.
        types: its parameters, and their DuckDB types.
        columns: of its rows.
        sample: a value of each parameter.
    """
    query = lateral_sql(sql, types, 2)
    if not query:
        return False
    try:
        connection.execute(f"FROM ({query}) LIMIT 0", [*sample, *sample])
    except duckdb.Error:
        return False
    return {name: str(dtype) for name, dtype, *_ in (connection.description or ())[1:]} == dict(columns)


def ask_together(
    connection: duckdb.DuckDBPyConnection, sql: str, types: Mapping[str, str], asked: Sequence[Row], *, most: int
) -> list[list[Row]] | None:
    """Ask a report many times at once.

    Args:
        connection: where its tables are.
        sql: of the report, which can be asked together.
        types: its parameters, and their DuckDB types.
        asked: a value of each parameter, for each who asks.
        most: how many rows there may be in all.

    Returns:
        Rows for each who asks; None if there are more.
    """
    connection.execute(lateral_sql(sql, types, len(asked)), [value for values in asked for value in values])
    rows = connection.fetchmany(most + 1)
    if len(rows) > most:
        return None
    found: list[list[Row]] = [[] for _ in asked]
    for number, *row in rows:
        found[number].append(tuple(row))
    return found
