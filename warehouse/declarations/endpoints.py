"""Endpoints: the lookups and reports that a domain serves over HTTP, declared as values.

``Lookup``
    the rows of one read model by some of its columns, in pages; one query can answer many lookups.
``Report``
    a SELECT over read models and views, with named parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from refold.event_schemas import ProjectionError
from refold.warehouse.declarations.declared_names import also
from refold.warehouse.declarations.determinism import check_plan, check_repeatable
from refold.warehouse.declarations.projection import ReadModel
from refold.warehouse.declarations.reader_settings import check_reader_settings
from refold.warehouse.declarations.reports import can_batch
from refold.warehouse.engine.bound_plan import bound_plan
from refold.warehouse.engine.names import first_double
from refold.warehouse.engine.sql import SqlError, first_line, literal, quote
from refold.warehouse.engine.syntax_tree import with_values
from refold.warehouse.engine.types import resolved_type

_IN_PATH = re.compile(r"\{(\w+)\}")
_PATH = re.compile(r"(/[a-z0-9_-]+|/\{[a-z_][a-z0-9_]*\})+")
_SERVER_PATHS = frozenset({"benchmark", "commands", "healthz", "metrics", "query", "readyz", "static", "status"})
_RESERVED = {"min_position", "wait"}
_LOOKUP_TYPES = re.compile(
    r"U?(TINY|SMALL|BIG)INT|U?INTEGER|DECIMAL\(.*|VARCHAR|DATE|UUID|BOOLEAN|TIMESTAMP WITH TIME ZONE"
)
"""Types whose values compare equal in Python and DuckDB: one query answers many lookups, and its rows are assigned to
them by these values."""
_SAMPLES: dict[str, str] = {
    "DATE": "2025-01-01",
    "TIME": "12:00:00",
    "TIMESTAMP": "2025-01-01T00:00:00",
    "TIMESTAMP WITH TIME ZONE": "2025-01-01T00:00:00Z",
    "TIME WITH TIME ZONE": "12:00:00Z",
    "UUID": "00000000-0000-0000-0000-000000000000",
    "INTERVAL": "1 day",
    "VARCHAR": "",
    "BOOLEAN": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a report. Its value is bound, and never becomes part of the SQL.

    Args:
        type: its DuckDB type, such as ``DATE``, ``BIGINT`` or ``VARCHAR``.
        text: its meaning, for the OpenAPI document.
        default: its value if the request has none; None becomes NULL.
        choices: the allowed texts; empty if any value of the type is allowed.
        minimum: the smallest allowed number.
        maximum: the largest allowed number.
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
        path: its URL path; each ``{name}`` is a column of the read model. If these columns include the whole key, the
            response is one row, else a list of rows in pages.
        table: the read model.
        text: one sentence about the response, for the OpenAPI document.
        newest_first: a column to order rows by, descending; NULLs come last, and ties are ordered by the key.

    Example:
        >>> Lookup(path="/orders/{order_id}", table="order_summary", text="One order.").path_names
        ('order_id',)
    """

    path: str
    table: str
    text: str
    newest_first: str | None = None

    @property
    def path_names(self) -> tuple[str, ...]:
        """The columns that the path names."""
        return tuple(_IN_PATH.findall(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The rows of a SELECT over read models and views.

    Args:
        path: its URL path; each ``{name}`` is a parameter, and the other parameters are in the query string.
        sql: one SELECT, in which ``$name`` is the value of a parameter.
        text: one sentence about the response, for the OpenAPI document.
        parameters: name to parameter.

    Example:
        >>> Report(path="/reports/stock", sql="FROM inventory_status", text="All stock.").path_names
        ()
    """

    path: str
    sql: str
    text: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def path_names(self) -> tuple[str, ...]:
        """The parameters that the path names."""
        return tuple(_IN_PATH.findall(self.path))

    @property
    def types(self) -> dict[str, str]:
        """The DuckDB types of the parameters."""
        return {name: parameter.type for name, parameter in self.parameters.items()}


Endpoint = Lookup | Report


@dataclass(frozen=True, slots=True)
class BoundEndpoint:
    """An endpoint that is bound to the tables of its domain.

    Attributes:
        endpoint: the declaration.
        columns: column of the response to its DuckDB type.
        key: the read model's key columns; empty for a report.
        single_row: whether the response is one row.
        batchable: whether one SQL query can answer many endpoint queries.
    """

    endpoint: Endpoint
    columns: Mapping[str, str]
    key: tuple[str, ...] = ()
    single_row: bool = False
    batchable: bool = True


def check_paths(domain: str, endpoints: Sequence[Endpoint]) -> None:
    """Check that no two endpoints answer the same requests.

    Raises:
        ProjectionError: naming the domain and both paths.
    """
    seen: dict[str, str] = {}
    for endpoint in endpoints:
        pattern = _IN_PATH.sub("{}", endpoint.path)
        if (other := seen.get(pattern)) is not None:
            same = f"two endpoints have the path {other!r}"
            alike = f"the endpoints {other!r} and {endpoint.path!r} match the same requests"
            raise ProjectionError(f"Domain {domain}: {same if other == endpoint.path else alike}. Change one of them.")
        seen[pattern] = endpoint.path


def bind(
    endpoint: Endpoint,
    models: Mapping[str, ReadModel],
    connection: duckdb.DuckDBPyConnection,
    tables: Collection[str] | None = None,
) -> BoundEndpoint:
    """Check an endpoint against the empty tables and views of its domain.

    Args:
        endpoint: the declaration.
        models: the domain's read models, by name.
        connection: a connection to the tables and views.
        tables: the tables and views that it may read; None if any.

    Raises:
        ProjectionError: naming the endpoint and the error.
    """
    if not _PATH.fullmatch(endpoint.path):
        raise _error(endpoint, "the path must consist of /words and /{names} in lower case")
    if endpoint.path.split("/")[1] in _SERVER_PATHS:
        paths = ", ".join(sorted(f"/{name}" for name in _SERVER_PATHS))
        raise _error(endpoint, f"the server itself uses the paths below {paths}; choose another one")
    return (
        _bind_lookup(endpoint, models, connection)
        if isinstance(endpoint, Lookup)
        else _bind_report(endpoint, connection, tables)
    )


def _bind_lookup(
    lookup: Lookup, models: Mapping[str, ReadModel], connection: duckdb.DuckDBPyConnection
) -> BoundEndpoint:
    model = models.get(lookup.table)
    if model is None:
        raise _error(lookup, f"there is no read model {lookup.table!r}; there are: {', '.join(models)}")
    columns = _columns(connection, lookup, f"FROM {quote(lookup.table)}", {})
    if not lookup.path_names:
        raise _error(lookup, f"the path names no column of {lookup.table}; use a Report for a whole table")
    for name in (*lookup.path_names, *([lookup.newest_first] if lookup.newest_first else [])):
        if name not in columns:
            raise _error(lookup, f"{lookup.table} has no column {name!r}; it has: {', '.join(columns)}")
    for name in lookup.path_names:
        if not _LOOKUP_TYPES.fullmatch(columns[name]):
            raise _error(lookup, f"a lookup by {name!r}, a {columns[name]}, is not supported; filter by it in a Report")
    single_row = set(model.key) <= set(lookup.path_names)
    return BoundEndpoint(lookup, columns, tuple(model.key), single_row)


def _bind_report(
    report: Report, connection: duckdb.DuckDBPyConnection, tables: Collection[str] | None
) -> BoundEndpoint:
    if double := first_double(report.parameters):
        raise _error(report, f"two parameters are named {double[1]!r}{also(*double)}; rename one")
    for name, parameter in report.parameters.items():
        if name in _RESERVED:
            raise _error(report, f"the parameter name {name!r} is reserved; choose another one")
        if parameter.default is not None and parameter.choices and parameter.default not in parameter.choices:
            raise _error(report, f"{name}: the default {parameter.default!r} is not one of its choices")
    if unknown := set(report.path_names) - set(report.parameters):
        raise _error(report, f"the path names {min(unknown)!r}, which is not a parameter")
    try:
        statements = duckdb.extract_statements(report.sql)
    except duckdb.Error as error:
        raise _error(report, first_line(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise _error(report, "sql= must be one SELECT")
    if unbound := statements[0].named_parameters ^ set(report.parameters):
        raise _error(report, f"{min(unbound)!r} is in only one of sql= and parameters=; both must name it")
    samples = _samples(connection, report)
    select = with_values(report.sql, {name: _sample_sql(p) for name, p in report.parameters.items()})
    try:
        check_repeatable(select, tables)
    except SqlError as error:
        raise _error(report, first_line(error)) from error
    columns = _columns(connection, report, report.sql, samples)
    _check_plan(connection, report, select, tables)
    values = tuple(samples.values())
    return BoundEndpoint(report, columns, batchable=can_batch(connection, report.sql, report.types, columns, values))


def _check_plan(
    connection: duckdb.DuckDBPyConnection, report: Report, select: str, tables: Collection[str] | None
) -> None:
    """Check that a report's rows are the same each time, for every reader."""
    try:
        plan = bound_plan(connection, select)
        check_plan(plan, tables=tables)
        check_reader_settings(plan)
    except SqlError as error:
        raise _error(report, first_line(error)) from error


def _sample_sql(parameter: Parameter) -> str:
    return f"CAST({literal(_sample_text(parameter))} AS {parameter.type})"


def _sample_text(parameter: Parameter) -> str:
    return parameter.choices[0] if parameter.choices else _SAMPLES.get(resolved_type(parameter.type), "1")


def _samples(connection: duckdb.DuckDBPyConnection, report: Report) -> dict[str, Any]:
    """Return a value for each parameter, to bind the SQL with."""
    samples = {}
    for name, parameter in report.parameters.items():
        try:
            text = _sample_text(parameter)
            [[samples[name]]] = connection.execute(f"SELECT CAST(? AS {parameter.type})", [text]).fetchall()
        except (SqlError, duckdb.Error) as error:
            raise _error(report, f"parameter {name}: {first_line(error)}") from error
    return samples


def _columns(
    connection: duckdb.DuckDBPyConnection, endpoint: Endpoint, sql: str, values: Mapping[str, Any]
) -> dict[str, str]:
    try:
        connection.execute(f"FROM ({sql}) LIMIT 0", dict(values))
    except duckdb.Error as error:
        raise _error(endpoint, first_line(error)) from error
    return {name: str(dtype) for name, dtype, *_ in connection.description or ()}


def _error(endpoint: Endpoint, reason: str) -> ProjectionError:
    return ProjectionError(f"Endpoint {endpoint.path}: {reason.rstrip('.')}.")
