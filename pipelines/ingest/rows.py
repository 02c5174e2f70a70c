"""What readers of files hand on: chunks of rows, with their places in the file for whoever has to find a bad one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

Place = dict[str, int]
"""How far a file was read: ``row`` rows, ``line`` lines, ``offset`` decompressed bytes."""

START: Place = {"row": 0, "line": 0, "offset": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLimits:
    """How much is held in memory at a time.

    Attributes:
        chunk_rows: rows of a chunk, at most.
        chunk_bytes: bytes of a chunk, about.
        row_bytes: a longer line, element or cell is rejected.
        commit_events: events of a commit, when an import goes through ordinary commits.
    """

    chunk_rows: int = 250_000
    chunk_bytes: int = 32 << 20
    row_bytes: int = 64 << 20
    commit_events: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A chunk of rows of a file.

    Attributes:
        columns: one column ``_text`` with a JSON document a row, the cells of a CSV file, or columns of a Parquet file.
        lines: the line on which each row begins, from 1; of a Parquet file its number.
        text: one row as it stands in the file, by its index in the chunk.
        broken: rows that could not even be read, and why; their columns are empty.
        after: the place behind the chunk.
        consumed: bytes of the stored file read so far.
    """

    columns: pa.Table
    lines: Sequence[int]
    text: Callable[[int], str]
    broken: Mapping[int, str] = field(default_factory=dict)
    after: Place
    consumed: int

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.columns.num_rows)
