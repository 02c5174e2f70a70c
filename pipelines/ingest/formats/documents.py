"""Rows that another reader made, as chunks of JSON documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa

from refold.pipelines.ingest.rows import ReadRequest, Rows


def document_rows(
    request: ReadRequest, documents: Iterable[tuple[int, dict[str, Any]]], consumed: Callable[[], int]
) -> Iterator[Rows]:
    """Return rows that are objects, each with its line, as JSON documents.

    Args:
        request: what to read; rows that were read before are skipped.
        documents: of the whole file.
        consumed: returns how many bytes of the stored file were read so far.
    """
    limits, done = request.limits, 0
    texts: list[str] = []
    lines: list[int] = []
    size = 0
    for line, document in documents:
        done += 1
        if done <= request.place["row"]:
            continue
        texts.append(json.dumps(document, default=_as_json, ensure_ascii=False))
        lines.append(line)
        size += len(texts[-1])
        if len(texts) >= limits.chunk_rows or size >= limits.chunk_bytes:
            yield _rows(texts, lines, done, consumed())
            texts, lines, size = [], [], 0
    if texts:
        yield _rows(texts, lines, done, consumed())


def _rows(texts: list[str], lines: list[int], done: int, consumed: int) -> Rows:
    return Rows(
        columns=pa.table({"_text": pa.array(texts, pa.large_string())}),
        lines=lines,
        text=lambda row: texts[row],
        after={"row": done, "line": done, "offset": done},
        consumed=consumed,
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
