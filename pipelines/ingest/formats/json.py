"""JSON files as chunks of rows: a document per line, or the elements of one array, in bounded memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from refold.event_schemas import UsageError
from refold.pipelines.ingest.blocks import BOM, blocks, too_long
from refold.pipelines.ingest.formats.text_stream import open_text
from refold.pipelines.ingest.mapping import path_of
from refold.pipelines.ingest.rows import ImportLimits, Place, ReadRequest, Rows
from refold.pipelines.ingest.source_file import ByteStream, SourceFile

_SPACE = " \t\r\n"
_NEWLINE = 10
_DETECTED_BYTES = 1 << 16
"""A first element longer than this is not known to be a CloudEvent: then the user must name the format."""


def detect_format(file: SourceFile) -> tuple[str, bool]:
    """Check whether a file is one array or has a document per line, and whether its objects are CloudEvents."""
    with open_text(file, "utf-8") as stream:
        start = stream.read(_DETECTED_BYTES).removeprefix(BOM).lstrip()
    cloudevents = file.format == "cloudevents" or _starts_with_cloudevent(start.removeprefix(b"["))
    return ("json" if start.startswith(b"[") or _spans_lines(start) else "jsonl"), cloudevents


def _spans_lines(start: bytes) -> bool:
    """Check whether the first document goes on after its first line, as one that was written for readers does."""
    line, newline, rest = start.partition(b"\n")
    if not newline or not rest.strip() or not line.startswith(b"{"):
        return False
    try:
        json.loads(line)
    except ValueError:
        return line.rstrip().endswith((b"{", b",", b"[", b":"))
    return False


def read_lines(request: ReadRequest) -> Iterator[Rows]:
    """Read JSON lines."""
    limits, row, offset = request.limits, request.place["row"], request.place["offset"]
    with open_text(request.file, request.mapping.encoding, offset=offset) as stream:
        for block in blocks(stream, limits):
            ends = np.flatnonzero(np.frombuffer(block.data, np.uint8) == _NEWLINE) + 1
            surplus = block.length - len(block.data)
            for start in range(0, len(ends), limits.chunk_rows):
                edges = np.concatenate(
                    [ends[start - 1 : start] if start else [0], ends[start : start + limits.chunk_rows]]
                )
                count = len(edges) - 1
                offset += int(edges[-1] - edges[0]) + (surplus if edges[-1] == len(block.data) else 0)
                if row == 0 and block.data.startswith(BOM):
                    edges[0] = len(BOM)
                after = {"row": row + count, "line": row + count, "offset": offset}
                invalid = {0: too_long(limits)} if block.overlong else {}
                texts = _Lines(block.data, edges)
                yield _documents(texts, range(row + 1, row + count + 1), invalid, after, stream.consumed())
                row += count


def read_array(request: ReadRequest) -> Iterator[Rows]:
    """Read the elements of one JSON array, each as its own text; or documents that take several lines each.

    Raises:
        UsageError: the file is not one array; the message names the line.
    """
    with open_text(request.file, request.mapping.encoding, offset=request.place["offset"]) as stream:
        path = path_of(request.mapping.rows) if request.mapping.rows else ()
        elements = _Elements(stream, request.place, request.limits, path)
        while some := elements.take():
            texts = [text.encode("utf-8", "surrogateescape") for text, _ in some]
            yield _documents(_Lines.of(texts), [line for _, line in some], {}, elements.place(), stream.consumed())


class _Elements:
    """Splits an array into its elements, with a buffer of about one chunk."""

    def __init__(self, stream: ByteStream, place: Place, limits: ImportLimits, path: tuple[str, ...]) -> None:
        self._stream = stream
        self._path = path
        self._limits = limits
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._scan = json.JSONDecoder(parse_float=str, parse_int=str).raw_decode
        self._place = dict(place)
        self._text = ""
        self._at = 0
        self._line_at = 0
        self._ended = False
        self._closed = False
        self._has_brackets = bool(place.get("brackets", 1))

    def place(self) -> Place:
        """Return how far the array was read, and drop what was read from the buffer."""
        self._line()
        self._place["offset"] += len(self._text[: self._at].encode("utf-8", "surrogateescape"))
        self._text, self._at, self._line_at = self._text[self._at :], 0, 0
        return dict(self._place)

    def take(self) -> list[tuple[str, int]]:
        """Return the next elements, each with the number of the line on which it begins; none after the last."""
        elements: list[tuple[str, int]] = []
        size = 0
        while len(elements) < self._limits.chunk_rows and size < self._limits.chunk_bytes and self._more():
            line = self._line() + 1
            text = self._element()
            elements.append((text, line))
            size += len(text)
            self._place["row"] += 1
        return elements

    def _more(self) -> bool:
        """Move to the beginning of the next element, if there is one."""
        if self._closed:
            return False
        if self._place["offset"] == 0 and self._at == 0:
            self._at += self._peek() == "\ufeff"
            self._has_brackets = bool(self._path) or self._peek() == "["
            if self._has_brackets:
                self._find(self._path)
                self._expect("[")
        elif self._place.get("brackets", 1) and self._peek() != "]":
            self._expect(",")
        self._place["brackets"] = int(self._has_brackets)
        if not self._has_brackets:
            return bool(self._peek())
        if self._peek() == "]" and (self._place["row"] == 0 or self._text[self._at - 1 : self._at] != ","):
            self._at += 1
            self._closed = True
            if not self._path and self._peek():
                raise self._damaged("there is more after the end of the array")
        return not self._closed

    def _find(self, path: tuple[str, ...]) -> None:
        """Move to the value at a path of the object that the file is."""
        for key in path:
            self._expect("{")
            seen = []
            while (name := self._key()) != key:
                seen.append(name)
                self._element()
                if self._peek() != ",":
                    listed = ", ".join(map(repr, seen))
                    raise self._damaged(f"there is no key {key!r}, which rows in the mapping names, among {listed}")
                self._expect(",")

    def _key(self) -> str:
        if self._peek() != '"':
            raise self._damaged(f"expected a key, found {self._peek()!r}")
        name = json.loads(self._element())
        self._expect(":")
        self._peek()
        return str(name)

    def _element(self) -> str:
        while True:
            try:
                _, end = self._scan(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._fill():
                    raise self._damaged(str(error)) from error
                continue
            if end < len(self._text) or not self._fill():  # a number may continue after the buffer
                text = self._text[self._at : end]
                self._at = end
                return text

    def _expect(self, sign: str) -> None:
        if (found := self._peek()) != sign:
            raise self._damaged(f"expected {sign!r}, found {found!r}" if found else "the array is not closed")
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is no white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def _fill(self) -> bool:
        if self._ended or len(self._text) - self._at > self._limits.row_bytes:
            return False
        data = self._stream.read(self._limits.chunk_bytes)
        self._ended = not data
        self._text += self._decode(data, final=self._ended)
        return True

    def _line(self) -> int:
        """Count the lines before the current place."""
        self._place["line"] += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        return self._place["line"]

    def _damaged(self, why: str) -> UsageError:
        return UsageError(
            f"{self._stream.name}, line {self._line() + 1}, element {self._place['row'] + 1}: the JSON array cannot be "
            f"read further ({why}). Nothing was published: correct the file, or write one object per line."
        )


def _starts_with_cloudevent(start: bytes) -> bool:
    try:
        first, _ = json.JSONDecoder().raw_decode(start.decode(errors="replace").lstrip())
    except ValueError:
        return False
    return isinstance(first, dict) and "specversion" in first


class _Lines(Sequence[bytes]):
    """Texts that follow one another in some data, each with the newline at its end."""

    def __init__(self, data: bytes, edges: np.ndarray[Any, Any]) -> None:
        self.data = data
        self.edges = edges.astype(np.int64)

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> _Lines:
        """Join some texts."""
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        return cls(b"".join(texts), np.concatenate([np.zeros(1, np.int64), ends]))

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.data[self.edges[index] : self.edges[index + 1]]

    def as_column(self) -> pa.Array | None:
        """Return the texts as an Arrow array, without a Python object per text; None if one is no UTF-8."""
        buffers = [None, pa.py_buffer(self.edges), pa.py_buffer(self.data)]
        column = pa.Array.from_buffers(pa.large_string(), len(self), buffers)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            return None
        return column


def _documents(texts: _Lines, lines: Sequence[int], unreadable: Mapping[int, str], after: Place, consumed: int) -> Rows:
    invalid = dict(unreadable)
    column = texts.as_column()
    if column is None:
        invalid |= {i: "this is no UTF-8" for i, text in enumerate(texts) if not _is_utf8(text)}
    if invalid:
        column = _Lines.of([b"" if i in invalid else text for i, text in enumerate(texts)]).as_column()
    return Rows(
        columns=pa.table({"_text": column}),
        lines=lines,
        text=lambda row: texts[row].decode("utf-8", "backslashreplace").strip("\r\n"),
        invalid=invalid,
        after=after,
        consumed=consumed,
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
