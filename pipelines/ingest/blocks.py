"""Blocks of complete lines, so that neither a file nor an endless line is held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from refold.pipelines.ingest.rows import ImportLimits
from refold.pipelines.ingest.source_file import ByteStream

BOM = b"\xef\xbb\xbf"
"""The byte order mark that some editors and spreadsheets write before the first line."""

_KEPT_BYTES = 200
"""What is kept of an overlong line, for the reject file."""


@dataclass(frozen=True, slots=True)
class Block:
    """Complete lines, or the beginning of one overlong line.

    Attributes:
        data: the lines, each with its newline.
        length: how many bytes of the file they take.
        overlong: whether it is one overlong line, truncated.
    """

    data: bytes
    length: int
    overlong: bool = False


def blocks(stream: ByteStream, limits: ImportLimits) -> Iterator[Block]:
    """Split a stream into blocks of about ``limits.chunk_bytes``, at newlines."""
    rest, dropped = b"", 0
    while data := stream.read(limits.chunk_bytes):
        if len(data) < limits.chunk_bytes and not dropped:  # the end of the file
            rest += data
            break
        if dropped and (end := data.find(b"\n") + 1):
            yield Block(rest + b"\n", len(rest) + dropped + end, overlong=True)
            rest, dropped, data = b"", 0, data[end:]
        if not dropped and (end := data.rfind(b"\n") + 1):
            yield Block(rest + data[:end], len(rest) + end)
            rest, data = b"", data[end:]
        rest += data
        if dropped or len(rest) > limits.row_bytes:
            dropped += max(len(rest) - _KEPT_BYTES, 0)
            rest = rest[:_KEPT_BYTES]
    if rest:
        yield Block(rest.removesuffix(b"\n") + b"\n", len(rest) + dropped, overlong=bool(dropped))


def too_long(limits: ImportLimits) -> str:
    """Return the reason to reject an overlong line."""
    return f"the line is longer than {limits.row_bytes} bytes"
