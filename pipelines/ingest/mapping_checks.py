"""A mapping against the contracts, before a row is read, and against the rows, after all were read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from refold.event_schemas import Registry, UsageError
from refold.pipelines.ingest.checks.named_columns import Name, missing_columns
from refold.pipelines.ingest.close_names import did_you_mean
from refold.pipelines.ingest.formats import FORMATS
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import START, ImportLimits, ReadRequest
from refold.pipelines.ingest.source_file import SourceFile

_EXAMPLES = 100
"""Rows whose paths are compared with one that no row has."""

_MAX_DEPTH = 6


def check_mapping(mapping: ColumnMapping, registry: Registry) -> None:
    """Check that the event types and fields that a mapping names are those of contracts.

    Raises:
        UsageError: one is not; the message has names like it.
    """
    types = {event_type for event_type, _ in registry.schema_keys}
    for name, named in mapping.types.items():
        _check_type(named.event_type, f'types."{name}"', types)
    for event_type, fields in mapping.payload_columns.items():
        _check_type(event_type, f"payload_columns.{event_type}", types)
        known = {f for key in registry.schema_keys if key[0] == event_type for f in registry.schema(*key).names}
        for field in fields:
            if field not in known:
                raise UsageError(
                    f"The mapping names payload_columns.{event_type}.{field}, but {event_type} has no field {field!r}"
                    f"{did_you_mean(field, known)}; it has {', '.join(sorted(known))}."
                )


def _check_type(event_type: str, where: str, types: Collection[str]) -> None:
    if event_type not in types:
        raise UsageError(
            f"The mapping names {where}, but the domain has no event type {event_type!r}"
            f"{did_you_mean(event_type, types)}."
        )


def check_found(sources: Sequence[tuple[SourceFile, ColumnMapping]], found: Collection[Name]) -> None:
    """Check that a row had each column and path that the mapping names.

    Raises:
        UsageError: no row has one; the message has names like it.
    """
    mapping = sources[0][1]
    for key, (event_type, name) in missing_columns(mapping, found).items():
        names = _names(sources, mapping.payloads if event_type else ())
        raise UsageError(
            f"{key} comes from {name!r} in the mapping, but no row has it{did_you_mean(name, names)}. Nothing was "
            "imported: name the right column, or say optional = true if files may lack it."
        )


def _names(sources: Sequence[tuple[SourceFile, ColumnMapping]], payloads: Sequence[str]) -> set[str]:
    """Return the columns and paths of the first rows; those in a payload without its own path."""
    file, mapping = sources[0]
    names = set(FORMATS[file.format].column_names(file, mapping))
    names |= {path for row in _examples(file, mapping, names) for path in _paths(row)}
    inner = {name.removeprefix(f"{p}.") for p in payloads for name in names if name.startswith(f"{p}.")}
    return inner or names


def _examples(file: SourceFile, mapping: ColumnMapping, needed: Collection[str]) -> Iterator[Any]:
    """Return the first rows as objects, JSON text in them parsed."""
    limits = ImportLimits(chunk_rows=_EXAMPLES)
    request = ReadRequest(file=file, mapping=mapping, place=dict(START), limits=limits, needed=needed)
    for rows in islice(FORMATS[file.format].read(request), 1):
        for row in rows.columns.slice(0, _EXAMPLES).to_pylist():
            parsed = {name: _parsed(value) for name, value in row.items()}
            yield parsed["_text"] if FORMATS[file.format].documents else parsed


def _parsed(value: Any) -> Any:
    """Return what JSON text holds, or the value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _paths(value: Any, prefix: str = "", depth: int = 0) -> Iterable[str]:
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            path = f"{prefix}{key}"
            yield path
            yield from _paths(inner, f"{path}.", depth + 1)
