"""Names like one that was not found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question that follows the name in an error; empty if no name is like it.

    Example:
        >>> did_you_mean("custmer", ["customer", "amount"])
        " (did you mean 'customer'?)"
    """
    folded = {known.casefold(): known for known in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(folded[known]) for known in close)}?)" if close else ""
