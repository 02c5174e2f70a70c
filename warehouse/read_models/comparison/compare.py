"""Comparing tables of two databases: counts and checksums first; where these differ, keys and columns.

Rows of both sides are removed (``EXCEPT ALL``, so that a duplicate on one side remains); the others are paired by key.
Approximate totals may differ by rounding; all other columns must be equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection, ReadModel
from refold.warehouse.engine.connections import attach, connect
from refold.warehouse.engine.duckdb_types import is_float
from refold.warehouse.engine.sql import columns, literal, quote
from refold.warehouse.read_models import withheld
from refold.warehouse.read_models.comparison.differences import RowDifference, TableDifference
from refold.warehouse.read_models.database import seen_tables, table_checksum
from refold.warehouse.replay.contributions import beyond_column

TOLERANCES = {"DOUBLE": 1e-9, "FLOAT": 1e-5}
"""Relative tolerance of approximate totals; absolute where both values are below 1."""

_MEMORY = "2GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A table to compare.

    Attributes:
        name: name in the result.
        source: SQL of the relation, with ``{db}`` for the database.
        key: key columns; all columns if there are none.
        columns: columns to compare, with the key; those that both sides have by default.
        approximate: columns that are sums of floats.
    """

    name: str
    source: str
    key: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    approximate: frozenset[str] = frozenset()

    def of(self, database: str) -> str:
        """Return its SQL in one of the databases."""
        return self.source.replace("{db}", database)


def compared_tables(model: ReadModel) -> list[Compared]:
    """Return the tables of a read model: its own, its withheld rows, and the seen tables of its distinct counts."""
    totals = model.totals() if isinstance(model, Projection) else []
    floats = [c.name for c in totals if is_float(str(c.reducer.type))]
    own = Compared(
        name=model.name,
        source=f"{{db}}.main.{quote(model.name)}",
        key=tuple(model.key),
        columns=tuple(model.table),
        approximate=frozenset(floats),
    )
    seen = [Compared(name=t.replace('"', ""), source=f"{{db}}.{t}") for t in seen_tables(model).values()]
    return [own, *([_compared_withheld(model, floats)] if totals else []), *seen]


def _compared_withheld(model: ReadModel, floats: Sequence[str]) -> Compared:
    """Return the withheld rows, with the totals of floats as floats, for the tolerance."""
    table, beyond = withheld.table_of(model.name), [beyond_column(name) for name in floats]
    numbers = ", ".join(f"CAST({quote(name)} AS DOUBLE) AS {quote(name)}" for name in beyond)
    return Compared(
        name=table.replace('"', ""),
        source=f"(SELECT *{f' REPLACE ({numbers})' if numbers else ''} FROM {{db}}.{table})",
        key=tuple(model.key),
        approximate=frozenset(beyond),
    )


def compared_published(domain: Domain, names: Iterable[str]) -> list[Compared]:
    """Return the tables of any two generations with all their columns, whatever the domain declares."""
    declared = {m.name: t for m in domain.read_models for t in compared_tables(m) if t.name == m.name}
    found = [
        dataclasses.replace(declared[name], columns=())
        if name in declared
        else Compared(name=name, source=f"{{db}}.main.{quote(name)}")
        for name in sorted(set(names))
    ]
    return [*found, compared_dead_letters([t.name for t in found])]


def compared_dead_letters(models: Sequence[str], *, no_contract: bool = True) -> Compared:
    """Return the dead letters of some read models, without their reasons.

    Args:
        models: names of the read models.
        no_contract: include events that match no contract, which are known only if the whole log was replayed.
    """
    listed = ", ".join(literal(name) for name in (*([""] if no_contract else []), *models))
    names = ("read_model", "position", "stream_id", "event_type", "schema_version")
    rows = f"(SELECT {columns(names)} FROM {{db}}.refold.dead_letters WHERE read_model IN ({listed}))"
    return Compared(name="refold.dead_letters", source=rows, key=names[:2], columns=names)


def compare_files(
    here: Path, there: Path, tables: Sequence[Compared], *, spill: Path, examples: int = 5
) -> list[TableDifference]:
    """Compare tables of two database files, which are not changed.

    Args:
        here: one file.
        there: the other file.
        tables: the tables to compare.
        spill: folder for data that does not fit into memory.
        examples: number of differing keys to return for each table.

    Returns:
        The tables that differ.
    """
    if here.resolve() == there.resolve():
        return []
    with connect(memory_limit=_MEMORY, temp_directory=spill) as connection:
        attach(connection, here, "here", read_only=True)
        attach(connection, there, "there", read_only=True)
        return compare_databases(connection, "here", "there", tables, examples=examples)


def compare_databases(
    connection: duckdb.DuckDBPyConnection, here: str, there: str, tables: Sequence[Compared], *, examples: int = 5
) -> list[TableDifference]:
    """Compare tables of two attached databases.

    Args:
        connection: connection on which temporary tables are created.
        here: name of one database.
        there: name of the other.
        tables: the tables to compare.
        examples: number of differing keys to return for each table.

    Returns:
        The tables that differ.
    """
    found = (_compare(connection, table, table.of(here), table.of(there), examples) for table in tables)
    return [difference for difference in found if difference is not None]


def _compare(
    connection: duckdb.DuckDBPyConnection, table: Compared, here: str, there: str, examples: int
) -> TableDifference | None:
    types = _types(connection, here, table), _types(connection, there, table)
    if types[0] is None or types[1] is None:
        rows = [None if t is None else _count(connection, s) for t, s in zip(types, (here, there), strict=True)]
        if rows == [None, None]:
            return None
        return TableDifference(name=table.name, rows_here=rows[0], rows_there=rows[1])
    ours, theirs = types[0], types[1]
    every = dict.fromkeys([*ours, *theirs])
    schema = {c: (ours.get(c), theirs.get(c)) for c in every if ours.get(c) != theirs.get(c)}
    shared = [c for c in every if c not in schema]
    if not shared or any(k in schema for k in table.key):
        counted = _count(connection, here), _count(connection, there)
        return TableDifference(name=table.name, rows_here=counted[0], rows_there=counted[1], schema=schema)
    sums = table_checksum(connection, here, shared), table_checksum(connection, there, shared)
    difference = TableDifference(name=table.name, rows_here=sums[0][0], rows_there=sums[1][0], schema=schema)
    if sums[0] == sums[1]:
        return difference if schema else None
    pairs = _Pairs(connection, table, {c: ours[c] for c in shared})
    pairs.make(here, there)
    found = pairs.summary(examples)
    pairs.drop()
    if not schema and not any((found["only_here"], found["only_there"], found["changed"])):
        return None
    return dataclasses.replace(difference, **found)


def _types(connection: duckdb.DuckDBPyConnection, relation: str, table: Compared) -> dict[str, str] | None:
    """Return the types of a relation's compared columns; None if there is no such relation."""
    try:
        found = {row[0]: str(row[1]) for row in connection.execute(f"DESCRIBE FROM {relation}").fetchall()}
    except duckdb.CatalogException:
        return None
    return {c: t for c, t in found.items() if c in table.columns} if table.columns else found


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(row[0]) if row else 0


class _Pairs:
    """Rows of one side only, paired by key in a temporary table: columns ``_h0, _h1, …`` and ``_t0, _t1, …``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, table: Compared, types: Mapping[str, str]) -> None:
        self._connection = connection
        self._shared = list(types)
        known = all(c in types for c in table.key)  # else the declaration has another key by now
        self._key = [self._shared.index(c) for c in (table.key if known else ()) or types]
        self._values = [i for i in range(len(types)) if i not in self._key]
        tolerances = {c: TOLERANCES.get(types[c]) for c in table.approximate if c in types}
        self._differs = [_differs(i, tolerances.get(self._shared[i])) for i in self._values]

    def make(self, here: str, there: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE _surplus_here AS {self._surplus(here, there, '_h')}")
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE _surplus_there AS {self._surplus(there, here, '_t')}")
        same = " AND ".join(f"_h{i} IS NOT DISTINCT FROM _t{i}" for i in self._key)
        kept = " OR ".join(["_hn IS NULL", "_tn IS NULL", *self._differs])
        self._connection.execute(
            "CREATE OR REPLACE TEMP TABLE _pairs AS SELECT * FROM _surplus_here FULL JOIN _surplus_there "
            f"ON {same} AND _hn = _tn WHERE {kept}"
        )

    def _surplus(self, these: str, those: str, prefix: str) -> str:
        """Return the rows that one side has more often; several rows of one key are numbered."""
        shared = columns(self._shared)
        named = ", ".join(f"{quote(c)} AS {prefix}{i}" for i, c in enumerate(self._shared))
        key, order = (", ".join(f"{prefix}{i}" for i in indexes) for indexes in (self._key, range(len(self._shared))))
        return (
            f"SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS {prefix}n FROM (SELECT {named} "
            f"FROM (SELECT {shared} FROM {these} EXCEPT ALL SELECT {shared} FROM {those}))"
        )

    def summary(self, examples: int) -> dict[str, Any]:
        both = "_hn IS NOT NULL AND _tn IS NOT NULL"
        counted = [f"count(*) FILTER ({c})" for c in ("_tn IS NULL", "_hn IS NULL", both)]
        counted += [f"count(*) FILTER ({both} AND {d})" for d in self._differs]
        row = self._connection.execute(f"SELECT {', '.join(counted)} FROM _pairs").fetchone()
        assert row is not None
        by_column = {self._shared[i]: n for i, n in zip(self._values, row[3:], strict=True) if n}
        return {
            "only_here": row[0],
            "only_there": row[1],
            "changed": row[2],
            "by_column": by_column,
            "examples": tuple(self._examples(examples)),
        }

    def _examples(self, count: int) -> list[RowDifference]:
        width = len(self._shared)
        values = ", ".join([f"_h{i}" for i in range(width)] + [f"_t{i}" for i in range(width)])
        order = ", ".join(f"coalesce(_h{i}, _t{i})" for i in self._key)
        flags = ", ".join(["_hn IS NOT NULL", "_tn IS NOT NULL", *(f"coalesce({d}, true)" for d in self._differs)])
        rows = self._connection.execute(
            f"SELECT {values}, {flags} FROM _pairs ORDER BY {order} LIMIT {count}"
        ).fetchall()
        return [self._example(row[:width], row[width : 2 * width], row[2 * width :]) for row in rows]

    def _example(self, ours: Sequence[Any], theirs: Sequence[Any], flags: Sequence[bool]) -> RowDifference:
        in_here, in_there, *differs = flags
        both = in_here and in_there
        shown = [i for i, d in zip(self._values, differs, strict=True) if d or not both]
        return RowDifference(
            key={self._shared[i]: (ours if in_here else theirs)[i] for i in self._key},
            here={self._shared[i]: ours[i] for i in shown} if in_here else None,
            there={self._shared[i]: theirs[i] for i in shown} if in_there else None,
        )

    def drop(self) -> None:
        for name in ("_surplus_here", "_surplus_there", "_pairs"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{name}")


def _differs(index: int, tolerance: float | None) -> str:
    ours, theirs = f"_h{index}", f"_t{index}"
    different = f"{ours} IS DISTINCT FROM {theirs}"
    if tolerance is None:
        return f"({different})"
    # DuckDB orders NaN above everything, so a difference of NaN would be within a tolerance of NaN.
    near = f"abs({ours} - {theirs}) <= {tolerance} * greatest(1, abs({ours}), abs({theirs}))"
    return f"({different} AND NOT coalesce(isfinite({ours}) AND isfinite({theirs}) AND {near}, false))"
