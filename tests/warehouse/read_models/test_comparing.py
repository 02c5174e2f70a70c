"""Comparing tables: every difference between two databases is reported, and nothing else."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import count_distinct, latest, total
from refold.warehouse.read_models.comparison.compare import (
    Compared,
    compare_files,
    compared_published,
    compared_tables,
)
from refold.warehouse.read_models.comparison.differences import RowDifference, TableDifference, in_words

TABLE = Compared(name="t", source="{db}.main.t", key=("k",))


def compared(folder: Path, here: str, there: str, table: Compared = TABLE, **more: int) -> TableDifference | None:
    """Make two databases by SQL, and compare one table."""
    for name, sql in (("here", here), ("there", there)):
        (folder / f"{name}.duckdb").unlink(missing_ok=True)
        with duckdb.connect(str(folder / f"{name}.duckdb")) as connection:
            connection.execute(sql)
    found = compare_files(folder / "here.duckdb", folder / "there.duckdb", [table], spill=folder, **more)
    assert len(found) <= 1
    return found[0] if found else None


def rows(*values: str, columns: str = "k, a, b") -> str:
    """Return the statement that creates a table of some rows."""
    return f"CREATE TABLE t AS SELECT * FROM (VALUES {', '.join(values)}) v({columns})"


def test_the_order_of_rows_and_columns_is_no_difference(tmp_path: Path) -> None:
    """Neither the order nor the spelling of a type is a difference."""
    here = rows("(1, 'x', 2)", "(2, 'y', NULL)")
    there = rows("('y', NULL, 2)", "('x', 2, 1)", columns="a, b, k")
    assert compared(tmp_path, here, there) is None


def test_keys_and_columns_are_reported(tmp_path: Path) -> None:
    """Counts of each kind, and the first keys with the values that differ, of both sides."""
    here = rows("(1, 'x', 1)", "(2, 'x', 2)", "(3, 'x', 3)", "(4, 'x', 4)")
    there = rows("(1, 'x', 1)", "(2, 'y', 2)", "(3, 'y', NULL)", "(5, 'x', 4)")
    found = compared(tmp_path, here, there)
    assert found == TableDifference(
        name="t",
        rows_here=4,
        rows_there=4,
        only_here=1,
        only_there=1,
        changed=2,
        by_column={"a": 2, "b": 1},
        examples=(
            RowDifference(key={"k": 2}, here={"a": "x"}, there={"a": "y"}),
            RowDifference(key={"k": 3}, here={"a": "x", "b": 3}, there={"a": "y", "b": None}),
            RowDifference(key={"k": 4}, here={"a": "x", "b": 4}, there=None),
            RowDifference(key={"k": 5}, here=None, there={"a": "x", "b": 4}),
        ),
    )
    few = compared(tmp_path, here, there, examples=1)
    assert few is not None
    assert [e.key for e in few.examples] == [{"k": 2}]
    assert in_words(few, here="A", there="B") == (
        "t: 4 rows in A, 4 in B; 1 only in A; 1 only in B; 2 with other values (a 2, b 1); first: k 2: a x in A, y in B"
    )


def test_a_row_that_is_there_twice(tmp_path: Path) -> None:
    """A duplicate of a key, equal or not, is a difference."""
    once, twice = rows("(1, 'x', 1)"), rows("(1, 'x', 1)", "(1, 'x', 1)")
    found = compared(tmp_path, once, twice)
    assert found is not None
    assert (found.only_here, found.only_there, found.changed) == (0, 1, 0)
    other = compared(tmp_path, rows("(1, 'x', 1)", "(1, 'y', 2)"), once)
    assert other is not None
    assert (other.only_here, other.only_there, other.changed) == (1, 0, 0)


@pytest.mark.parametrize(
    ("here", "there", "equal"),
    [
        ("0.1e0 + 0.2e0", "0.3", True),
        ("1e15 + 1", "1e15", True),
        ("1000.0001", "1000", False),
        ("5e-17", "0", True),
        ("1e-6", "0", False),
        ("'nan'", "'nan'", True),
        ("'nan'", "1", False),
        ("'inf'", "'-inf'", False),
        ("NULL", "0", False),
        ("0.1::FLOAT", "0.1", False),
    ],
)
def test_only_approximate_columns_may_differ_by_rounding(tmp_path: Path, here: str, there: str, equal: bool) -> None:
    """The tolerance is relative to the greater value, at least 1; other columns are compared exactly."""
    approximate = Compared(name="t", source="{db}.t", key=("k",), approximate=frozenset({"a"}))
    ours, theirs = (f"CREATE TABLE t AS SELECT 1 AS k, ({value})::DOUBLE AS a" for value in (here, there))
    assert (compared(tmp_path, ours, theirs, approximate) is None) == equal
    exactly = compared(tmp_path, ours, theirs, Compared(name="t", source="{db}.t", key=("k",)))
    assert (exactly is None) == (here == there)


def test_every_type_can_be_compared(tmp_path: Path) -> None:
    """Values of every type, nested ones too, are compared."""
    values = "[1, 2] AS l, {'x': 1, 'y': [DATE '2024-01-01']} AS s, MAP {'a': 1} AS m, 1.50::DECIMAL(9,2) AS d"
    here = f"CREATE TABLE t AS SELECT 1 AS k, {values}, uuid() AS u"
    found = compared(tmp_path, here, here)
    assert found is not None
    assert found.by_column == {"u": 1}


def test_columns_that_one_side_only_has(tmp_path: Path) -> None:
    """Missing columns and changed types are reported; the shared columns are still compared."""
    found = compared(tmp_path, rows("(1, 'x', 1)"), rows("(1, 7, 2, 3)", columns="k, a, b, c"))
    assert found is not None
    assert found.schema == {"a": ("VARCHAR", "INTEGER"), "c": (None, "INTEGER")}
    assert found.by_column == {"b": 1}
    other_key = compared(tmp_path, rows("(1, 'x', 1)"), rows("('1', 'x', 1)", "('2', 'x', 1)"))
    assert other_key == TableDifference(name="t", rows_here=1, rows_there=2, schema={"k": ("INTEGER", "VARCHAR")})


def test_a_table_that_one_side_only_has(tmp_path: Path) -> None:
    """A missing table is reported without counts; one that both sides lack is no difference."""
    found = compared(tmp_path, rows("(1, 'x', 1)"), "SELECT 1")
    assert found == TableDifference(name="t", rows_here=1, rows_there=None)
    assert in_words(found, here="A", there="B") == "t: there is no such table in B"
    assert compared(tmp_path, "SELECT 1", "SELECT 1") is None


def test_full_rows_are_compared_without_a_key(tmp_path: Path) -> None:
    """A table that is no longer declared is compared by full rows."""
    keyless = Compared(name="t", source="{db}.t")
    found = compared(tmp_path, rows("(1, 'x', 1)", "(2, 'x', 1)"), rows("(1, 'x', 1)", "(2, 'y', 1)"), keyless)
    assert found is not None
    assert (found.only_here, found.only_there, found.changed) == (1, 1, 0)


def test_a_file_does_not_differ_from_itself(tmp_path: Path) -> None:
    """Two generations with the same file have no difference."""
    compared(tmp_path, rows("(1, 'x', 1)"), "SELECT 1")
    (tmp_path / "link.duckdb").symlink_to("here.duckdb")
    assert compare_files(tmp_path / "here.duckdb", tmp_path / "link.duckdb", [TABLE], spill=tmp_path) == []


@event(schema_version=1)
class Weighed:
    """A parcel was put on a scale."""

    parcel: str
    grams: float


def test_a_read_model_s_tables(tmp_path: Path) -> None:
    """Sums of floats are approximate; the seen values of a distinct count are a table too, but not in a diff."""
    model = Projection(
        name="weights",
        key={"parcel": "VARCHAR"},
        columns={"sum": total("DOUBLE", approximate=True), "last": latest("DOUBLE"), "n": count_distinct()},
        on={Weighed: "SELECT parcel, grams AS sum, grams AS last, grams AS n"},
        derived={"kilos": "sum / 1000"},
    )
    own, held, seen = compared_tables(model)
    assert (own.key, own.columns, own.approximate) == (("parcel",), ("parcel", "sum", "last", "n"), frozenset({"sum"}))
    assert (held.name, held.key, held.approximate) == (
        "refold.withheld_weights",
        ("parcel",),
        frozenset({"_beyond_sum"}),
    )
    assert seen.name == "refold.seen_weights_n"
    domain = Domain(name="post", events=(Weighed,), read_models=(model,))
    assert [(t.name, t.key, t.columns) for t in compared_published(domain, ["weights", "gone"])][:2] == [
        ("gone", (), ()),
        ("weights", ("parcel",), ()),
    ]
