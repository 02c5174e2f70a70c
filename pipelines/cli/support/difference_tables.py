"""Differences between two databases, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refold.warehouse.read_models.comparison.differences import RowDifference, TableDifference


def as_documents(differences: Sequence[TableDifference], *, here: str, there: str) -> list[dict[str, Any]]:
    """Return differences as JSON values.

    Args:
        differences: of tables.
        here: what to call one side.
        there: what to call the other.
    """
    return [_document(d, here, there) for d in differences]


def _document(difference: TableDifference, here: str, there: str) -> dict[str, Any]:
    return {
        "table": difference.name,
        f"rows_{here}": difference.rows_here,
        f"rows_{there}": difference.rows_there,
        "schema": {c: {here: a, there: b} for c, (a, b) in difference.schema.items()},
        f"only_{here}": difference.only_here,
        f"only_{there}": difference.only_there,
        "changed": difference.changed,
        "by_column": difference.by_column,
        "examples": [{"key": e.key, here: e.here, there: e.there} for e in difference.examples],
    }


def print_differences(differences: Sequence[TableDifference], *, here: str, there: str) -> None:
    """Print a table of counts, then the first keys and columns with both values."""
    from refold.pipelines.cli.support.output import print_table, print_text

    rows = [
        (
            d.name,
            "no table" if d.rows_here is None else d.rows_here,
            "no table" if d.rows_there is None else d.rows_there,
            d.only_here,
            d.only_there,
            d.changed,
        )
        for d in differences
    ]
    print_table(("table", f"rows {here}", f"rows {there}", f"only {here}", f"only {there}", "changed"), rows)
    for d in differences:
        for column, (a, b) in d.schema.items():
            print_text(f"{d.name}: column {column} is {a or 'missing'} ({here}), {b or 'missing'} ({there}).")
    examples = [(d.name, *line) for d in differences for e in d.examples for line in _lines(e)]
    if examples:
        print_table(("table", "key", "column", here, there), examples, wrap_last=True)


def _lines(example: RowDifference) -> list[tuple[str, str, str, str]]:
    from refold.pipelines.cli.support.output import as_text

    key = ", ".join(as_text(value) for value in example.key.values())
    ours, theirs = example.here, example.there
    if ours is None or theirs is None:
        return [(key, "", "no row" if ours is None else "a row", "no row" if theirs is None else "a row")]
    return [(key, column, _value(value), _value(theirs[column])) for column, value in ours.items()]


def _value(value: Any) -> str:
    """Format a value so that differences show: NULL is not empty, and a float keeps all digits."""
    from refold.pipelines.cli.support.output import as_text

    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, float) else as_text(value)
