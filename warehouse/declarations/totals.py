"""Exact totals: sums that may pass beyond their column's type and come back.

The sum of a key's contributions is wider than the column: 38 digits, which no number of events fills if each
contributes at most :data:`MAX_NARROW_DIGITS`. Wider contributions are summed as BIGNUM, without their decimal point; so
is a total that has left its column's type. Only at the end of a rebuild or of an increment must a total fit.
"""

from __future__ import annotations

from refold.warehouse.engine.duckdb_types import digits_of, is_float, scale_of

MAX_NARROW_DIGITS = 25
"""10^13 contributions with so many digits fit into a sum of 38 digits; one key is not expected to have more."""


def is_wide(contributed: str) -> bool:
    """Check whether contributions of a type may fill a sum of 38 digits."""
    return not is_float(contributed) and digits_of(contributed) > MAX_NARROW_DIGITS


def sum_type(declared: str, *, wide: bool) -> str:
    """Return the type of the sum of contributions to a total of a declared type."""
    if is_float(declared):
        return "DOUBLE"
    return "BIGNUM" if wide else f"DECIMAL(38,{scale_of(declared)})"


def sum_of(value: str, declared: str, *, wide: bool) -> str:
    """Return the aggregate of contributions, in the type of :func:`sum_type`."""
    if wide:
        return f"sum({without_point(value)})"
    return f"CAST(sum({value}) AS {sum_type(declared, wide=False)})"


def without_point(value: str) -> str:
    """Return a decimal or integer without its point, as BIGNUM. DuckDB casts to BIGNUM exactly from text only."""
    return f"CAST(replace(CAST({value} AS VARCHAR), '.', '') AS BIGNUM)"


def exact(value: str, declared: str, *, wide: bool = False) -> str:
    """Return a total as it is kept while it is beyond its column: BIGNUM without a point, or DOUBLE for floats.

    Args:
        value: a value of the column, or a sum of contributions; NULL is 0.
        declared: the column's type.
        wide: whether ``value`` is a sum that is BIGNUM already.
    """
    if is_float(declared):
        return f"coalesce(CAST({value} AS DOUBLE), 0)"
    return f"coalesce({value if wide else without_point(value)}, 0::BIGNUM)"


def exact_type(declared: str) -> str:
    """Return the type of :func:`exact`."""
    return "DOUBLE" if is_float(declared) else "BIGNUM"


def fitting(total: str, declared: str) -> str:
    """Return the column's value for an exact total, or NULL if its type cannot hold it."""
    if is_float(declared):
        return _finite(total, declared)
    return f"TRY_CAST({text_of(total, declared)} AS {declared})"


def fitting_sum(value: str, declared: str, *, wide: bool) -> str:
    """Return the column's value for a sum of contributions, or NULL if its type cannot hold it."""
    if is_float(declared):
        return _finite(f"coalesce({value}, 0)", declared)
    return (
        fitting(exact(value, declared, wide=True), declared)
        if wide
        else f"TRY_CAST(coalesce({value}, 0) AS {declared})"
    )


def _finite(value: str, declared: str) -> str:
    return f"CASE WHEN isfinite({value}) THEN TRY_CAST({value} AS {declared}) END"


def text_of(total: str, declared: str) -> str:
    """Return an exact total as text that people read and DuckDB casts, with its decimal point."""
    text = f"CAST({total} AS VARCHAR)"
    scale = scale_of(declared)
    if not scale:
        return text
    digits = f"lpad(ltrim({text}, '-'), greatest(length(ltrim({text}, '-')), {scale + 1})::INTEGER, '0')"
    sign = f"CASE WHEN starts_with({text}, '-') THEN '-' ELSE '' END"
    return f"({sign} || left({digits}, -{scale}) || '.' || right({digits}, {scale}))"
