"""Which columns of a table anything is taken from, and which are left over: the user may have meant them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refold.event_schemas import Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.envelope_columns import path_of
from refold.pipelines.ingest.formats.csv import read_header
from refold.pipelines.ingest.formats.parquet import column_names
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import ImportLimits
from refold.pipelines.ingest.sources import SourceFile, opened
from refold.warehouse.event_log.bulk_import.spool_journal import Journal


def unused_columns(
    sources: Sequence[tuple[SourceFile, ColumnMapping]], registry: Registry, journal: Journal
) -> tuple[str, ...]:
    """Name columns of Parquet and CSV files that nothing was taken from.

    Args:
        sources: the files, each with its mapping.
        registry: the contracts.
        journal: of the import's spool, which tells what shapes there were.
    """
    schema_keys = {(f.event_type, f.schema_version) for chunk in journal.chunks for f in chunk.files}
    unused: dict[str, None] = {}
    for source, mapping in sources:
        names = _names(source, mapping)
        told = schema_keys if mapping.payload not in names else ()
        used = used_columns(mapping, registry, told)
        unused |= dict.fromkeys(n for n in names if n not in used)
    return tuple(unused)


def used_columns(
    mapping: ColumnMapping, registry: Registry, schema_keys: Iterable[SchemaKey] | None = None
) -> set[str]:
    """Name the columns that a mapping takes something from: the envelope's, the payload's, and those of some shapes.

    Args:
        mapping: of the columns.
        registry: the contracts.
        schema_keys: whose fields are columns; all by default.
    """
    used = {column for source in mapping.envelope.values() for column in source.reads} | {mapping.payload}
    for schema_key in registry.schema_keys if schema_keys is None else schema_keys:
        renamed = mapping.payload_columns.get(schema_key[0], {})
        used |= {renamed.get(name, name) for name in registry.schema(*schema_key).names}
    return used | {path_of(name)[0] for name in used}


def _names(source: SourceFile, mapping: ColumnMapping) -> list[str]:
    if source.format == "parquet":
        return column_names(source)
    if source.format == "csv":
        with opened(source) as stream:
            return read_header(stream, delimiter=mapping.delimiter, limits=ImportLimits())[0]
    return []
