"""Commits: one Parquet object is one atomic append.

Rows are events: the envelope and the payload as JSON text. The footer's key ``refold.commit`` holds the UUID of the
write, the positions, and the last version of each stream in the commit. The commit of a bulk import has no rows: its
footer names the segments that hold them.

The footer's key ``refold.digest`` holds the SHA-256 of the whole object, with 64 zeros in place of that digest.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow as pa

from refold.event_schemas import ENVELOPE, DamagedLogError
from refold.warehouse.engine.parquet_files import parquet_footer, write_table
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.manifest import HeadsRun, Segment, segments_from_json
from refold.warehouse.object_store.digests import DIGEST_LENGTH, DigestError, check_stamped, stamped
from refold.warehouse.object_store.records import convert, decoder_of

COMMIT_SCHEMA = ENVELOPE.append(pa.field("payload", pa.string(), nullable=False))
_FOOTER_KEY = "refold.commit"
_DIGEST_KEY = "refold.digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitInfo:
    """The footer of a commit.

    Attributes:
        number: number of the commit, from 1, without gaps.
        uuid: identity of the write; distinguishes a retried write from a lost race.
        first_position: position of its first event.
        last_position: position of its last event.
        recorded_at: time of the write, by its writer (``clocks``).
        previous: digest of the commit before it; of the log's description for the first (``chain``).
        heads: stream to its last version after this commit (empty for a bulk import).
        segments: the segments of a bulk import, with positions relative to ``first_position - 1``.
        heads_runs: the stream heads of a bulk import.
        import_id: identity of the bulk import, else None.
        bucket_count: number of buckets of the bulk import's segments; 0: as many as the log had at first.
        digest: digest of the object; empty before it is encoded.
    """

    number: int
    uuid: str
    first_position: int
    last_position: int
    recorded_at: datetime
    previous: str = ""
    heads: dict[str, int] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    heads_runs: tuple[HeadsRun, ...] = ()
    import_id: str | None = None
    bucket_count: int = 0
    digest: str = ""

    @property
    def events(self) -> int:
        """Number of its events."""
        return self.last_position - self.first_position + 1

    @property
    def end(self) -> Link:
        """The place after it."""
        return Link(self.number, self.last_position, self.digest)


def encode(info: CommitInfo, rows: Sequence[Sequence[Any]]) -> tuple[CommitInfo, bytes]:
    """Encode a commit object.

    Args:
        info: the footer.
        rows: one sequence for each column of ``COMMIT_SCHEMA``; empty for a bulk import.

    Returns:
        The footer with the object's digest, and the object.
    """
    columns = rows or [[] for _ in COMMIT_SCHEMA]
    arrays = [pa.array(column, f.type) for column, f in zip(columns, COMMIT_SCHEMA, strict=True)]
    footer: dict[str, bytes | str] = {_FOOTER_KEY: msgspec.json.encode(info), _DIGEST_KEY: "0" * DIGEST_LENGTH}
    buffer = io.BytesIO()
    write_table(
        pa.Table.from_arrays(arrays, schema=COMMIT_SCHEMA),
        buffer,
        metadata=footer,
        compression="zstd",
        compression_level=1,
        write_page_checksum=True,
    )
    data, digest = stamped(buffer.getvalue(), _DIGEST_KEY.encode())
    return dataclasses.replace(info, digest=digest), data


def read_info(data: bytes, *, where: str, has_digest: bool = True) -> CommitInfo:
    """Read the footer of a commit, after checking the object against its digest.

    Args:
        data: the object.
        where: its URL, for errors.
        has_digest: whether it must have one; those of log format 1 have none.

    Raises:
        DamagedLogError: the object is truncated, was changed, or is not a commit.
    """
    try:
        metadata = parquet_footer(io.BytesIO(data)).metadata
        footer = metadata[_FOOTER_KEY.encode()]
        if not has_digest and _DIGEST_KEY.encode() not in metadata:
            return _format_1(footer)
        digest = metadata[_DIGEST_KEY.encode()].decode()
        check_stamped(data, digest, _DIGEST_KEY.encode())
        return dataclasses.replace(decoder_of(CommitInfo).decode(footer), digest=digest)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError, DigestError) as error:
        raise _damaged(where, error) from error


def _format_1(footer: bytes) -> CommitInfo:
    values = orjson.loads(footer)
    values["segments"] = segments_from_json(values["segments"])
    return convert(values, CommitInfo)


def check_file(path: Path, info: CommitInfo, *, where: str) -> None:
    """Check the file of a commit against its footer, once in a process.

    Raises:
        DamagedLogError: they differ.
    """
    found = path.stat()
    try:
        _check_file(str(path), info.digest, found.st_ino, found.st_size, found.st_mtime_ns)
    except DigestError as error:
        raise _damaged(where, error) from error


@functools.lru_cache(maxsize=1 << 14)
def _check_file(path: str, digest: str, _inode: int, _size: int, _modified: int) -> None:
    check_stamped(Path(path).read_bytes(), digest, _DIGEST_KEY.encode())


def _damaged(where: str, error: Exception) -> DamagedLogError:
    return DamagedLogError(
        f"{where} is damaged, or not a commit ({error}). The log cannot be read beyond it: restore the object from a "
        "backup of the store."
    )
