"""Records: small objects in JSON that have their own digest, and whose values have the types of a dataclass.

::

    {"digest":"<SHA-256 of all that follows the comma>","number":7,"sealed_commit":1024,...}
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from refold.warehouse.object_store.digests import DIGEST_LENGTH, digest_of

T = TypeVar("T")

_START = b'{"digest":"'
_END = b'",'
_CONTENT = len(_START) + DIGEST_LENGTH + len(_END)


class RecordError(ValueError):
    """An object is not the record that was expected, or was changed after it was written."""


def encode_record(value: Any) -> bytes:
    """Encode a dataclass as a record.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Place:
        ...     position: int
        >>> decode_record(encode_record(Place(7)), Place)
        Place(position=7)
    """
    content = msgspec.json.encode(value)[1:]
    return _START + digest_of(content).encode() + _END + content


def record_digest(data: bytes) -> str:
    """Return the digest of a record that was checked."""
    return data[len(_START) : len(_START) + DIGEST_LENGTH].decode("ascii", "replace")


def decode_record(data: bytes, wanted: type[T]) -> T:
    """Decode a record.

    Args:
        data: what :func:`encode_record` returned.
        wanted: the dataclass.

    Raises:
        RecordError: it is no record, was changed after it was written, or lacks a value of the dataclass.
    """
    return decode_json(checked_content(data), wanted)


def checked_content(data: bytes) -> bytes:
    """Return the JSON object of a record, after checking it against its digest.

    Raises:
        RecordError: it is no record, or was changed after it was written.
    """
    content = data[_CONTENT:]
    if not is_record(data):
        raise RecordError("it has no digest")
    found, expected = digest_of(content), record_digest(data)
    if found != expected:
        raise RecordError(
            f"it was changed after it was written: its SHA-256 is {found[:16]}…, but it says {expected[:16]}…"
        )
    return b"{" + content


def check_times(*texts: str, optional: Iterable[str] = ()) -> None:
    """Check the times of a record; call it in ``__post_init__``.

    Args:
        texts: times in RFC 3339 with their offset.
        optional: such times, or empty texts.

    Raises:
        ValueError: one is no such time; :func:`decode_json` makes a :class:`RecordError` of it.
    """
    for text in (*texts, *filter(None, optional)):
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError(f"{text!r} has no offset from UTC")


def is_record(data: bytes) -> bool:
    """Check whether an object begins as a record does."""
    return data.startswith(_START) and data[_CONTENT - len(_END) : _CONTENT] == _END


def decode_json(data: bytes, wanted: type[T]) -> T:
    """Decode a JSON object without a digest; values of other types than the dataclass declares are refused.

    Raises:
        RecordError: it is no such object; the message names the path of the value.
    """
    try:
        return decoder_of(wanted).decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise RecordError(str(error)) from error


_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}
_DECODERS_LOCK = threading.Lock()


def decoder_of(wanted: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of a dataclass.

    Only one thread at a time may make one: two that let msgspec look at the same nested dataclasses for the first time
    crash the process (msgspec 0.22).
    """
    if (found := _DECODERS.get(wanted)) is None:
        with _DECODERS_LOCK:
            found = _DECODERS.setdefault(wanted, msgspec.json.Decoder(wanted))
    return found


def convert(values: Any, wanted: type[T]) -> T:
    """Convert parsed JSON to a dataclass.

    Raises:
        msgspec.ValidationError: it is no such value.
    """
    decoder_of(wanted)  # so that no two threads make it
    return msgspec.convert(values, wanted)
