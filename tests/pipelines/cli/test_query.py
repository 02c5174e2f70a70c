"""``refold query``: to people, to machines, and how it fails."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from tests.pipelines.cli.running import Call, answer, on_terminal


def test_query_as_json_has_its_position(call: Call, made: Path) -> None:
    """Position and last_updated beside the rows; decimals as text, exactly."""
    document = answer(call("query", "--json", "SELECT 1.10::DECIMAL(9,2) AS a, 2 AS b, 3 AS b", folder=made))
    status = answer(call("status", "--json", folder=made))
    assert document["columns"] == ["a", "b", "b_2"]
    assert document["rows"] == [{"a": "1.10", "b": 2, "b_2": 3}]
    assert document["position"] == status["generation"]["position"]
    assert document["last_updated"] == status["generation"]["last_updated"]
    assert answer(call("query", "--json", "FROM order_summary WHERE false", folder=made))["rows"] == []
    odd = "SELECT (2**100)::HUGEINT AS huge, 'a'::BLOB AS bytes, TIMESTAMPTZ '2025-01-01 00:00+01' AS at, [1.5] AS list"
    assert answer(call("query", "--json", odd, folder=made))["rows"] == [
        {"huge": str(2**100), "bytes": "61", "at": "2024-12-31T23:00:00+00:00", "list": ["1.5"]}
    ]


def test_query_in_a_pipe_gives_every_row_and_the_footer_on_stderr(call: Call, made: Path) -> None:
    """Rows and values are complete, at any width and length."""
    result = call("query", "SELECT i, repeat('x', 300) AS wide FROM range(1500) r(i)", folder=made)
    lines = result.stdout.splitlines()
    assert len(lines) == 1501
    assert lines[-1].split() == ["1,499", "x" * 300]
    assert re.fullmatch(r"position [\d,]+, last updated \S+ \S+Z, generation 1\n", result.stderr)


def test_query_on_a_terminal_shows_a_screenful(made: Path) -> None:
    """The table is cut to the screen, and the footer says how to see all rows."""
    shown = on_terminal("query", "SELECT 'row-' || i AS name FROM range(250) r(i)", folder=made)
    assert len(re.findall(r"row-\d+", shown)) == 100
    assert "--limit 0" in shown
    assert (
        len(
            re.findall(
                r"row-\d+", on_terminal("query", "--limit", "0", "FROM range(9) r(i) SELECT 'row-' || i", folder=made)
            )
        )
        == 9
    )


def test_query_as_csv(call: Call, made: Path) -> None:
    """CSV has plain values, and lists as JSON."""
    result = call(
        "query", "--csv", "SELECT 1234.50::DECIMAL(9,2) AS a, 'x,y' AS b, [1, 2] AS c, NULL AS d", folder=made
    )
    assert list(csv.reader(io.StringIO(result.stdout))) == [["a", "b", "c", "d"], ["1234.50", "x,y", "[1,2]", ""]]
    call("query", "--csv", "--json", "SELECT 1", folder=made, code=2)


def test_a_limit_is_reported(call: Call, made: Path) -> None:
    """A truncated result is marked as such."""
    result = call("query", "--limit", "2", "--csv", "FROM range(3)", folder=made)
    assert len(result.stdout.splitlines()) == 3
    assert "The first 2 rows" in result.stderr
    assert "The first" not in call("query", "--limit", "3", "--csv", "FROM range(3)", folder=made).stderr


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        ("SELEC 1", 2, "syntax error"),
        ("FROM nowhere", 2, "nowhere does not exist"),
        ("SELECT nothing FROM order_summary", 2, "nothing"),
        ("DELETE FROM order_summary", 2, "read-only"),
        ("CREATE TABLE more (i INTEGER)", 2, "read-only"),
        ("SELECT CAST(city AS INTEGER) FROM order_summary", 1, "Could not convert"),
        ("SELECT error('late') FROM range(5000) r(i) WHERE i = 4999", 1, "late"),
    ],
)
def test_a_query_that_fails_says_why(sql: str, code: int, message: str, call: Call, made: Path) -> None:
    """The error is one paragraph on stderr, with nothing on stdout."""
    result = call("query", "--json", sql, folder=made, code=code)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_query_without_anything_published_is_an_error(call: Call, made: Path, tmp_path: Path) -> None:
    """The error names the command to run."""
    result = call("query", "SELECT 1", "--read-models", str(tmp_path), folder=made, code=1)
    assert "Nothing is published" in result.stderr
    assert "refold rebuild" in result.stderr
