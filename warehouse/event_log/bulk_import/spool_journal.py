"""The journal of a spool: who the import is, and one line for every chunk that is complete."""

from __future__ import annotations

import os
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import orjson

from refold.event_schemas import LogError
from refold.warehouse.object_store.records import RecordError, decode_json

_FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFile:
    """A file with the events of one chunk, event type and schema version.

    Attributes:
        event_type: event type of all its events.
        schema_version: schema version of all its events.
        bytes: its size.
    """

    event_type: str
    schema_version: int
    bytes: int

    @property
    def name(self) -> str:
        """Its name in the chunk's folder."""
        return file_name(self.event_type, self.schema_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolChunk:
    """One line of the journal.

    Attributes:
        number: number of the chunk, from 0.
        base: offset of the positions in its files.
        events: number of its events.
        source: state from which the reader of the source continues after this chunk.
        files: its files.
    """

    number: int
    base: int
    events: int
    source: dict[str, Any]
    files: tuple[SpoolFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The content of a spool.

    Attributes:
        spool_id: identity of the spool.
        recorded_at: time at which the import began; its events are recorded with it, RFC 3339.
        context: what must be equal for a later run to continue this spool.
        chunks: the complete chunks.
    """

    spool_id: str
    recorded_at: str
    context: str
    chunks: tuple[SpoolChunk, ...] = ()

    @property
    def events(self) -> int:
        """Number of spooled events."""
        return sum(c.events for c in self.chunks)

    @property
    def source(self) -> dict[str, Any]:
        """State of the reader of the source after the last chunk; empty before the first."""
        return self.chunks[-1].source if self.chunks else {}


def new_journal(context: str) -> Journal:
    """Begin a journal."""
    return Journal(spool_id=str(uuid.uuid4()), recorded_at=datetime.now(UTC).isoformat(), context=context)


def read_journal(folder: Path) -> Journal | None:
    """Read the journal in a folder, without a last line that is incomplete; None if there is none.

    Raises:
        LogError: it is damaged.
    """
    path = folder / _FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    if not lines:
        return None
    try:
        begun = decode_json(lines[0], Journal)
        return replace(begun, chunks=tuple(decode_json(line, SpoolChunk) for line in lines[1:]))
    except RecordError as error:
        raise damaged_import(path, error) from error


def damaged_import(path: Path, error: Exception) -> LogError:
    """Describe that a file of an unfinished import is damaged."""
    return LogError(
        f"{path} is damaged ({error}), so the import cannot go on where it was. Delete the folder {path.parent}, and "
        "run the import again: no event is imported twice."
    )


def write_journal(folder: Path, journal: Journal) -> None:
    """Replace the journal in a folder atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"spool_id": journal.spool_id, "recorded_at": journal.recorded_at, "context": journal.context}
    lines = [orjson.dumps(head), *(orjson.dumps(asdict(c)) for c in journal.chunks)]
    path = folder / _FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(b"".join(line + b"\n" for line in lines))
    os.replace(temporary, path)


def append_chunk(folder: Path, journal: Journal, chunk: SpoolChunk) -> Journal:
    """Append the line of a chunk, and return the journal with it; from then on the chunk is part of the spool."""
    with (folder / _FILE).open("ab") as file:
        file.write(orjson.dumps(asdict(chunk)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return replace(journal, chunks=(*journal.chunks, chunk))


def file_name(event_type: str, schema_version: int) -> str:
    """Return the name of a chunk's file."""
    return f"{url_quote(event_type, safe='')}@{schema_version}.arrow"
