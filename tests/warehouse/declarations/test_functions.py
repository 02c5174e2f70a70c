"""The lists of functions, compared with the catalogue of the installed DuckDB."""

from __future__ import annotations

import duckdb
import pytest

from refold.warehouse.declarations import functions
from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.syntax_tree import UNNESTING

_KINDS = "('scalar', 'macro', 'aggregate', 'window')"


def catalogue() -> set[str]:
    """Return the names of all functions that an expression can call."""
    query = f"SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN {_KINDS}"
    with connect() as connection:
        return {name for (name,) in connection.execute(query).fetchall()}


def test_every_function_of_the_catalogue_is_on_one_list() -> None:
    """A new function of DuckDB may not be called before someone has read what it does."""
    known = functions.ALLOWED | set(functions.REFUSED)
    families = (*functions.FAMILIES, functions.INTERNAL_PREFIX)
    new = {name for name in catalogue() - known if not name.startswith(families)}
    assert not new, (
        f"DuckDB {duckdb.__version__} has functions that are on no list of warehouse/declarations/functions.py: "
        f"{sorted(new)}. Read what each does. If it returns the same value for the same arguments in each session and "
        "on each day, add it to the list of its kind, else to REFUSED with the reason; set DUCKDB to this version."
    )
    gone = known - functions.SYNTAX - catalogue()
    assert not gone, f"DuckDB {duckdb.__version__} has no {sorted(gone)}: remove them from the lists."
    assert not functions.ALLOWED & set(functions.REFUSED)


def test_the_lists_are_of_the_installed_version() -> None:
    """Another minor version may change what a function of the same name does."""
    installed = duckdb.__version__.rsplit(".", 1)[0]
    assert installed == functions.DUCKDB, (
        f"The lists of warehouse/declarations/functions.py were read from DuckDB {functions.DUCKDB}, installed is "
        f"{installed}. Compare the catalogues and the release notes, run the tests, then set DUCKDB."
    )


def test_macros_hide_nothing() -> None:
    """A macro that may be called expands to functions that may be called; those that unnest are known."""
    with connect() as connection:
        rows = connection.execute(
            "SELECT function_name, macro_definition FROM duckdb_functions() WHERE function_type = 'macro'"
        ).fetchall()
    definitions = {name: text for name, text in rows if name in functions.MACROS}
    unnesting = {name for name, text in definitions.items() if "unnest(" in text.lower()}
    assert unnesting == UNNESTING & functions.MACROS
    refused = {name for name in functions.REFUSED if len(name) > 4}
    called = {n: r for n, text in definitions.items() for r in refused if f"{r}(" in text.replace('"', "").lower()}
    assert called == {}


_SAMPLES = ["2020-02-29 23:30:00+00", "2021-03-28 00:59:59.999999+00", "1969-12-31 12:00:00+00", "infinity"]
_ZONES = ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"]


@pytest.mark.parametrize(
    "expression",
    [
        *("a = b", "a < b", "a IS DISTINCT FROM b", "greatest(a, b)", "least(a, b)", "epoch(a)", "epoch_us(a)"),
        *("epoch_ms(a)", "epoch_ns(a)", "isfinite(a)", "isinf(a)", "timezone('UTC', a)", "to_timestamp(epoch(a))"),
        *("max(a)", "min(a)", "avg(a)", "median(a)", "mode(a)", "quantile_disc(a, 0.4)", "quantile_cont(a, 0.4)"),
        *(
            "arg_max(a, b)",
            "count(a)",
            "count(DISTINCT a)",
            "list(a ORDER BY a)",
            "[a, b]",
            "{'a': a}",
            "map([a], [b])",
        ),
        *("list_sort([a, b], 'ASC', 'NULLS LAST')", "list_contains([a], b)", "list_position([a, b], b)"),
        *("list_distinct([a, a])", "list_concat([a], [b])", "make_timestamptz(epoch_us(a))", "row(a, b)"),
        *("flatten([[a]])", "list_filter([a, b], lambda x: x > a)", "map_extract(map([a], [b]), a)", "typeof(a)"),
    ],
)
def test_zone_free_functions_ignore_the_zone(expression: str) -> None:
    """Functions that may take a time with a zone give the same moment in every session."""
    values = ", ".join(f"(TIMESTAMPTZ '{x}', TIMESTAMPTZ '{y}')" for x in _SAMPLES for y in _SAMPLES[:3])
    finite = "" if "infinity" not in values or "max" in expression else "WHERE isfinite(a)"
    query = f"SELECT {expression} AS r FROM (VALUES {values}) t(a, b) {finite}"
    answers = set()
    with connect() as connection:
        connection.execute("CREATE TABLE t AS " + query)
        dtype = connection.table("t").types[0]
        for zone in _ZONES:
            connection.execute(f"SET TimeZone = '{zone}'")
            connection.execute(f"CREATE OR REPLACE TABLE t AS {query}")
            connection.execute("SET TimeZone = 'UTC'")
            answers.add(str(sorted(map(str, connection.execute("SELECT r::VARCHAR FROM t").fetchall()))))
    assert len(answers) == 1, dtype
