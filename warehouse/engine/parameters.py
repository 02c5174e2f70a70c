"""Parameters of SQL: each is bound with its declared type, so that one value compares the same in every statement."""

from __future__ import annotations

import functools
import math
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

import duckdb

from refold.warehouse.engine.scratch import scratch
from refold.warehouse.engine.sql import first_line
from refold.warehouse.engine.types import resolved_type

_LARGEST_FLOAT = 3.4028234663852886e38
_PRECISE = 80
"""More digits than any DECIMAL has."""


def typed(value: Any, declared: str) -> duckdb.Value | None:
    """Return a value to bind with a declared type. The type of a value that is bound without one depends on its text.

    Args:
        value: a Python value, or text that DuckDB converts to the type; None is NULL.
        declared: the DuckDB type.

    Raises:
        ValueError: a number does not fit the type, or would be rounded. Whether a text fits is found when the
            statement runs; see :func:`check_value`.

    Example:
        >>> connection = duckdb.connect()
        >>> connection.execute("SELECT 10 < $x, typeof($x)", {"x": typed("10.4", "DOUBLE")}).fetchall()
        [(True, 'DOUBLE')]
    """
    if value is None:
        return None
    name = resolved_type(declared)
    if name.startswith("DECIMAL"):
        value = _decimal(value, name)
    elif name in ("FLOAT", "DOUBLE"):
        value = _float(value, name)
    return duckdb.Value(value, _type(name))


def check_value(value: Any, declared: str) -> None:
    """Check that a value can be bound with a declared type.

    Raises:
        ValueError: the value does not fit the type, or would be rounded.
    """
    bound = typed(value, declared)
    if resolved_type(declared).startswith(("DECIMAL", "FLOAT", "DOUBLE")):
        return  # Python has checked it, which is faster
    try:
        scratch().execute("SELECT ?", [bound])
    except duckdb.Error as error:
        raise ValueError(first_line(error)) from error


@functools.lru_cache(maxsize=256)
def _type(name: str) -> Any:
    return duckdb.type(name)


def _decimal(value: Any, name: str) -> str:
    """Return a decimal as text: DuckDB gives a Python decimal a type of its own digits."""
    precision, scale = (int(part) for part in name[len("DECIMAL(") : -1].split(","))
    with localcontext(prec=_PRECISE):
        try:
            number = Decimal(str(value))
            exact = number.quantize(Decimal(1).scaleb(-scale))
        except InvalidOperation:
            raise ValueError(f"expected a {name}") from None
    if not number.is_finite() or exact != number or len(exact.as_tuple().digits) > precision:
        raise ValueError(f"expected a number of at most {precision - scale} digits before and {scale} after the point")
    return f"{exact:f}"


def _float(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number) or (name == "FLOAT" and abs(number) > _LARGEST_FLOAT):
        raise ValueError(f"expected a finite number that fits {name}")
    return number
