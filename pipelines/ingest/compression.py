"""Compressed files (gzip, Zstandard, bzip2, xz, ZIP), known by their first bytes whatever their names are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import IO, Protocol

import zstandard

from refold.event_schemas import UsageError

COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz", ".zip")

DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, zlib.error)
"""What reading damaged or truncated data raises."""

_READ_SIZE = 1 << 17


class Readable(Protocol):
    """Anything that bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""


def decompressed(raw: IO[bytes]) -> Readable | None:
    """Wrap a compressed file; return None if it is not compressed."""
    start = raw.read(6)
    raw.seek(0)
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if start[:4] == b"\x28\xb5\x2f\xfd":
        return _ZstdStream(raw)
    if start[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if start == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    if start[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(raw)
        return archive.open(member_of(archive))
    return None


def member_of(archive: zipfile.ZipFile) -> str:
    """Return the one file in a ZIP archive.

    Raises:
        UsageError: there is another number of files in it.
    """
    names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UsageError(
            f"{archive.filename or 'The ZIP archive'} has {len(names)} files in it, not one. Unpack it, and import the "
            "files."
        )
    return names[0]


class _ZstdStream(io.RawIOBase):
    """All frames of a Zstandard file; the library's own reader ends without an error where a frame is truncated."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return at least one byte, unless the last frame has ended."""
        while not self._ready:
            rest = self._frame.unused_data if self._frame.eof else b""
            data = rest or self._raw.read(_READ_SIZE)
            if self._frame.eof:
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            if not data:
                if self._begun:
                    raise EOFError("the last frame is truncated")
                return b""
            self._begun = True
            self._ready = self._frame.decompress(data)
        end = len(self._ready) if size < 0 else size
        data, self._ready = self._ready[:end], self._ready[end:]
        return data
