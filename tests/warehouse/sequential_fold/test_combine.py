"""What reducers mean, contribution by contribution."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from refold.warehouse.declarations.reducers import Kind
from refold.warehouse.sequential_fold.combine import START, combine, published, rank

NAN = float("nan")


def combined(kind: Kind, *given: Any) -> Any:
    """Combine contributions from the start."""
    value = START[kind]()
    for contribution in given:
        value = combine(kind, value, contribution, rank)
    return published(kind, value)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (Kind.TOTAL, [1, None, 2**70], 2**70 + 1),
        (Kind.TOTAL, [Decimal("1E27"), Decimal("0.0000000001")], Decimal("1000000000000000000000000000.0000000001")),
        (Kind.TOTAL, [], 0),
        (Kind.COUNT, ["a", None, "a"], 2),
        (Kind.MINIMUM, [None, "b", "B"], "B"),
        (Kind.MINIMUM, [], None),
        (Kind.MAXIMUM, [[1], [1, None], [1, 7]], [1, None]),
        (Kind.FIRST, [None, 3, 4], 3),
        (Kind.LATEST, [3, None], None),
        (Kind.COLLECT, [3, None, 3], [3, 3]),
        (Kind.COUNT_DISTINCT, [0.0, -0.0, NAN, NAN, None], 2),
        (Kind.COUNT_DISTINCT, [Decimal("2.50"), Decimal("2.5"), Decimal("2.5000")], 1),
        (Kind.COUNT_DISTINCT, [["a"], ["a"], {"x": [1]}, {"x": [1]}], 2),
    ],
)
def test_the_meaning_of_a_reducer(kind: Kind, given: list[Any], value: Any) -> None:
    """As ``docs/how-to/declare-read-models.md`` says."""
    assert combined(kind, *given) == value


def test_nan_is_the_greatest_float() -> None:
    """As in SQL, and unlike in Python, where its place depends on the order of the comparison."""
    assert str(combined(Kind.MAXIMUM, 1.0, NAN, 2.0)) == "nan"
    assert combined(Kind.MINIMUM, NAN, 2.0, 1.0) == 1.0
