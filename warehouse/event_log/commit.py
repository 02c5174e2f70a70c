"""Commits: one Parquet object is one atomic append.

Rows are events: the envelope and the payload as JSON text. The footer's key ``refold.commit`` holds the UUID of the
write, the positions, and the last version of each stream in the commit. The commit of a bulk import has no rows: its
footer names the segments that hold them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from refold.event_schemas import ENVELOPE, DamagedLogError
from refold.warehouse.engine.parquet_files import parquet_footer, write_table
from refold.warehouse.event_log.manifest import (
    HeadsRun,
    Segment,
    segments_from_json,
    segments_to_json,
)

COMMIT_SCHEMA = ENVELOPE.append(pa.field("payload", pa.string(), nullable=False))
_FOOTER_KEY = b"refold.commit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitInfo:
    """The footer of a commit.

    Attributes:
        number: number of the commit, from 1, without gaps.
        uuid: identity of the write; distinguishes a retried write from a lost race.
        first_position: position of its first event.
        last_position: position of its last event.
        recorded_at: time of the write; never before that of the previous commit.
        heads: stream to its last version after this commit (empty for a bulk import).
        segments: the segments of a bulk import, with positions relative to ``first_position - 1``.
        heads_runs: the stream heads of a bulk import.
        import_id: identity of the bulk import, else None.
    """

    number: int
    uuid: str
    first_position: int
    last_position: int
    recorded_at: datetime
    heads: dict[str, int] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    heads_runs: tuple[HeadsRun, ...] = ()
    import_id: str | None = None

    @property
    def events(self) -> int:
        """Number of its events."""
        return self.last_position - self.first_position + 1


def encode(info: CommitInfo, rows: Sequence[Sequence[Any]]) -> bytes:
    """Encode a commit object.

    Args:
        info: the footer.
        rows: one sequence for each column of ``COMMIT_SCHEMA``; empty for a bulk import.
    """
    columns = rows or [[] for _ in COMMIT_SCHEMA]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, COMMIT_SCHEMA, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=COMMIT_SCHEMA.with_metadata({_FOOTER_KEY: _footer(info)}))
    buffer = io.BytesIO()
    write_table(table, buffer, compression="zstd", compression_level=1, write_page_checksum=True)
    return buffer.getvalue()


def _footer(info: CommitInfo) -> bytes:
    return orjson.dumps(
        {
            "number": info.number,
            "uuid": info.uuid,
            "first_position": info.first_position,
            "last_position": info.last_position,
            "recorded_at": info.recorded_at,
            "heads": info.heads,
            "segments": segments_to_json(info.segments),
            "heads_runs": [
                {"key": h.key, "bucket": h.bucket, "rows": h.rows, "bytes": h.bytes} for h in info.heads_runs
            ],
            "import_id": info.import_id,
        }
    )


def read_info(source: bytes | Path, *, where: str) -> CommitInfo:
    """Read the footer of a commit.

    Raises:
        DamagedLogError: the object is truncated or not a commit.
    """
    try:
        metadata = parquet_footer(io.BytesIO(source) if isinstance(source, bytes) else source).metadata
        values = orjson.loads(metadata[_FOOTER_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedLogError(
            f"{where} is truncated or not a commit ({error}). The log cannot be read beyond it: restore the object "
            "from a backup of the store."
        ) from error
    values["recorded_at"] = datetime.fromisoformat(values["recorded_at"])
    values["segments"] = segments_from_json(values["segments"])
    values["heads_runs"] = tuple(HeadsRun(**h) for h in values["heads_runs"])
    return CommitInfo(**values)
