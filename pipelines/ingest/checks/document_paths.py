"""Paths into JSON documents as SQL: all of a document are extracted at once, by one ``json_transform``.

A path inside another one that is read itself, as ``detail.id`` beside the payload ``detail``, is taken from that one.
Names that differ in case only cannot be fields of one struct, and an index of an array is none: these are looked up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from refold.pipelines.ingest.checks.column import field_of
from refold.pipelines.ingest.mapping import pointer
from refold.warehouse.engine.sql import literal

Path = tuple[str, ...]

TRANSFORMED = "_j"
"""The column of the transformed document."""


@dataclass(frozen=True, slots=True)
class DocumentPaths:
    """The paths that are read from each document of a chunk.

    Attributes:
        text: an expression of the document.
        values: paths whose value is taken as text.
        documents: paths whose value is taken as JSON.
    """

    text: str
    values: frozenset[Path]
    documents: frozenset[Path]
    _direct: frozenset[Path] = field(init=False)

    def __post_init__(self) -> None:
        paths = self.values | self.documents
        twins = _twins(paths)
        direct = frozenset(
            path
            for path in paths
            if path not in twins
            and not any(key.isdecimal() for key in path)
            and not any(path[:i] in paths for i in range(1, len(path)))
            and (path in self.documents or not any(other[: len(path)] == path != other for other in paths))
        )
        object.__setattr__(self, "_direct", direct)

    def relation(self, table: str) -> str:
        """Write the relation that has the transformed document beside the columns of a table."""
        structure: dict[str, Any] = {}
        for path in self._direct:
            inner = structure
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = "JSON" if path in self.documents else "VARCHAR"
        structure = structure or {"": "VARCHAR"}  # it shows whether the document can be read
        transformed = f"TRY(json_transform({self.text}, {literal(json.dumps(structure))}))"
        return f"(SELECT *, {transformed} AS {TRANSFORMED} FROM {table})"

    def value(self, path: Path) -> str:
        """Write the value at a path as text."""
        if path in self._direct:
            read = field_of(TRANSFORMED, path)
            return f"json_extract_string({read}, '$')" if path in self.documents else read
        return f"TRY(json_extract_string({self._outer(path)}))"

    def document(self, path: Path) -> str:
        """Write the value at a path as JSON."""
        return field_of(TRANSFORMED, path) if path in self._direct else f"TRY(json_extract({self._outer(path)}))"

    def _outer(self, path: Path) -> str:
        """Write the document that a path is looked up in, and the rest of the path."""
        for i in range(len(path) - 1, 0, -1):
            if path[:i] in self._direct and path[:i] in self.documents:
                return f"{field_of(TRANSFORMED, path[:i])}, {literal(pointer(path[i:]))}"
        return f"{self.text}, {literal(pointer(path))}"


def _twins(paths: Iterable[Path]) -> set[Path]:
    """Return the paths of which a key has a sister that differs in case only."""
    found: dict[tuple[Path, str], set[str]] = {}
    for path in paths:
        for i, key in enumerate(path):
            found.setdefault((path[:i], key.casefold()), set()).add(key)
    return {p for p in paths if any(len(found[(p[:i], key.casefold())]) > 1 for i, key in enumerate(p))}
