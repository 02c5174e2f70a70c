"""Arrow IPC files and streams (Feather) as chunks of rows, a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from refold.event_schemas import UsageError
from refold.pipelines.ingest.formats.tables import refuse_twins, table_rows
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile, open_stored

_FILE_MAGIC = b"ARROW1"


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read rows.

    Raises:
        UsageError: it is no Arrow IPC file, or is damaged.
    """
    source, done = request.file, 0
    with _opened(source) as (schema, batches):
        refuse_twins(source, schema.names)
        names = [n for n in schema.names if n in request.needed] or schema.names[:1]
        for batch in batches:
            for start in range(0, batch.num_rows, request.limits.chunk_rows):
                some = batch.select(names).slice(start, request.limits.chunk_rows)
                new = max(request.place["row"] - done, 0)
                done += some.num_rows
                if new < some.num_rows:
                    yield table_rows(source, pa.Table.from_batches([some.slice(new)]), done, source.size)


def column_names(file: SourceFile, _mapping: ColumnMapping) -> list[str]:
    """Return the columns of a file.

    Raises:
        UsageError: it is no Arrow IPC file.
    """
    with _opened(file) as (schema, _):
        return list(schema.names)


@contextmanager
def _opened(source: SourceFile) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    try:
        with open_stored(source) as stored:
            is_file = stored.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            stored.seek(0)
            if is_file:
                reader = pa.ipc.open_file(stored)
                yield reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                stream = pa.ipc.open_stream(stored)
                yield stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{source.name} is no readable Arrow IPC file: {error}. Write it again.") from error
