"""Text files as UTF-8 with newlines, whatever their encoding and line ends are.

Offsets count the bytes of that text.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from refold.pipelines.ingest.source_file import ByteStream, SourceFile, open_bytes

_LOOKED_AT = 1 << 16
"""Bytes that show which line ends a file has."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def open_text(file: SourceFile, encoding: str, *, offset: int = 0) -> Iterator[ByteStream]:
    """Open a text file at an offset of its text in UTF-8.

    Bytes that the encoding does not have are kept as they are, so that only their rows are rejected.

    Args:
        file: the file.
        encoding: of the file; UTF-16 is known by its byte order mark.
        offset: where to begin.
    """
    with open_bytes(file) as look:
        start = look.read(_LOOKED_AT)
    encoding = "utf-16" if encoding == "utf-8" and start.startswith(_UTF_16) else encoding
    has_cr_only = b"\r" in start and b"\n" not in start
    with open_bytes(file, offset=offset if encoding == "utf-8" else 0) as stream:
        read = stream.read
        if encoding != "utf-8":
            read = _transcoded(read, encoding)
        text = ByteStream(stream.name, _newlines(read) if has_cr_only else read, stream.consumed)
        if encoding != "utf-8":
            text.skip(offset)
        yield text


def _newlines(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda size: read(size).replace(b"\r", b"\n")


def _transcoded(read: Callable[[int], bytes], encoding: str) -> Callable[[int], bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace" if encoding.startswith("utf-16") else "surrogateescape")
    ready = bytearray()
    ended = False

    def transcoded(size: int) -> bytes:
        nonlocal ended
        while len(ready) < size and not ended:
            data = read(size)
            ended = not data
            ready.extend(decoder.decode(data, final=ended).encode("utf-8", "surrogateescape"))
        data = bytes(ready[:size])
        del ready[:size]
        return data

    return transcoded
