"""Parquet files as ranges of rows, cut at row groups where they are small enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from event_schemas import UsageError
from pipelines.ingesting.rows import Limits, ParquetRows, Place


def read_parquet(name: str, path: Path, place: Place, limits: Limits) -> Iterator[ParquetRows]:
    """Cut a file into chunks; nothing but its footer is read.

    Args:
        name: of the file, for errors.
        path: a local path of it.
        place: how far it was read before.
        limits: of a chunk.

    Raises:
        UsageError: it is no Parquet file.
    """
    metadata = _footer(name, path)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    size = path.stat().st_size
    first, start = place["row"], 0
    for i, group in enumerate(groups):
        end = start + group.num_rows
        width = max(group.total_byte_size // max(group.num_rows, 1), 1)
        step = max(min(limits.chunk_rows, limits.chunk_bytes // width), 1)
        last = i == len(groups) - 1
        while end - first >= step or (last and end > first):
            count = min(end - first, step)
            first += count
            yield ParquetRows(
                path=path,
                first=first - count,
                count=count,
                after={"row": first, "line": first, "offset": first},
                consumed=size * first // metadata.num_rows,
            )
        start = end


def column_names(name: str, path: Path) -> list[str]:
    """Name the columns of a file.

    Raises:
        UsageError: it is no Parquet file.
    """
    _footer(name, path)
    return list(pq.read_schema(path).names)


def _footer(name: str, path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{name} is no readable Parquet file: {error}.") from error
