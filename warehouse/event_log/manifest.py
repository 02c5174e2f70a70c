"""The manifest: the live segments, and the commit and position up to which the log is sealed."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import orjson

from refold.event_schemas import DamagedLogError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.layout import MANIFESTS, manifest_key, number_of, numbered
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import check_times, convert, decode_record, encode_record, is_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One immutable Parquet file of sealed history: one event type, schema version and bucket.

    Attributes:
        key: key of its object in the log.
        event_type: event type of all its events.
        schema_version: schema version of all its events.
        bucket: bucket of all its streams.
        rows: number of its events.
        bytes: size of its object.
        first_position: lowest value of its ``position`` column.
        last_position: highest value of its ``position`` column.
        first_recorded_at: earliest ``recorded_at``, RFC 3339.
        last_recorded_at: latest ``recorded_at``, RFC 3339.
        position_base: offset of its ``position`` column; a bulk import gets its positions only when it is published.
        commit_base: offset of its ``commit_number`` column.
        untyped: whether its payloads are JSON text, because they matched no contract when they were sealed.
        checksum: SHA-256 of the object.
        column_bytes: compressed size of each column, to estimate what a rebuild reads.
        archive: URL of the archive that holds the object; empty: the log itself holds it.
    """

    key: str
    event_type: str
    schema_version: int
    bucket: int
    rows: int
    bytes: int
    first_position: int
    last_position: int
    first_recorded_at: str = ""
    last_recorded_at: str = ""
    position_base: int = 0
    commit_base: int = 0
    untyped: bool = False
    checksum: str = ""
    column_bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    archive: str = ""

    def __post_init__(self) -> None:
        """Check the times."""
        check_times(optional=(self.first_recorded_at, self.last_recorded_at))

    @property
    def schema_key(self) -> SchemaKey:
        """Event type and schema version."""
        return (self.event_type, self.schema_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsRun:
    """One immutable Parquet file of (stream_id, stream_version), sorted by stream; a later run overrides.

    Attributes:
        key: key of its object in the log.
        bucket: bucket of all its streams.
        rows: number of its streams.
        bytes: size of its object.
        checksum: SHA-256 of the object; empty in log format 1.
    """

    key: str
    bucket: int
    rows: int
    bytes: int
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One state of the sealed log; number 0 is the state before the first seal.

    Attributes:
        number: number of the manifest.
        sealed_commit: the last commit whose events are in segments.
        sealed_position: the last position in segments.
        recorded_at: time at which that commit was recorded, RFC 3339; empty before the first seal.
        segments: the live segments.
        heads: the live runs of stream heads, oldest first within a bucket.
        imports: bulk import to the number of the commit that published it.
        sealed_digest: digest of the last commit whose events are in segments (``chain``); empty in log format 1.
        removed_before: number of a commit; those before it may have been removed, except those of imports.
    """

    number: int = 0
    sealed_commit: int = 0
    sealed_position: int = 0
    recorded_at: str = ""
    segments: tuple[Segment, ...] = ()
    heads: tuple[HeadsRun, ...] = ()
    imports: dict[str, int] = dataclasses.field(default_factory=dict)
    sealed_digest: str = ""
    removed_before: int = 0

    def __post_init__(self) -> None:
        """Check the time."""
        check_times(optional=(self.recorded_at,))

    @property
    def end(self) -> Link:
        """The place after the last sealed commit."""
        return Link(self.sealed_commit, self.sealed_position, self.sealed_digest)

    def segments_of(
        self, schema_keys: frozenset[SchemaKey] | set[SchemaKey], bucket: int | None = None
    ) -> tuple[Segment, ...]:
        """Return the segments of some schemas, of one bucket or of all."""
        return tuple(s for s in self.segments if s.schema_key in schema_keys and bucket in (None, s.bucket))


def segments_from_json(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the segments of a file of log format 1, which calls untyped segments raw, as this format has them."""
    return [{"untyped" if k == "raw" else k: v for k, v in value.items()} for value in values]


def encode(manifest: Manifest) -> bytes:
    """Encode a manifest as a record."""
    return encode_record(manifest)


@functools.lru_cache(maxsize=4)
def decode(data: bytes, *, where: str, has_digest: bool = True) -> Manifest:
    """Decode a manifest; cached, since readers that follow a log load the newest repeatedly.

    Args:
        data: the object.
        where: its URL, for errors.
        has_digest: whether it must have one; those of log format 1 have none.

    Raises:
        DamagedLogError: it is not a manifest, or was changed.
    """
    try:
        if has_digest or is_record(data):
            return decode_record(data, Manifest)
        values = orjson.loads(data)
        return convert(values | {"segments": segments_from_json(values["segments"])}, Manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedLogError(
            f"{where} is not a manifest, or is damaged ({error}). Restore it, or run `refold events verify`."
        ) from error


def newest_key(store: ObjectStore) -> str:
    """Return the key of the newest manifest of a log; empty if it was never sealed."""
    last = ""
    for key in numbered(store.list_from(MANIFESTS)):
        last = key
    return last


def publish(store: ObjectStore, manifest: Manifest) -> bool:
    """Publish a manifest; return False if another sealer took its number."""
    return store.put_if_absent(manifest_key(manifest.number), encode(manifest))


__all__ = ["HeadsRun", "Manifest", "Segment", "decode", "encode", "newest_key", "number_of", "publish"]
