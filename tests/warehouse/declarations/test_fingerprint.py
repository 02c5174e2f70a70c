"""What counts as a change of a read model, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from refold.warehouse.declarations.fingerprint import function_text

STEP = Decimal("0.01")


def _round(amount: Decimal) -> Decimal:
    return amount.quantize(STEP)


def helped(state: Any, amount: Decimal) -> Any:
    """Call a helper."""
    return (state or 0) + _round(amount)


def helped_within(state: Any, amounts: list[Decimal]) -> Any:
    """Call a helper from within a comprehension."""
    return (state or 0) + sum(_round(amount) for amount in amounts)


@pytest.mark.parametrize("function", [helped, helped_within])
def test_a_helper_and_its_constants_count(function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint of a fold includes the functions that it calls and the constants that it reads."""
    before = function_text(function)
    monkeypatch.setitem(globals(), "STEP", Decimal("0.001"))
    other_constant = function_text(function)
    monkeypatch.setitem(globals(), "STEP", Decimal("0.01"))
    assert function_text(function) == before != other_constant
    monkeypatch.setitem(globals(), "_round", _truncate)
    assert function_text(function) != before


def _truncate(amount: Decimal) -> Decimal:
    return Decimal(int(amount))


def test_layout_and_docstrings_do_not_count() -> None:
    """Comments, docstrings and layout do not change a fingerprint."""
    text = function_text(laid_out).replace("laid_out", "helped")
    assert text == function_text(helped)


# fmt: off
def laid_out(state: Any,
             amount: Decimal) -> Any:
    """Do the same, with another docstring."""
    # and with a comment
    return ((state or 0)
            + _round(amount))
# fmt: on
