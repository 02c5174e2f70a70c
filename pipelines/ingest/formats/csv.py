"""CSV files with a header as chunks of rows of text. Memory does not grow with the file."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from refold.event_schemas import UsageError
from refold.pipelines.ingest.blocks import BOM, blocks, too_long
from refold.pipelines.ingest.rows import ImportLimits, Place, Rows
from refold.pipelines.ingest.sources import ByteStream


def read_header(stream: ByteStream, *, delimiter: str, limits: ImportLimits) -> tuple[list[str], Place]:
    """Read the names of the columns, and the place behind them.

    Raises:
        UsageError: there is no header, or it names a column twice.
    """
    lines = _Lines(stream, {"row": 0, "line": 0, "offset": 0}, limits)
    names = next(csv.reader(lines, delimiter=delimiter), [])
    if double := sorted({n for n in names if names.count(n) > 1}):
        raise UsageError(f"{stream.name}: its header names the column {double[0]!r} twice.")
    return names, lines.place


def read_csv(
    stream: ByteStream, place: Place, *, header: list[str], delimiter: str, limits: ImportLimits
) -> Iterator[Rows]:
    """Read rows.

    Args:
        stream: the file's bytes from ``place["offset"]`` on.
        place: how far it was read before; the header counts as read.
        header: names of the columns.
        delimiter: between cells.
        limits: of a chunk, and of a row.
    """
    csv.field_size_limit(limits.row_bytes)  # of the process; the module knows no other
    lines = _Lines(stream, place, limits)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    chunk = _Chunk(len(header))
    while True:
        first_line = lines.place["line"] + 1
        wrong = ""
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            cells, wrong = [], f"this is no CSV: {error}"
            lines.one_line_only()
        text, broken = lines.taken()
        broken = broken or wrong or _wrong_width(cells, header)
        if cells or broken:
            chunk.add(cells, broken, first_line, text)
            lines.place["row"] += 1
        if len(chunk.lines) >= limits.chunk_rows or chunk.size >= limits.chunk_bytes:
            yield chunk.rows(header, lines.place, stream.consumed())
            chunk = _Chunk(len(header))
    if chunk.lines:
        yield chunk.rows(header, lines.place, stream.consumed())


@dataclass(slots=True)
class _Chunk:
    """Rows that were read so far."""

    width: int
    cells: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    broken: dict[int, str] = field(default_factory=dict)
    size: int = 0

    def add(self, cells: list[str], broken: str, line: int, text: str) -> None:
        if broken:
            self.broken[len(self.lines)] = broken
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
            broken=self.broken,
            after=dict(place),
            consumed=consumed,
        )


class _Lines:
    """Lines for the CSV reader, which remembers what the current row was made of."""

    def __init__(self, stream: ByteStream, place: Place, limits: ImportLimits) -> None:
        self._ahead = _split(stream, limits)
        self._again: deque[_Line] = deque()
        self._row: list[_Line] = []
        self.place = dict(place)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._ahead)
        self._row.append(line)
        self.place["line"] += 1
        self.place["offset"] += line.length
        return line.text

    def taken(self) -> tuple[str, str]:
        """Give the row's text, and why it is broken if it is; the next line begins another row."""
        row, self._row = self._row, []
        return "".join(line.text for line in row), next((line.broken for line in row if line.broken), "")

    def one_line_only(self) -> None:
        """Give back all lines of the row but the first: a quote that is never closed must not swallow good rows."""
        again, self._row = self._row[1:], self._row[:1]
        self._again.extendleft(reversed(again))
        self.place["line"] -= len(again)
        self.place["offset"] -= sum(line.length for line in again)


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    length: int
    broken: str = ""


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
