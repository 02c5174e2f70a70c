"""Digests: how a reader notices that an object is not what was written.

Every digest is the SHA-256 of bytes, in hexadecimal. An object is checked before it is believed, once in a process.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

DIGEST_LENGTH = 64
_MAX_REMEMBERED = 1 << 16
"""Files whose digest a process remembers, at about 300 bytes each; beyond it, those that were read least recently are
read again."""


class DigestError(ValueError):
    """The bytes of an object differ from those that were written."""


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes.

    Example:
        >>> digest_of(b"abc")[:16]
        'ba7816bf8f01cfea'
    """
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file; it is computed once in a process, as long as the file is not replaced."""
    found = path.stat()
    return _file_digest(os.fspath(path), found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=_MAX_REMEMBERED)
def _file_digest(path: str, _inode: int, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, digest: str) -> None:
    """Check a file against the digest of what was written.

    Raises:
        DigestError: they differ.
    """
    if (found := file_digest(path)) != digest:
        raise DigestError(f"its SHA-256 is {found[:16]}…, expected {digest[:16]}…: it was damaged or replaced")


# An object that has its own digest inside is written with zeros in its place.

_ZEROS = b"0" * DIGEST_LENGTH


def stamped(data: bytes, marker: bytes) -> tuple[bytes, str]:
    """Put the digest of some bytes in place of the 64 zeros after the last marker in them.

    Returns:
        The bytes with their digest, and the digest.

    Example:
        >>> data, digest = stamped(b"payload digest=" + b"0" * 64, b"digest=")
        >>> check_stamped(data, digest, b"digest=")
        >>> check_stamped(data.replace(b"pay", b"say"), digest, b"digest=")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        refold.warehouse.object_store.digests.DigestError: it was changed after it was written: ...
    """
    at = data.index(_ZEROS, data.rindex(marker))
    digest = digest_of(data)
    return data[:at] + digest.encode() + data[at + DIGEST_LENGTH :], digest


def check_stamped(data: bytes, digest: str, marker: bytes) -> None:
    """Check bytes that have their own digest inside.

    Args:
        data: what :func:`stamped` returned.
        digest: the digest that was found inside.
        marker: as for :func:`stamped`.

    Raises:
        DigestError: the bytes were changed.
    """
    at = data.find(digest.encode(), max(data.rfind(marker), 0)) if len(digest) == DIGEST_LENGTH else -1
    found = digest_of(data[:at] + _ZEROS + data[at + DIGEST_LENGTH :]) if at >= 0 else ""
    if found != digest:
        raise DigestError(
            f"it was changed after it was written: its SHA-256 is {found[:16]}…, but it says {digest[:16]}…"
        )
