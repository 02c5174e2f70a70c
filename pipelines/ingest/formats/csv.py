"""CSV files with a header as chunks of rows of text, in bounded memory."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from refold.event_schemas import UsageError
from refold.pipelines.ingest.blocks import BOM, blocks, too_long
from refold.pipelines.ingest.formats.text_stream import open_text
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import START, ImportLimits, Place, ReadRequest, Rows
from refold.pipelines.ingest.source_file import ByteStream, SourceFile


def column_names(file: SourceFile, mapping: ColumnMapping) -> list[str]:
    """Return the columns that the header names.

    Raises:
        UsageError: it names one twice.
    """
    return _read_header(file, mapping, ImportLimits())[0]


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read rows of text.

    Raises:
        UsageError: the header names a column twice.
    """
    limits = request.limits
    csv.field_size_limit(limits.row_bytes)  # of the process: the csv module has no narrower scope
    mapping = request.mapping
    header, begin = _read_header(request.file, mapping, limits)
    place = request.place if request.place["offset"] else begin
    with open_text(request.file, mapping.encoding, offset=place["offset"]) as stream:
        lines = _Lines(stream, place, limits, mapping.comment)
        reader = csv.reader(lines, strict=True, **_dialect(mapping))
        chunk = _Chunk(len(header))
        while True:
            malformed = ""
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                cells, malformed = [], f"this is no CSV: {error}"
                lines.keep_one_line()
            first_line = lines.place["line"] + 1 - lines.row_length
            text, unreadable = lines.take_row()
            reason = unreadable or malformed or _wrong_width(cells, header)
            if cells or reason:
                chunk.add(cells, reason, first_line, text)
                lines.place["row"] += 1
            if len(chunk.lines) >= limits.chunk_rows or chunk.size >= limits.chunk_bytes:
                yield chunk.rows(header, lines.place, stream.consumed())
                chunk = _Chunk(len(header))
        if chunk.lines:
            yield chunk.rows(header, lines.place, stream.consumed())


def _read_header(file: SourceFile, mapping: ColumnMapping, limits: ImportLimits) -> tuple[list[str], Place]:
    """Return the names of the columns, and the place of the first row."""
    with open_text(file, mapping.encoding) as stream:
        lines = _Lines(stream, START, limits, mapping.comment)
        lines.skip(mapping.skip_rows)
        names = (
            [name.strip() for name in next(csv.reader(lines, **_dialect(mapping)), [])] if mapping.has_header else []
        )
    if mapping.column_names:
        if names and len(names) != len(mapping.column_names):
            raise UsageError(
                f"{file.name}: its header has {len(names)} columns, but columns in the mapping names "
                f"{len(mapping.column_names)}. Name each of them."
            )
        names = list(mapping.column_names)
    if double := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(f"{file.name}: its header names the column {double[0]!r} twice. Rename one of them.")
    return names, lines.place


def _dialect(mapping: ColumnMapping) -> dict[str, Any]:
    return {
        "delimiter": mapping.delimiter or ",",
        "quoting": csv.QUOTE_MINIMAL if mapping.quote else csv.QUOTE_NONE,
        "quotechar": mapping.quote or None,
        "escapechar": mapping.escape or None,
        "doublequote": not mapping.escape,
    }


@dataclass(slots=True)
class _Chunk:
    """Rows of a chunk that were read so far."""

    width: int
    cells: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    invalid: dict[int, str] = field(default_factory=dict)
    size: int = 0

    def add(self, cells: list[str], reason: str, line: int, text: str) -> None:
        if reason:
            self.invalid[len(self.lines)] = reason
            cells = [""] * self.width
        self.cells.append(cells)
        self.lines.append(line)
        self.texts.append(text)
        self.size += len(text)

    def rows(self, header: list[str], place: Place, consumed: int) -> Rows:
        columns = zip(*self.cells, strict=True) if header else ()
        return Rows(
            columns=pa.table([pa.array(c, pa.string()) for c in columns], names=header),
            lines=self.lines,
            text=lambda row: self.texts[row].strip("\r\n"),
            invalid=self.invalid,
            after=dict(place),
            consumed=consumed,
        )


class _Lines:
    """Lines for the CSV reader; it keeps those of the current row."""

    def __init__(self, stream: ByteStream, place: Place, limits: ImportLimits, comment: str) -> None:
        self._ahead = _split(stream, limits)
        self._comment = comment
        self._again: deque[_Line] = deque()
        self._row: list[_Line] = []
        self.place = dict(place)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next()
        while self._comment and not self._row and line.text.startswith(self._comment):
            line = self._next()
        self._row.append(line)
        return line.text

    def _next(self) -> _Line:
        line = self._again.popleft() if self._again else next(self._ahead)
        self.place["line"] += 1
        self.place["offset"] += line.length
        return line

    def skip(self, count: int) -> None:
        """Skip lines before the header."""
        try:
            for _ in range(count):
                self._next()
        except StopIteration:
            return

    @property
    def row_length(self) -> int:
        """How many lines the current row has."""
        return len(self._row)

    def take_row(self) -> tuple[str, str]:
        """Return the row's text, and why it is unreadable if it is; the next line begins another row."""
        row, self._row = self._row, []
        return "".join(line.text for line in row), next((line.unreadable for line in row if line.unreadable), "")

    def keep_one_line(self) -> None:
        """Return all lines of the row but the first: a quote that is never closed must not swallow valid rows."""
        again, self._row = self._row[1:], self._row[:1]
        self._again.extendleft(reversed(again))
        self.place["line"] -= len(again)
        self.place["offset"] -= sum(line.length for line in again)


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    length: int
    unreadable: str = ""


def _split(stream: ByteStream, limits: ImportLimits) -> Iterator[_Line]:
    first = True
    for block in blocks(stream, limits):
        if block.overlong:
            yield _Line("\n", block.length, too_long(limits))
            continue
        lines = block.data.split(b"\n")
        surplus = len(block.data) - block.length  # a newline that the last line of the file lacks
        for i, raw in enumerate(lines[:-1]):
            length = len(raw) + 1 - (surplus if i == len(lines) - 2 else 0)
            yield _line(raw.removeprefix(BOM) if first else raw, length)
            first = False


def _line(raw: bytes, length: int) -> _Line:
    try:
        return _Line(raw.decode() + "\n", length)
    except UnicodeDecodeError:
        return _Line(raw.decode("utf-8", "backslashreplace") + "\n", length, "this is no UTF-8")


def _wrong_width(cells: list[str], header: list[str]) -> str:
    if not cells or len(cells) == len(header):
        return ""
    return f"expected {len(header)} cells, found {len(cells)}"
