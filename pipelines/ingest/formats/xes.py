"""XES, the format of process mining: an event of a trace is a JSON document.

An event's attributes have their own keys, those of its trace the prefix ``case:``. A list or container is an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from refold.event_schemas import UsageError
from refold.pipelines.ingest.formats.documents import document_rows
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import ByteStream, SourceFile, open_bytes

_BLOCK = 1 << 18
_SCALARS = frozenset({"string", "date", "int", "float", "boolean", "id"})
_NESTED = frozenset({"list", "container"})
_SKIPPED = frozenset({"global", "classifier", "extension"})
_INTEGER = re.compile(r"-?\d{1,18}", re.A)


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read events.

    Raises:
        UsageError: it is no XML, or declares entities.
    """
    with open_bytes(request.file) as stream:
        yield from document_rows(request, _events(request.file, stream), stream.consumed)


def _events(file: SourceFile, stream: ByteStream) -> Iterator[tuple[int, dict[str, Any]]]:
    events = _Events(file)
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, given: events.start(tag, given, parser.CurrentLineNumber)
    parser.EndElementHandler = events.end
    parser.EntityDeclHandler = events.refuse_entity
    try:
        while data := stream.read(_BLOCK):
            parser.Parse(data, False)
            yield from events.take()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise UsageError(f"{file.name} is no readable XML: {error}. Write it again.") from error
    yield from events.take()


class _Events:
    """Builds the events of a log from the elements of its XML."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._trace: dict[str, Any] = {}
        self._event: dict[str, Any] | None = None
        self._line = 0
        self._open: list[dict[str, Any]] = []
        self._skipping = 0
        self._is_in_trace = False
        self._made: list[tuple[int, dict[str, Any]]] = []

    def take(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the complete events."""
        made, self._made = self._made, []
        return made

    def start(self, tag: str, given: dict[str, str], line: int) -> None:
        """Note the begin of an element."""
        tag = tag.rpartition(":")[2]
        if self._skipping or tag in _SKIPPED:
            self._skipping += 1
        elif tag == "trace":
            self._trace, self._is_in_trace = {}, True
            self._open.append(self._trace)
        elif tag == "event":
            self._event, self._line = {}, line
            self._open.append(self._event)
        elif tag in _NESTED or tag in _SCALARS:
            self._attribute(tag, given)

    def _attribute(self, tag: str, given: dict[str, str]) -> None:
        owner = self._open[-1] if self._open else {}
        key = given.get("key", "")
        value = {} if tag in _NESTED else _value(tag, given.get("value", ""))
        key = f"case:{key}" if owner is self._trace and self._is_in_trace else key
        owner.setdefault(key, value)
        self._open.append(value if isinstance(value, dict) else {})

    def end(self, tag: str) -> None:
        """Note the end of an element."""
        tag = tag.rpartition(":")[2]
        if self._skipping:
            self._skipping -= 1
        elif tag == "trace":
            self._open.pop()
            self._is_in_trace = False
        elif tag == "event" and self._event is not None:
            self._open.pop()
            self._made.append((self._line, {**(self._trace if self._is_in_trace else {}), **self._event}))
            self._event = None
        elif (tag in _NESTED or tag in _SCALARS) and self._open:
            self._open.pop()

    def refuse_entity(self, name: str, *_: Any) -> None:
        """Refuse a declared entity: it may stand for gigabytes, or for another file."""
        raise UsageError(
            f"{self._file.name} declares the entity {name!r}, which XES does not need. Write it without "
            "entities: one may stand for gigabytes, or for another file."
        )


def _value(tag: str, text: str) -> Any:
    """Return a value as JSON; a number with a fraction stays text, which is read digit by digit."""
    if tag == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(text, text)
    return int(text) if tag == "int" and _INTEGER.fullmatch(text) else text
