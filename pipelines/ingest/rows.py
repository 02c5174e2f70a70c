"""What a reader of a format gets and returns: a file and a place in it, and chunks of rows with their lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.source_file import SourceFile

Place = dict[str, int]
"""How far a file was read: ``row`` rows, ``line`` lines, ``offset`` decompressed bytes. The journal keeps it."""

START: Place = {"row": 0, "line": 0, "offset": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLimits:
    """How much an import holds in memory at a time.

    Attributes:
        chunk_rows: the most rows of a chunk.
        chunk_bytes: the approximate bytes of a chunk.
        row_bytes: the most bytes of a line, element or cell; a longer one is rejected.
        commit_events: events of a commit, when an import goes through ordinary commits.
    """

    chunk_rows: int = 250_000
    chunk_bytes: int = 32 << 20
    row_bytes: int = 64 << 20
    commit_events: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a reader of a format gets.

    Attributes:
        file: to read.
        mapping: of its columns.
        place: how far it was read before.
        limits: of a chunk, and of a row.
        needed: names of the columns that anything may be taken from; a reader may leave out the others.
    """

    file: SourceFile
    mapping: ColumnMapping
    place: Place
    limits: ImportLimits
    needed: Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A chunk of rows of a file.

    Attributes:
        columns: one column ``_text`` with a JSON document per row, or the columns of the file.
        lines: the line on which each row begins, from 1; of a Parquet file its number.
        text: returns a row as it is in the file, by its index in the chunk.
        invalid: rows that could not even be read, and why; their columns are empty.
        after: the place behind the chunk.
        consumed: bytes of the stored file read so far.
    """

    columns: pa.Table
    lines: Sequence[int]
    text: Callable[[int], str]
    invalid: Mapping[int, str] = field(default_factory=dict)
    after: Place
    consumed: int

    @property
    def count(self) -> int:
        """The number of rows."""
        return int(self.columns.num_rows)
