"""The proof of a written segment: its file holds what was written into it, and no NULL in a required column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from refold.event_schemas import DamagedLogError
from refold.warehouse.engine.parquet_files import parquet_relation
from refold.warehouse.engine.sql import columns, literal, null_in_required, quote


class WrittenSegmentError(DamagedLogError):
    """The file of a segment differs from its events; it was not made part of the log."""


def check_written(
    connection: duckdb.DuckDBPyConnection, relation: str, path: Path, fields: Iterable[pa.Field], *, what: str
) -> None:
    """Compare the file of a segment with the relation that was written into it.

    The digest is that of all values together, in any order; a row's position makes it unique.

    Args:
        connection: where ``relation`` can be queried.
        relation: SQL relation with the columns.
        path: the file.
        fields: the columns of the file.
        what: the segment in an error message.

    Raises:
        WrittenSegmentError: rows or values differ, or a required column has a NULL.
    """
    fields = list(fields)
    digest = f"count(*), bit_xor(hash({columns(f.name for f in fields)}))"
    missing = missing_values(fields)
    written = parquet_relation([path])
    [(*found, nulls)] = connection.execute(f"SELECT {digest}, count({missing}) FROM {written}").fetchall()
    [expected] = connection.execute(f"SELECT {digest} FROM {relation}").fetchall()
    if tuple(found) != expected:
        raise WrittenSegmentError(
            f"{what}: the file that was written has {found[0]} rows with the digest {found[1]}, but its events are "
            f"{expected[0]} with the digest {expected[1]}. Nothing was sealed. Check disk and memory of this machine, "
            "and seal again."
        )
    if nulls:
        [(column, position)] = connection.execute(
            f"SELECT {missing} AS missing, position FROM {written} WHERE missing IS NOT NULL LIMIT 1"
        ).fetchall()
        raise WrittenSegmentError(
            f"{what}: the required field {column} is NULL in {nulls} events, first at position {position}. Nothing was "
            "sealed."
        )


def missing_values(fields: Iterable[pa.Field]) -> str:
    """Return SQL for the name of a required column that is NULL in a row, or has a NULL inside; NULL if none is."""
    cases = [
        f"WHEN {' OR '.join(conditions)} THEN {literal(field.name)}"
        for field in fields
        if (conditions := null_in_required(quote(field.name), field))
    ]
    return f"CASE {' '.join(cases)} END" if cases else "CAST(NULL AS VARCHAR)"
