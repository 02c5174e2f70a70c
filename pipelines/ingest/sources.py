"""Foreign files: where they are, what they are, what tells one content from another, and how to read their bytes."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import fsspec
import fsspec.core
import zstandard

from refold.event_schemas import UsageError

FORMATS = ("jsonl", "json", "cloudevents", "csv", "parquet")
"""JSON lines, one JSON array, CloudEvents (JSON lines or one JSON array), CSV with a header, Parquet."""

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_SNIFFED = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file to import.

    Attributes:
        name: as the user gave it.
        url: absolute path, or URL.
        format: ``jsonl``, ``json`` (one array), ``csv`` or ``parquet``.
        cloudevents: whether its JSON objects are CloudEvents.
        size: in bytes, as stored.
        identity: the same for the same content, wherever it lies.
        stamp: changes when the file is written to.
    """

    name: str
    url: str
    format: str
    cloudevents: bool
    size: int
    identity: str
    stamp: str

    @property
    def path(self) -> Path | None:
        """Its path, if it lies on a local disk."""
        return None if "://" in self.url else Path(self.url)


def expanded(names: Sequence[str]) -> list[str]:
    """Replace patterns such as ``s3://bucket/*.parquet`` by the files that they match, sorted.

    Raises:
        UsageError: no file was named, or a pattern matches none.
    """
    found: list[str] = []
    for name in names:
        if not any(sign in name for sign in "*[") or os.path.exists(name):
            found.append(name)
            continue
        fs, path = fsspec.core.url_to_fs(name)
        matches = sorted(fs.glob(path))
        if not matches:
            raise UsageError(f"No file matches {name!r}.")
        found += matches if "://" not in name else [fs.unstrip_protocol(m) for m in matches]
    if not found:
        raise UsageError("There is no file to import: name at least one.")
    return found


def inspect(name: str, *, format: str | None, report: Callable[[int, int], None]) -> SourceFile:
    """Look at a file: find it, tell its format, identify its content.

    A local file is identified by a hash of all its bytes: a copy of it is the same import. So is a remote one that has
    no ETag.

    Args:
        name: a path, or a URL that fsspec knows.
        format: one of ``FORMATS``; None: by the file's suffix.
        report: called with bytes read and bytes in all.

    Raises:
        UsageError: there is no such file, or its format is not known.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"The format {format!r} is not known; known are {', '.join(FORMATS)}.")
    fs, path = _locate(name)
    size, stamp, etag = _stat(fs, path)
    url = path if _is_local(fs) else fs.unstrip_protocol(path)
    found = SourceFile(
        name=name, url=url, format=format or _by_suffix(name), cloudevents=False, size=size, identity="", stamp=stamp
    )
    told, cloudevents = _settled(found)
    identity = f"{size}-{etag}" if etag else _content_hash(found, report)
    return SourceFile(
        name=name, url=url, format=told, cloudevents=cloudevents, size=size, identity=identity, stamp=stamp
    )


def unchanged(file: SourceFile) -> None:
    """Check that a file is what it was when it was inspected.

    Raises:
        UsageError: it was written to.
    """
    fs, path = _locate(file.url)
    if _stat(fs, path)[1] != file.stamp:
        raise UsageError(
            f"{file.name} changed while it was read, so what was read of it may be half old and half new. Nothing was "
            "published: run the import again when the file is complete."
        )


class _Bytes(Protocol):
    """Whatever bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(slots=True)
class ByteStream:
    """The decompressed bytes of a file.

    Attributes:
        name: of the file, for errors.
        read: the next bytes, so many as were asked for or all that are left.
        consumed: how many bytes of the stored file were read so far.
    """

    name: str
    read: Callable[[int], bytes]
    consumed: Callable[[], int]

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        while count:
            data = self.read(min(count, _BLOCK))
            if not data:
                raise UsageError(f"{self.name} is shorter than it was when the import began. Run it again.")
            count -= len(data)


@contextmanager
def opened(file: SourceFile, *, offset: int = 0) -> Iterator[ByteStream]:
    """Open a file, decompressed by what its first bytes say (gzip, Zstandard, bzip2, xz), at an offset.

    Raises:
        UsageError: its compressed data is damaged or cut off.
    """
    fs, path = _locate(file.url)
    with fs.open(path, "rb", **({} if _is_local(fs) else {"cache_type": "readahead"})) as raw:
        inner = _decompressed(raw)
        stream = ByteStream(file.name, _checked(file.name, inner or raw), raw.tell)
        if inner is None:
            raw.seek(offset)
        else:
            stream.skip(offset)
        yield stream


@contextmanager
def raw_file(file: SourceFile) -> Iterator[Any]:
    """Open a file for reading here and there, as it is stored."""
    fs, path = _locate(file.url)
    with fs.open(path, "rb", **({} if _is_local(fs) else {"cache_type": "none"})) as raw:
        yield raw


def _locate(name: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(name))
    except (ImportError, ValueError) as error:
        raise UsageError(f"{name!r} cannot be opened: {error}.") from error
    return fs, os.path.abspath(path) if _is_local(fs) else path


def _is_local(fs: Any) -> bool:
    return "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)


def _stat(fs: Any, path: str) -> tuple[int, str, str]:
    """Give size, stamp and ETag (empty if there is none)."""
    try:
        if _is_local(fs):
            told = os.stat(path)
            if os.path.isdir(path):
                raise IsADirectoryError(path)
            return told.st_size, f"{told.st_size} {told.st_mtime_ns} {told.st_ino}", ""
        fs.invalidate_cache()
        info = fs.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(path)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path!r}.") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path!r} is a folder; give its files, as in {path}/*.parquet.") from error
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror or error}.") from error
    etag = next((str(info[k]) for k in ("ETag", "etag", "md5Hash", "content_md5") if info.get(k)), "").strip('"')
    written = next(
        (str(info[k]) for k in ("LastModified", "last_modified", "mtime", "updated", "created") if k in info), ""
    )
    return int(info["size"]), f"{info['size']} {etag} {written}", etag


def _by_suffix(name: str) -> str:
    path = name.lower()
    for suffix in _COMPRESSED_SUFFIXES:
        path = path.removesuffix(suffix)
    found = _SUFFIXES.get(os.path.splitext(path)[1])
    if found is None:
        raise UsageError(f"{name}: its suffix tells no format. Give --format, one of {', '.join(FORMATS)}.")
    return found


def _settled(file: SourceFile) -> tuple[str, bool]:
    """Look into a JSON file: is it one array, and are its objects CloudEvents?"""
    if file.format in ("csv", "parquet"):
        return file.format, False
    with opened(file) as stream:
        start = stream.read(_SNIFFED).removeprefix(_BOM).lstrip()
    array = start.startswith(b"[")
    cloudevents = file.format == "cloudevents" or _is_cloudevent(start[1:] if array else start)
    return ("json" if array else "jsonl"), cloudevents


def _is_cloudevent(start: bytes) -> bool:
    try:
        first, _ = json.JSONDecoder().raw_decode(start.decode(errors="replace").lstrip())
    except ValueError:
        return False
    return isinstance(first, dict) and "specversion" in first


def _content_hash(file: SourceFile, report: Callable[[int, int], None]) -> str:
    fs, path = _locate(file.url)
    digest = hashlib.sha256()
    with fs.open(path, "rb") as raw:
        done = 0
        while block := raw.read(8 * _BLOCK):
            digest.update(block)
            done += len(block)
            report(done, file.size)
    return digest.hexdigest()


def _decompressed(raw: IO[bytes]) -> _Bytes | None:
    """Wrap a file that is compressed; None if it is not."""
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
    return None


class _ZstdStream(io.RawIOBase):
    """All frames of a Zstandard file; the library's own reader ends without a word where a frame is cut off."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._ready = b""

    def read(self, size: int = -1, /) -> bytes:
        """Return at least one byte, unless the last frame has ended."""
        while not self._ready:
            rest = self._frame.unused_data if self._frame.eof else b""
            data = rest or self._raw.read(_BLOCK // 8)
            if self._frame.eof:
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            if not data:
                if self._begun:
                    raise EOFError("the last frame is cut off")
                return b""
            self._begun = True
            self._ready = self._frame.decompress(data)
        told, self._ready = (self._ready, b"") if size < 0 else (self._ready[:size], self._ready[size:])
        return told


def _checked(name: str, inner: _Bytes) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        parts = []
        try:
            while size and (data := inner.read(size)):
                parts.append(data)
                size -= len(data)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError, OSError) as error:
            raise UsageError(f"{name} cannot be read further: {error}. Nothing was published.") from error

    return read
