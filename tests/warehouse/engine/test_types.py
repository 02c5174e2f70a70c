"""DuckDB types by any of their names."""

from __future__ import annotations

import duckdb
import pytest

from refold.event_schemas import ProjectionError, event
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import latest, total
from refold.warehouse.engine.sql import SqlError
from refold.warehouse.engine.types import FLOATS, INTEGERS, resolved_type


@event(schema_version=1)
class Sold:
    """An article was sold."""

    sku: str


def names() -> list[tuple[str, str]]:
    """Return every name of a type in DuckDB's catalogue, and the name of the type itself."""
    query = "SELECT DISTINCT type_name, logical_type FROM duckdb_types() WHERE database_name = 'system' ORDER BY ALL"
    rows: list[tuple[str, str]] = duckdb.connect().execute(query).fetchall()
    return rows


FLOAT_NAMES = {name for name, kind in names() if kind in FLOATS} | {"double precision", "Real"}
NAMES = {name for name, kind in names() if "NULL" not in kind and kind not in ("ENUM", "ANY")}
NO_TYPES = [
    *("", "NOPE", "INTEGER, 1", "INTEGER) , (1", "INTEGER AS x", "INTEGER -- all"),
    *("INTEGER; SELECT 1", "NULL", "$1"),
]


@pytest.mark.parametrize("name", sorted(FLOAT_NAMES))
def test_a_float_by_any_name_is_approximate(name: str) -> None:
    """A sum of floats depends on the order of addition, whatever the type is called."""
    with pytest.raises(ProjectionError, match=r"Use DECIMAL\(p,s\), or set approximate=True"):
        total(name)
    assert total(name, approximate=True).type == name


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        *(("INT8", "BIGINT"), ("NUMERIC(9, 2)", "DECIMAL(9,2)"), ("dec", "DECIMAL(18,3)"), ("TEXT", "VARCHAR")),
        *(("string", "VARCHAR"), ("DATETIME", "TIMESTAMP"), ("timestamptz", "TIMESTAMP WITH TIME ZONE")),
        *(("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"), ("INT4[]", "INTEGER[]"), ("bool", "BOOLEAN")),
        ("STRUCT(a FLOAT8, b TEXT)", "STRUCT(a DOUBLE, b VARCHAR)"),
    ],
)
def test_a_type_is_what_duckdb_resolves(text: str, resolved: str) -> None:
    """Types are compared by their names in DuckDB, never as text."""
    assert resolved_type(text) == resolved


@pytest.mark.parametrize("text", NO_TYPES)
def test_what_is_no_type(text: str) -> None:
    """A text becomes part of SQL only if it is one type."""
    with pytest.raises(SqlError, match="is not a DuckDB type"):
        resolved_type(text)
    with pytest.raises(ProjectionError, match=r"Read model p, column n: .* is not a DuckDB type"):
        Projection(name="p", key={"sku": "VARCHAR"}, columns={"n": latest(text)}, on={Sold: "SELECT sku"})


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_type_of_the_catalogue_has_a_sum_or_is_refused(name: str) -> None:
    """A total that would fail when it is built is refused when it is declared."""
    try:
        resolved = resolved_type(name)
    except SqlError:
        return  # a type that needs arguments, such as STRUCT
    summable = resolved in INTEGERS | FLOATS or resolved.startswith("DECIMAL")
    if not summable:
        with pytest.raises(ProjectionError, match=r"Read model p, column n: .*(has no sum|is not supported)"):
            Projection(name="p", key={"sku": "VARCHAR"}, columns={"n": total(name)}, on={Sold: "SELECT sku"})
