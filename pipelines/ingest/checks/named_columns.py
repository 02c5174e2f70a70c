"""The columns and paths that a mapping names: one that no row has is an error, or a misspelt name would pass as NULL.

Of a list of alternatives at least one must be found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from refold.pipelines.ingest.checks.context import CheckContext, Indices
from refold.pipelines.ingest.checks.document_paths import TRANSFORMED
from refold.pipelines.ingest.mapping import DEFAULT_PAYLOAD, ColumnMapping, columns_in, path_of, pointer
from refold.warehouse.engine.sql import literal

if TYPE_CHECKING:
    from refold.pipelines.ingest.checks.chunk import Chunk

Name = tuple[str, str]
"""The event type whose payload has a path, and the path; the type is empty for a column of the envelope."""

ANYTHING = ""
"""In place of a path: the file has a readable row, or an event of a type."""


def named_columns(mapping: ColumnMapping) -> dict[str, list[list[Name]]]:
    """Return what a mapping names and a file must have: key of the mapping to alternatives, each of several names."""
    named: dict[str, list[list[Name]]] = {}
    for key, source in mapping.envelope.items():
        if source.alternatives and not source.optional:
            named[f"envelope.{key}"] = [[("", name) for name in columns_in(text)] for text in source.alternatives]
    if mapping.payloads and mapping.payload != DEFAULT_PAYLOAD:
        named["payload"] = [[("", name)] for name in mapping.payloads]
    for event_type, fields in mapping.payload_columns.items():
        for name in fields:
            source = mapping.source_of(event_type, name)
            if not source.optional:
                named[f"payload_columns.{event_type}.{name}"] = [[(event_type, source.columns[0])]]
    return named


def wanted_names(mapping: ColumnMapping, found: Collection[Name]) -> list[Name]:
    """Return the names to look for, after some were found."""
    named = {name for alternatives in named_columns(mapping).values() for names in alternatives for name in names}
    marks = {(event_type, ANYTHING) for event_type, _ in named} | {("", ANYTHING)}
    return sorted((named | marks).difference(found))


def missing_columns(mapping: ColumnMapping, found: Collection[Name]) -> dict[str, Name]:
    """Return what a mapping names and no row has: key of the mapping to the name.

    A field of an event type that no row has may be missing.
    """
    missing = {}
    for key, alternatives in named_columns(mapping).items():
        lacking = [[name for name in names if name not in found] for names in alternatives]
        if all(lacking) and (lacking[0][0][0], ANYTHING) in found:
            missing[key] = lacking[0][0]
    return missing


def found_names(
    context: CheckContext, chunk: Chunk, wanted: Collection[Name], rows_of: Mapping[str, Indices]
) -> frozenset[Name]:
    """Return which names the rows of a chunk have.

    Args:
        context: the rows are registered in its database.
        chunk: the rows.
        wanted: the names to look for.
        rows_of: event type to its rows.
    """
    found = {
        (event_type, path)
        for event_type, path in wanted
        if event_type in rows_of and (path == ANYTHING or chunk.payload.has(context, path, rows_of[event_type]))
    }
    paths = {path for event_type, path in wanted if not event_type}
    return frozenset(found | {("", path) for path in paths if context.has_row(chunk.relation, chunk.exists(path))})


def exists_in_document(path: str) -> str:
    """Write the condition that a JSON document has a path, or is readable at all."""
    return f"TRY(json_exists(_text, {literal(pointer(path_of(path)))}))" if path else f"{TRANSFORMED} IS NOT NULL"
