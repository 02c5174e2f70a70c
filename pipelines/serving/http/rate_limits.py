"""Rate limits: a fixed window for each caller, in the memory of this process."""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from refold.event_schemas import UsageError


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Counts the requests of each caller; make one with :func:`parse_rate`.

    Args:
        allowed: requests per time window.
        counter: keeps the counts.

    Example:
        >>> limit = parse_rate("2/minute")
        >>> [limit.retry_after("shop") for _ in range(2)]
        [0, 0]
        >>> limit.retry_after("shop") > 0
        True
        >>> limit.retry_after("dashboard")
        0
    """

    allowed: RateLimitItem
    counter: FixedWindowRateLimiter

    def retry_after(self, caller: str) -> int:
        """Count a request; return the seconds to wait before the next attempt, or 0 if the request is allowed."""
        return 0 if self.counter.hit(self.allowed, caller) else self.allowed.get_expiry()


def parse_rate(text: str) -> RateLimit:
    """Parse a rate limit.

    Args:
        text: such as ``"100/second"`` or ``"6000/minute"``.

    Raises:
        UsageError: the text is invalid, or allows no request.
    """
    try:
        allowed = parse(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a rate. Write 100/second or 6000/minute.") from error
    if allowed.amount < 1:
        raise UsageError(f"The rate {text!r} allows no request. Write 100/second or 6000/minute.")
    return RateLimit(allowed, FixedWindowRateLimiter(MemoryStorage()))
