"""What readers of files hand on: chunks of rows, with their places in the file for whoever has to find a bad one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

Place = dict[str, int]
"""How far a file was read: ``row`` rows, ``line`` lines, ``offset`` decompressed bytes."""

START: Place = {"row": 0, "line": 0, "offset": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
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
class Reject:
    """A row that could not become an event.

    Attributes:
        row: its index in the chunk.
        reason: why.
    """

    row: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRows:
    """A chunk of rows of a text file.

    Attributes:
        columns: one column ``_text`` with a JSON document a row, or the cells of a CSV file.
        lines: the line on which each row begins, from 1.
        texts: the rows as they stand in the file.
        broken: rows that could not even be read; their columns are empty.
        after: the place behind the chunk.
        consumed: bytes of the stored file read so far.
    """

    columns: pa.Table
    lines: Sequence[int]
    texts: Sequence[str] | pa.Array
    broken: Mapping[int, str] = field(default_factory=dict)
    after: Place
    consumed: int

    @property
    def count(self) -> int:
        """How many rows."""
        return int(self.columns.num_rows)

    def text(self, row: int) -> str:
        """Give one row as it stands in the file."""
        found = self.texts[row]
        return str(found.as_py() if isinstance(found, pa.Scalar) else found).strip("\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetRows:
    """A chunk of rows of a Parquet file.

    Attributes:
        path: a local path of the file.
        first: index of its first row in the file.
        count: how many rows.
        after: the place behind the chunk.
        consumed: bytes of the stored file that this and the chunks before stand for.
    """

    path: Path
    first: int
    count: int
    after: Place
    consumed: int


Rows = TextRows | ParquetRows
