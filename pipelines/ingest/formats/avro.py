"""Avro files as chunks of JSON documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refold.event_schemas import UsageError
from refold.pipelines.ingest.formats.documents import document_rows
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile, open_stored


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read records.

    Raises:
        UsageError: it is no Avro file, or is damaged; or the reader is not installed.
    """
    with open_stored(request.file) as stored:
        yield from document_rows(request, _records(request.file, stored), stored.tell)


def _records(file: SourceFile, stored: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import fastavro
    except ImportError as error:
        raise UsageError(
            f"{file.name} is an Avro file, whose reader is missing: pip install 'refold[avro]'."
        ) from error
    try:
        for number, record in enumerate(fastavro.reader(stored), 1):
            yield number, record if isinstance(record, dict) else {"value": record}
    except (ValueError, EOFError, IndexError, KeyError, TypeError) as error:
        raise UsageError(f"{file.name} is no readable Avro file: {error}. Write it again.") from error
