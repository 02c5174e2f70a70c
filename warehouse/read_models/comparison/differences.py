"""Differences between two tables, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """One key whose rows differ.

    Attributes:
        key: key column to value.
        here: column to value, of differing columns, or of all if the other side lacks the row; None if this side does.
        there: the same for the other side.
    """

    key: dict[str, Any]
    here: dict[str, Any] | None
    there: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDifference:
    """The difference between tables of one name in two databases.

    Attributes:
        name: name of the table.
        rows_here: number of rows; None if there is no such table.
        rows_there: the same for the other side.
        schema: column to its types here and there, where these differ; None where there is no such column.
        only_here: number of rows without a counterpart there.
        only_there: number of rows without a counterpart here.
        changed: number of keys on both sides with different values.
        by_column: column to the number of those keys that differ in it.
        examples: the first differing keys, in order.
    """

    name: str
    rows_here: int | None
    rows_there: int | None
    schema: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    only_here: int = 0
    only_there: int = 0
    changed: int = 0
    by_column: dict[str, int] = field(default_factory=dict)
    examples: tuple[RowDifference, ...] = ()


def in_words(difference: TableDifference, *, here: str, there: str) -> str:
    """Describe a difference in a sentence.

    Args:
        difference: the difference.
        here: name of one side.
        there: name of the other side.

    Example:
        >>> in_words(TableDifference(name="stock", rows_here=3, rows_there=4, only_there=1), here="A", there="B")
        'stock: 3 rows in A, 4 in B; 1 only in B'
    """
    if difference.rows_here is None or difference.rows_there is None:
        return f"{difference.name}: there is no such table in {here if difference.rows_here is None else there}"
    parts = [f"{difference.name}: {difference.rows_here:,} rows in {here}, {difference.rows_there:,} in {there}"]
    parts += [
        f"column {c} is {a or 'missing'} in {here} and {b or 'missing'} in {there}"
        for c, (a, b) in difference.schema.items()
    ]
    parts += [
        f"{n:,} only in {side}" for n, side in ((difference.only_here, here), (difference.only_there, there)) if n
    ]
    if difference.changed:
        by_column = ", ".join(f"{c} {n:,}" for c, n in difference.by_column.items())
        parts.append(f"{difference.changed:,} with other values ({by_column})")
    if difference.examples:
        parts.append(f"first: {_example_in_words(difference.examples[0], here, there)}")
    return "; ".join(parts)


def _example_in_words(example: RowDifference, here: str, there: str) -> str:
    key = ", ".join(f"{c} {v}" for c, v in example.key.items())
    if example.here is None or example.there is None:
        return f"{key} is only in {there if example.here is None else here}"
    values = ", ".join(f"{c} {v!s} in {here}, {example.there[c]!s} in {there}" for c, v in example.here.items())
    return f"{key}: {values}"
