"""Endpoints: which questions a domain's read models answer over HTTP, declared as values.

``Lookup``
    the rows of one read model by some of its columns, in pages; many can be answered by one query.
``Report``
    any SELECT over read models and views, with named parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.reports import can_be_asked_together
from refold.warehouse.engine.sql import first_line, quote

_IN_PATH = re.compile(r"\{(\w+)\}")
_PATH = re.compile(r"(/[a-z0-9_-]+|/\{[a-z_][a-z0-9_]*\})+")
_TAKEN = frozenset({"benchmark", "commands", "healthz", "metrics", "query", "readyz", "static", "status"})
_RESERVED = {"min_position", "wait"}
_LOOKED_UP_BY = re.compile(
    r"U?(TINY|SMALL|BIG)INT|U?INTEGER|DECIMAL\(.*|VARCHAR|DATE|UUID|BOOLEAN|TIMESTAMP WITH TIME ZONE"
)
"""Types whose values come out of DuckDB equal to what was looked up: so rows can be told apart by whom they answer."""
_SAMPLES: dict[str, str] = {
    "DATE": "2025-01-01",
    "TIMESTAMPTZ": "2025-01-01T00:00:00Z",
    "VARCHAR": "",
    "BOOLEAN": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What a report is asked with; it is bound, and never becomes part of the SQL.

    Args:
        type: its DuckDB type, such as ``DATE``, ``BIGINT`` or ``VARCHAR``.
        text: what it means, for the API's document.
        default: what it is if it is not given; None then reaches the SQL as NULL.
        choices: the texts that it may be; empty: anything of its type.
        minimum: the least that a number may be.
        maximum: the most that a number may be.
    """

    type: str
    text: str
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The rows of a read model that have given values in some columns.

    Args:
        path: where it is asked; each ``{name}`` is a column of the read model. If these are its whole key, the answer
            is one row, else a list of rows in pages.
        table: the read model.
        text: what it answers, one sentence, for the API's document.
        newest_first: a column to order rows by, the largest first; rows that have none come last, and equal ones go by
            the key.

    Example:
        >>> Lookup(path="/orders/{order_id}", table="order_summary", text="One order.").given
        ('order_id',)
    """

    path: str
    table: str
    text: str
    newest_first: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that the path names."""
        return tuple(_IN_PATH.findall(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a SELECT over read models and views says.

    Args:
        path: where it is asked; each ``{name}`` is one of the parameters, and all others are in the query string.
        sql: one SELECT, in which ``$name`` stands for a parameter's value.
        text: what it answers, one sentence, for the API's document.
        parameters: name to parameter.

    Example:
        >>> Report(path="/reports/stock", sql="FROM inventory_status", text="All stock.").given
        ()
    """

    path: str
    sql: str
    text: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters that the path names."""
        return tuple(_IN_PATH.findall(self.path))

    @property
    def types(self) -> dict[str, str]:
        """The DuckDB types of the parameters."""
        return {name: parameter.type for name, parameter in self.parameters.items()}


Endpoint = Lookup | Report


@dataclass(frozen=True, slots=True)
class Bound:
    """An endpoint that was bound to the tables of its domain.

    Attributes:
        endpoint: what was declared.
        columns: column of the answer to its DuckDB type.
        key: the read model's key columns; empty for a report.
        one: whether it answers with one row.
        together: whether many questions can become one query.
    """

    endpoint: Endpoint
    columns: Mapping[str, str]
    key: tuple[str, ...] = ()
    one: bool = False
    together: bool = True


def bind(endpoint: Endpoint, models: Mapping[str, ReadModel], connection: duckdb.DuckDBPyConnection) -> Bound:
    """Check an endpoint against the empty tables and views of its domain.

    Args:
        endpoint: what was declared.
        models: the domain's read models, by name.
        connection: where the tables and views are.

    Raises:
        ProjectionError: naming the endpoint, and what is wrong with it.
    """
    if not _PATH.fullmatch(endpoint.path):
        raise _wrong(endpoint, "the path must be made of /words and /{names} in lower case")
    if endpoint.path.split("/")[1] in _TAKEN:
        raise _wrong(endpoint, f"paths below {', '.join(sorted(f'/{name}' for name in _TAKEN))} are the server's own")
    return (
        _bind_lookup(endpoint, models, connection)
        if isinstance(endpoint, Lookup)
        else _bind_report(endpoint, connection)
    )


def _bind_lookup(lookup: Lookup, models: Mapping[str, ReadModel], connection: duckdb.DuckDBPyConnection) -> Bound:
    model = models.get(lookup.table)
    if model is None:
        raise _wrong(lookup, f"there is no read model {lookup.table!r}; there are: {', '.join(models)}")
    columns = _columns(connection, lookup, f"FROM {quote(lookup.table)}", {})
    if not lookup.given:
        raise _wrong(lookup, f"the path names no column of {lookup.table}; a Report can give a whole table")
    for name in (*lookup.given, *([lookup.newest_first] if lookup.newest_first else [])):
        if name not in columns:
            raise _wrong(lookup, f"{lookup.table} has no column {name!r}; it has: {', '.join(columns)}")
    for name in lookup.given:
        if not _LOOKED_UP_BY.fullmatch(columns[name]):
            raise _wrong(lookup, f"rows cannot be looked up by {name!r}, a {columns[name]}; a Report can filter by it")
    one = set(model.key) <= set(lookup.given)
    return Bound(lookup, columns, tuple(model.key), one)


def _bind_report(report: Report, connection: duckdb.DuckDBPyConnection) -> Bound:
    for name, parameter in report.parameters.items():
        if name in _RESERVED:
            raise _wrong(report, f"the parameter {name!r} has a meaning of its own; give it another name")
        if parameter.default is not None and parameter.choices and parameter.default not in parameter.choices:
            raise _wrong(report, f"{name}: the default {parameter.default!r} is none of its choices")
    if unknown := set(report.given) - set(report.parameters):
        raise _wrong(report, f"the path names {min(unknown)!r}, which is no parameter")
    try:
        statements = duckdb.extract_statements(report.sql)
    except duckdb.Error as error:
        raise _wrong(report, first_line(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise _wrong(report, "sql= must be one SELECT")
    if unbound := statements[0].named_parameters ^ set(report.parameters):
        raise _wrong(report, f"{min(unbound)!r} is in one of sql= and parameters=, and not in the other")
    samples = _samples(connection, report)
    columns = _columns(connection, report, report.sql, samples)
    values = tuple(samples.values())
    return Bound(report, columns, together=can_be_asked_together(connection, report.sql, report.types, columns, values))


def _samples(connection: duckdb.DuckDBPyConnection, report: Report) -> dict[str, Any]:
    """Make a value of each parameter, to bind the SQL with."""
    samples = {}
    for name, parameter in report.parameters.items():
        text = parameter.choices[0] if parameter.choices else _SAMPLES.get(parameter.type, "1")
        try:
            [[samples[name]]] = connection.execute(f"SELECT CAST(? AS {parameter.type})", [text]).fetchall()
        except duckdb.Error as error:
            raise _wrong(report, f"parameter {name}: {first_line(error)}") from error
    return samples


def _columns(
    connection: duckdb.DuckDBPyConnection, endpoint: Endpoint, sql: str, values: Mapping[str, Any]
) -> dict[str, str]:
    try:
        connection.execute(f"FROM ({sql}) LIMIT 0", dict(values))
    except duckdb.Error as error:
        raise _wrong(endpoint, first_line(error)) from error
    return {name: str(dtype) for name, dtype, *_ in connection.description or ()}


def _wrong(endpoint: Endpoint, reason: str) -> ProjectionError:
    return ProjectionError(f"Endpoint {endpoint.path}: {reason.rstrip('.')}.")
