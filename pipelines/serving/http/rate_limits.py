"""How often one caller may ask: a fixed window a caller, in this process's memory."""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from refold.event_schemas import UsageError


@dataclass(frozen=True, slots=True)
class Rates:
    """Counts what callers ask.

    Args:
        allowed: how many requests in which time.
        counter: keeps the counts.

    Example:
        >>> rates = make_rates("2/minute")
        >>> [rates.wait_for("shop") for _ in range(2)]
        [0, 0]
        >>> rates.wait_for("shop") > 0
        True
        >>> rates.wait_for("dashboard")
        0
    """

    allowed: RateLimitItem
    counter: FixedWindowRateLimiter

    def wait_for(self, caller: str) -> int:
        """Count a request, and give the seconds after which it may come again; 0 if it may come now."""
        return 0 if self.counter.hit(self.allowed, caller) else self.allowed.get_expiry()


def make_rates(text: str) -> Rates:
    """Make a rate bound.

    Args:
        text: such as ``"100/second"`` or ``"6000/minute"``.

    Raises:
        UsageError: it cannot be meant.
    """
    try:
        allowed = parse(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no rate. Write 100/second or 6000/minute.") from error
    if allowed.amount < 1:
        raise UsageError(f"The rate {text!r} lets nothing through. Write 100/second or 6000/minute.")
    return Rates(allowed, FixedWindowRateLimiter(MemoryStorage()))
