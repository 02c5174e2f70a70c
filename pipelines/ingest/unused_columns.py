"""The columns of a file that an import uses, and those that it does not: a misspelt one is among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from refold.event_schemas import Registry
from refold.event_schemas.registry import SchemaKey
from refold.pipelines.ingest.formats import FORMATS
from refold.pipelines.ingest.mapping import FLAT, ColumnMapping, path_of
from refold.pipelines.ingest.source_file import SourceFile
from refold.warehouse.event_log.bulk_import.spool_journal import Journal


def unused_columns(
    sources: Sequence[tuple[SourceFile, ColumnMapping]], registry: Registry, journal: Journal
) -> tuple[str, ...]:
    """Return the columns of Parquet and CSV files that nothing was taken from.

    Args:
        sources: the files, each with its mapping.
        registry: the contracts.
        journal: of the import's spool, which has the schemas of the events.
    """
    schema_keys = {(f.event_type, f.schema_version) for chunk in journal.chunks for f in chunk.files}
    unused: dict[str, None] = {}
    for source, mapping in sources:
        names = FORMATS[source.format].column_names(source, mapping)
        flat = not any(name in names for name in mapping.payloads)
        used = used_columns(mapping, registry, schema_keys if flat else ())
        unused |= dict.fromkeys(n for n in names if n not in used)
    return tuple(unused)


def used_columns(
    mapping: ColumnMapping, registry: Registry, schema_keys: Iterable[SchemaKey] | None = None
) -> set[str]:
    """Return the columns that a mapping takes something from: the envelope's, the payload's, and those of some schemas.

    Args:
        mapping: of the columns.
        registry: the contracts.
        schema_keys: the schemas whose fields are columns; all by default.
    """
    used = {column for source in mapping.envelope.values() for column in source.reads}
    used |= {FLAT, *mapping.payloads}
    for schema_key in registry.schema_keys if schema_keys is None else schema_keys:
        used |= {mapping.column_of(schema_key[0], name) for name in registry.schema(*schema_key).names}
    return used | {path_of(name)[0] for name in used}
