"""The keys of a log's objects, and the bucket of a stream."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

CONFIG_KEY = "refold.json"
COMMITS = "commits"
MANIFESTS = "manifests"
SEGMENTS = "segments"
HEADS = "heads"
PARTS = "parts"

FORMAT_VERSION = 2
DEFAULT_BUCKET_COUNT = 64

_NUMBERED = re.compile(r"[0-9]{20}\.(parquet|json)")


def commit_key(number: int) -> str:
    """Return the key of a commit.

    Example:
        >>> commit_key(7)
        'commits/00000000000000000007.parquet'
    """
    return f"{COMMITS}/{number:020d}.parquet"


def manifest_key(number: int) -> str:
    """Return the key of a manifest."""
    return f"{MANIFESTS}/{number:020d}.json"


def part_key(manifest: int, number: int, name: str) -> str:
    """Return the key of a part of a manifest, which lists a range of buckets."""
    return f"{PARTS}/{manifest:020d}-{number:02d}-{name}.json"


def segment_key(event_type: str, schema_version: int, bucket: int, name: str) -> str:
    """Return the key of a segment."""
    return f"{SEGMENTS}/event_type={event_type}/schema_version={schema_version}/bucket={bucket:02d}/{name}.parquet"


def heads_key(bucket: int, name: str) -> str:
    """Return the key of a run of stream heads."""
    return f"{HEADS}/bucket={bucket:02d}/{name}.parquet"


def numbered(keys: Iterable[str]) -> Iterator[str]:
    """Return the keys that have a number as a name; other objects in the folder are none of ours.

    Example:
        >>> list(numbered(["manifests/00000000000000000007.json", "manifests/99-notes.txt"]))
        ['manifests/00000000000000000007.json']
    """
    return (key for key in keys if _NUMBERED.fullmatch(key.rsplit("/", 1)[-1]))


def number_of(key: str) -> int:
    """Return the number in the key of a commit or a manifest."""
    return int(key.rsplit("/", 1)[-1].split(".")[0])


def bucket_of(stream_id: str, bucket_count: int) -> int:
    """Return a stream's bucket: the lower 64 bits of its MD5, little-endian, modulo the bucket count.

    Example:
        >>> bucket_of("order-1", 64)
        59
    """
    digest = hashlib.md5(stream_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") % bucket_count


def bucket_sql(bucket_count: int) -> str:
    """Return DuckDB's SQL for the bucket of the stream of a row, whose column is ``stream_id``."""
    return f"(md5_number_lower(stream_id) % {bucket_count})::INTEGER"
