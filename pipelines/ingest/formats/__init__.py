"""The file formats that an import reads.

To add a format, write a module with a function that reads rows, and enter it in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from refold.pipelines.ingest.formats import arrow, avro, csv, json, orc, parquet, xes
from refold.pipelines.ingest.mapping import ColumnMapping
from refold.pipelines.ingest.rows import ReadRequest, Rows
from refold.pipelines.ingest.source_file import SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format.

    Attributes:
        read: reads the rows of a file from a place on, in chunks.
        suffixes: of files that have the format if the user names none.
        documents: whether a row is a JSON document; else a row has columns.
        empty_is_null: whether an empty text stands for no value.
        detect: looks into a file that was said to have the format, and returns the name of the format that it has, and
            whether its rows are CloudEvents.
        column_names: returns the columns of a file; the import reports those that it did not use.
    """

    read: Callable[[ReadRequest], Iterator[Rows]]
    suffixes: tuple[str, ...] = ()
    documents: bool = False
    empty_is_null: bool = False
    detect: Callable[[SourceFile], tuple[str, bool]] | None = None
    column_names: Callable[[SourceFile, ColumnMapping], list[str]] = lambda _file, _mapping: []


FORMATS: Mapping[str, Format] = {
    "jsonl": Format(
        read=json.read_lines, suffixes=(".jsonl", ".ndjson", ".json"), documents=True, detect=json.detect_format
    ),
    "json": Format(read=json.read_array, documents=True, detect=json.detect_format),
    "cloudevents": Format(read=json.read_lines, documents=True, detect=json.detect_format),
    "csv": Format(read=csv.read_rows, suffixes=(".csv", ".tsv"), empty_is_null=True, column_names=csv.column_names),
    "parquet": Format(read=parquet.read_rows, suffixes=(".parquet", ".pq"), column_names=parquet.column_names),
    "arrow": Format(read=arrow.read_rows, suffixes=(".arrow", ".feather", ".ipc"), column_names=arrow.column_names),
    "orc": Format(read=orc.read_rows, suffixes=(".orc",), column_names=orc.column_names),
    "avro": Format(read=avro.read_rows, suffixes=(".avro",), documents=True),
    "xes": Format(read=xes.read_rows, suffixes=(".xes",), documents=True),
}
"""Name to format: JSON lines, JSON (one array, or documents of several lines each), CloudEvents (as lines or an array),
CSV, Parquet, Arrow IPC, ORC, Avro, XES."""
