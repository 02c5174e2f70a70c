"""Limits on the values that commands may carry."""

from __future__ import annotations

import re
from decimal import Decimal

CURRENCY = re.compile(r"[A-Z]{3}")

# Read models add up these values over thousands of orders in columns of 18 digits. A sum that did not fit would be an
# error of the read model, which could then never move past that event.
MAX_MONEY = Decimal("1e10")
MAX_PIECES = 1_000_000
