"""DuckDB errors as sentences: whatever DuckDB adds below its sentence is left out."""

from __future__ import annotations

import duckdb
import pytest

from refold.warehouse.engine.connections import connect
from refold.warehouse.engine.sql import first_line


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("selec 1", 'Parser Error: syntax error at or near "selec".'),
        (
            "SELECT x FROM (SELECT 1 AS xx)",
            'Binder Error: Referenced column "x" not found in FROM clause! Candidate bindings: "xx".',
        ),
        (
            "SELECT * EXCLUDE (q) FROM (SELECT 1 AS a)",
            'Binder Error: Column "q" in EXCLUDE list not found in FROM clause. Candidate bindings: "a".',
        ),
        (
            "SELECT unknownf(1)",
            'Catalog Error: Scalar Function with name unknownf does not exist! Did you mean "now"?',
        ),
        ("SELECT\n  x\n", 'Binder Error: Referenced column "x" was not found because the FROM clause is missing.'),
        ("SELECT CAST('a\n\nb' AS INTEGER)", "Conversion Error: Could not convert string 'a b' to INT32."),
        (
            "SELECT strptime('x', '%Y')",
            'Invalid Input Error: Could not parse string "x" according to format specifier "%Y". '
            "Error: Expected a number.",
        ),
        (
            "SELECT '{'::JSON",
            'Conversion Error: Malformed JSON at byte 1 of input: unexpected end of data. Input: "{".',
        ),
        (
            "SELECT (SELECT 1 UNION ALL SELECT 2)",
            "Invalid Input Error: More than one row returned by a subquery used as an expression - scalar subqueries "
            "can only return a single row.",
        ),
        ("SELECT error('one\ntwo\n\nthree')", "Invalid Input Error: one two three."),
        ("SELECT error('Ends with a dot.')", "Invalid Input Error: Ends with a dot."),
        ("SELECT error('')", "Invalid Input Error."),
    ],
)
def test_is_one_sentence(sql: str, sentence: str) -> None:
    """The sentence is complete, without excerpts, carets, advice and line breaks."""
    with connect() as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(sql).fetchall()
    assert first_line(caught.value) == sentence


def test_advice_on_memory_is_left_out() -> None:
    """DuckDB's list of settings to try is about its own SET statements, which a user of refold does not write."""
    query = "SELECT list(range) FROM range(10000000)"
    with connect(memory_limit="1MB") as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(query).fetchall()
    assert first_line(caught.value).startswith("Out of Memory Error: failed to allocate data of size")
    assert "Possible" not in first_line(caught.value)
    assert "\n" not in first_line(caught.value)


def test_every_caret_goes_from_a_long_query() -> None:
    """DuckDB shortens a long line of the query on both sides; the excerpt is still removed."""
    query = f"SELECT {', '.join(['1'] * 60)}, missing, {', '.join(['2'] * 60)}"
    with connect() as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(query)
    assert first_line(caught.value) == (
        'Binder Error: Referenced column "missing" was not found because the FROM clause is missing.'
    )


def test_an_error_without_text_is_named() -> None:
    """A message is never empty."""
    assert first_line(duckdb.IOException()) == "IOException."
