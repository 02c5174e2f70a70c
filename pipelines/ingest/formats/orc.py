"""ORC files as chunks of rows: only the columns that are needed, a stripe at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import orc

from refold.event_schemas import UsageError
from refold.pipelines.ingest.formats.tables import refuse_twins, table_rows
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile, open_stored


def read_rows(request: ReadRequest) -> Iterator[Rows]:
    """Read rows.

    Raises:
        UsageError: it is no ORC file, or is damaged.
    """
    source, done = request.file, 0
    with _opened(source) as file:
        refuse_twins(source, file.schema.names)
        names = [n for n in file.schema.names if n in request.needed] or file.schema.names[:1]
        for i in range(file.nstripes):
            stripe = pa.Table.from_batches([file.read_stripe(i, columns=names)])
            for start in range(0, stripe.num_rows, request.limits.chunk_rows):
                some = stripe.slice(start, request.limits.chunk_rows)
                new = max(request.place["row"] - done, 0)
                done += some.num_rows
                if new < some.num_rows:
                    yield table_rows(source, some.slice(new), done, source.size * done // max(file.nrows, 1))


def column_names(file: SourceFile, _mapping: ColumnMapping) -> list[str]:
    """Return the columns of a file.

    Raises:
        UsageError: it is no ORC file.
    """
    with _opened(file) as opened:
        return list(opened.schema.names)


@contextmanager
def _opened(source: SourceFile) -> Iterator[orc.ORCFile]:
    try:
        with open_stored(source) as stored:
            yield orc.ORCFile(stored)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{source.name} is no readable ORC file: {error}. Write it again.") from error
