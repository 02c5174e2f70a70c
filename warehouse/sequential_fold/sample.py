"""A sample of keys: those whose hash with a seed falls into one of many parts, on any side of a comparison alike."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from refold.warehouse.sequential_fold.values import name_in_sql


@dataclass(frozen=True, slots=True)
class Sample:
    """The keys of one read model to recompute.

    Attributes:
        seed: what makes one sample differ from another.
        one_in: takes about one key in so many.
        columns: the key columns that decide.
        by_stream: whether the only such column is the stream of the events, so that other streams need no reading.
    """

    seed: int
    one_in: int
    columns: tuple[str, ...]
    by_stream: bool = False

    def condition(self) -> str:
        """Return the condition of SQL on a key that is in the sample."""
        parts = [f"'{self.seed}'", *(f"CAST({name_in_sql(c)} AS VARCHAR)" for c in self.columns)]
        return f"md5_number_lower(concat_ws(chr(31), {', '.join(parts)})) % {self.one_in} = 0"

    def takes_stream(self, stream_id: str) -> bool:
        """Check whether events of a stream may belong to keys of the sample."""
        digest = hashlib.md5(f"{self.seed}\x1f{stream_id}".encode(), usedforsecurity=False).digest()
        return not self.by_stream or int.from_bytes(digest[8:], "little") % self.one_in == 0
