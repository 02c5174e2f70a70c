"""The proof of a written segment: its file holds what was written into it, and no NULL in a required column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError
from refold.warehouse.engine.parquet_files import parquet_relation, partition_of
from refold.warehouse.engine.sql import columns, literal, null_in_required, quote


class WrittenSegmentError(DamagedLogError):
    """The file of a segment differs from its events; it was not made part of the log.

    Attributes:
        bucket: the bucket of its streams.
    """

    def __init__(self, message: str, bucket: int) -> None:
        self.bucket = bucket
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the attribute."""
        return (WrittenSegmentError, (str(self), self.bucket))


def check_written(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    bucket: str,
    paths: Mapping[int, Path],
    fields: Iterable[pa.Field],
    *,
    what: str,
) -> None:
    """Compare the files of segments with the relation that was written into them.

    The digest is that of all values of a file together, in any order; a row's position makes it unique.

    Args:
        connection: where ``relation`` can be queried.
        relation: SQL relation with the columns.
        bucket: SQL for the bucket of a row of it.
        paths: bucket to file.
        fields: the columns of the files.
        what: their schema in an error message.

    Raises:
        WrittenSegmentError: rows or values differ, or a required column has a NULL.
    """
    fields = list(fields)
    digest = f"count(*), bit_xor(hash({columns(f.name for f in fields)}))"
    expected = connection.execute(f"SELECT {bucket} AS _bucket, {digest} FROM {relation} GROUP BY 1").fetchall()
    missing = missing_values(fields)
    found = {}
    if paths:
        written = parquet_relation(paths.values(), file_column="_file")
        grouped = f"SELECT _file, {digest}, count({missing}) FROM {written} GROUP BY 1"
        found = {partition_of(file): values for file, *values in connection.execute(grouped).fetchall()}
    for number, *values in expected:
        *digest_found, nulls = found.get(number, [0, None, 0])
        if digest_found != values:
            raise WrittenSegmentError(
                f"{what}, bucket {number}: the file that was written has {digest_found[0]} rows with the digest "
                f"{digest_found[1]}, but its events are {values[0]} with the digest {values[1]}. Nothing was sealed. "
                "Check disk and memory of this machine, and seal again.",
                number,
            )
        if nulls:
            [(column, position)] = connection.execute(
                f"SELECT {missing} AS missing, position FROM {parquet_relation([paths[number]])} "
                "WHERE missing IS NOT NULL LIMIT 1"
            ).fetchall()
            raise WrittenSegmentError(
                f"{what}, bucket {number}: the required field {column} is NULL in {nulls} events, first at position "
                f"{position}. Nothing was sealed.",
                number,
            )


def missing_values(fields: Iterable[pa.Field]) -> str:
    """Return SQL for the name of a required column that is NULL in a row, or has a NULL inside; NULL if none is."""
    cases = [
        f"WHEN {' OR '.join(conditions)} THEN {literal(field.name)}"
        for field in fields
        if (conditions := null_in_required(quote(field.name), field))
    ]
    return f"CASE {' '.join(cases)} END" if cases else "CAST(NULL AS VARCHAR)"
