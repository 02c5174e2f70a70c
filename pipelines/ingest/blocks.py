"""Blocks of whole lines, so that a file is never held in memory, nor is a line that has no end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from refold.pipelines.ingest.rows import ImportLimits
from refold.pipelines.ingest.sources import ByteStream

BOM = b"\xef\xbb\xbf"
"""What some editors and spreadsheets put before the first line."""

_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines, or the beginning of one overlong line.

    Attributes:
        data: the lines, each with its newline.
        length: how many bytes of the file they stand for.
        overlong: it is one overlong line, cut.
    """

    data: bytes
    length: int
    overlong: bool = False


def blocks(stream: ByteStream, limits: ImportLimits) -> Iterator[Block]:
    """Cut a stream into blocks of about ``limits.chunk_bytes``, at newlines."""
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
            dropped += max(len(rest) - _SHOWN, 0)
            rest = rest[:_SHOWN]
    if rest:
        whole = rest.removesuffix(b"\n")
        yield Block(whole + b"\n", len(rest) + dropped, overlong=bool(dropped))


def too_long(limits: ImportLimits) -> str:
    """Say why an overlong line is rejected."""
    return f"the line is longer than {limits.row_bytes} bytes"
