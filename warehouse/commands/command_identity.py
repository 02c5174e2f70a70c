"""The identity of a handled command: its id and a digest of its content, kept in the ids of its events.

The ``event_id`` of a command's event is a UUID of version 8. 60 of its bits are a hash of the stream, the command id
and the event's number within the command: no other writer's event has it, so an event that only has the same
``causation_id`` is no handled command. 62 bits are the digest of the command. So a log keeps both wherever its events
go: into segments, an archive or another log.
"""

from __future__ import annotations

import hashlib

import orjson

from refold.event_schemas import PayloadError
from refold.event_schemas.decider import command_schema
from refold.event_schemas.payload import to_json
from refold.event_schemas.personal import personal_fields

_VERSION = "8"
_DIGEST_BITS = 62


def command_digest(command: object) -> int:
    """Return a digest of a command's name and fields.

    A field without a value does not count: it may be new. Nor does a personal field: ids are not encrypted.

    Raises:
        PayloadError: a value does not fit its field.
    """
    cls = type(command)
    schema = command_schema(cls)
    try:
        fields = to_json(command, schema)
    except PayloadError as error:
        raise PayloadError(f"Command {cls.__name__}: {error}. Nothing was appended.") from error
    personal = {f.name for f in personal_fields(schema)}
    given = {name: value for name, value in fields.items() if value is not None and name not in personal}
    text = orjson.dumps([cls.__name__, given], option=orjson.OPT_SORT_KEYS)
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) % (1 << _DIGEST_BITS)


def event_id_of(stream_id: str, command_id: str, number: int, digest: int) -> str:
    """Return the id of a command's event.

    Args:
        stream_id: the stream.
        command_id: the id of the command.
        number: the event's number among those of the command, from 0.
        digest: the digest of the command.
    """
    variant = f"{0b10 << _DIGEST_BITS | digest:016x}"
    return f"{_mark(stream_id, command_id, number)}-{variant[:4]}-{variant[4:]}"


def digest_in(event_id: str, stream_id: str, command_id: str, number: int) -> int | None:
    """Return the digest of the command that an event belongs to; None if no command handler wrote the event.

    Example:
        >>> digest_in(event_id_of("door-1", "a", 0, 7), "door-1", "a", 0)
        7
        >>> digest_in(event_id_of("door-1", "a", 0, 7), "door-1", "b", 0)
    """
    if event_id[14:15] != _VERSION or event_id[:18] != _mark(stream_id, command_id, number):
        return None
    return int(event_id[19:].replace("-", ""), 16) % (1 << _DIGEST_BITS)


def _mark(stream_id: str, command_id: str, number: int) -> str:
    """Return the first 64 bits of an event's id: 60 bits of a hash around the version."""
    text = orjson.dumps(["refold command", stream_id, command_id, number])
    found = hashlib.sha256(text).hexdigest()
    return f"{found[:8]}-{found[8:12]}-{_VERSION}{found[12:15]}"
