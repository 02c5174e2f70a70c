"""A file to import, and its bytes: on a local disk or behind a URL, compressed or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import fsspec.core

from refold.event_schemas import UsageError
from refold.pipelines.ingest.compression import DAMAGED, Readable, decompressed

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file to import.

    Attributes:
        name: as the user gave it.
        url: absolute path, or URL.
        format: ``jsonl``, ``json`` (one array), ``csv`` or ``parquet``.
        cloudevents: whether its JSON objects are CloudEvents.
        size: in bytes, as stored.
        identity: the same for the same content, wherever the file is.
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
        """Its path, if it is on a local disk."""
        return None if "://" in self.url else Path(self.url)


@dataclass(slots=True)
class ByteStream:
    """The decompressed bytes of a file.

    Attributes:
        name: of the file, for errors.
        read: returns as many bytes as it is asked for, or all that are left.
        consumed: returns how many bytes of the stored file were read so far.
    """

    name: str
    read: Callable[[int], bytes]
    consumed: Callable[[], int]

    def skip(self, count: int) -> None:
        """Skip bytes."""
        while count:
            data = self.read(min(count, _BLOCK))
            if not data:
                raise UsageError(f"{self.name} is shorter than it was when the import began. Run the import again.")
            count -= len(data)


@contextmanager
def open_bytes(file: SourceFile, *, offset: int = 0) -> Iterator[ByteStream]:
    """Open a file at an offset of its decompressed bytes.

    Raises:
        UsageError: its compressed data is damaged or truncated.
    """
    fs, path = locate(file.url)
    with fs.open(path, "rb", **({} if is_local(fs) else {"cache_type": "readahead"})) as raw:
        inner = decompressed(raw)
        stream = ByteStream(file.name, _full_reads(file.name, inner or raw), raw.tell)
        if inner is None:
            raw.seek(offset)
        else:
            stream.skip(offset)
        yield stream


@contextmanager
def open_stored(file: SourceFile) -> Iterator[Any]:
    """Open a file as it is stored, for random access."""
    fs, path = locate(file.url)
    with fs.open(path, "rb", **({} if is_local(fs) else {"cache_type": "none"})) as raw:
        yield raw


def locate(name: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises:
        UsageError: there is no such file system.
    """
    try:
        fs, path = fsspec.core.url_to_fs(os.path.expanduser(name))
    except (ImportError, ValueError) as error:
        raise UsageError(f"{name!r} cannot be opened: {error}.") from error
    return fs, os.path.abspath(path) if is_local(fs) else path


def is_local(fs: Any) -> bool:
    """Check whether a file system is the local disk."""
    return "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)


def _full_reads(name: str, inner: Readable) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        parts = []
        try:
            while size and (data := inner.read(size)):
                parts.append(data)
                size -= len(data)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except (*DAMAGED, OSError) as error:
            raise UsageError(f"{name} cannot be read further: {error}. Nothing was published.") from error

    return read
