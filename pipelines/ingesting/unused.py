"""Which columns of a table no event was given anything of: the user may have meant them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from event_schemas import Registry
from event_schemas.registry import Shape
from pipelines.ingesting.envelope import path_of
from pipelines.ingesting.mapping import ColumnMapping
from pipelines.ingesting.read_csv import read_header
from pipelines.ingesting.read_parquet import column_names
from pipelines.ingesting.rows import Limits
from pipelines.ingesting.sources import SourceFile, download, opened
from warehouse.event_log.spool import Journal


def unused_columns(
    sources: Sequence[tuple[SourceFile, ColumnMapping]], registry: Registry, journal: Journal, folder: Path
) -> tuple[str, ...]:
    """Name columns of Parquet and CSV files that were not used.

    Args:
        sources: the files, each with its mapping.
        registry: the contracts.
        journal: of the import's spool, which tells what shapes there were.
        folder: where copies of remote files are.
    """
    shapes = {(f.event_type, f.schema_version) for chunk in journal.chunks for f in chunk.files}
    unused: dict[str, None] = {}
    for source, mapping in sources:
        names = _names(source, mapping, folder)
        used = _used(mapping, shapes, registry, flat=mapping.payload not in names)
        unused |= dict.fromkeys(n for n in names if n not in used and path_of(n)[0] not in used)
    return tuple(unused)


def _names(source: SourceFile, mapping: ColumnMapping, folder: Path) -> list[str]:
    if source.format == "parquet":
        return column_names(source.name, download(source, folder))
    if source.format == "csv":
        with opened(source) as stream:
            return read_header(stream, delimiter=mapping.delimiter, limits=Limits())[0]
    return []


def _used(mapping: ColumnMapping, shapes: set[Shape], registry: Registry, *, flat: bool) -> set[str]:
    used = {column for source in mapping.envelope.values() for column in source.reads} | {mapping.payload}
    if flat:
        for shape in shapes:
            renamed = mapping.payload_columns.get(shape[0], {})
            used |= {renamed.get(name, name) for name in registry.schema(*shape).names}
    return used | {path_of(name)[0] for name in used}
