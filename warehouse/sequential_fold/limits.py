"""What the column of a total can hold: the ranges of DuckDB's number types, in Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_GREATEST = {"FLOAT": float.fromhex("0x1.fffffep+127"), "DOUBLE": float.fromhex("0x1.fffffffffffffp+1023")}

Number = int | float | Decimal


@dataclass(frozen=True, slots=True)
class Limits:
    """The range of a column.

    Attributes:
        low: its least value.
        high: its greatest value.
        scale: its digits after the point; None if it is a float.
    """

    low: Number
    high: Number
    scale: int | None

    def fits(self, total: Number) -> bool:
        """Check whether the column can hold a total."""
        return self.low <= total <= self.high

    def text(self, total: Number) -> str:
        """Return a total as it is kept beside a withheld row: without its decimal point."""
        return repr(total) if self.scale is None else str(int(Fraction(total) * 10**self.scale))


def limits_of(dtype: str) -> Limits:
    """Return the range of a type.

    Args:
        dtype: DuckDB's own name of the type.

    Example:
        >>> limits_of("UTINYINT")
        Limits(low=0, high=255, scale=0)
        >>> limits_of("DECIMAL(4,1)").fits(Decimal("1000.0")), limits_of("DECIMAL(4,1)").text(Decimal("1000.0"))
        (False, '10000')
    """
    if dtype in _GREATEST:
        return Limits(-_GREATEST[dtype], _GREATEST[dtype], None)
    if decimal := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", dtype):
        digits, scale = map(int, decimal.groups())
        high = Decimal(10**digits - 1).scaleb(-scale)
        return Limits(high.copy_negate(), high, scale)
    bits = _BITS[dtype.removeprefix("U")]
    return Limits(0, 2**bits - 1, 0) if dtype.startswith("U") else Limits(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0)
