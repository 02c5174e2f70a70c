"""The manifest: the live segments, and the commit and position up to which the log is sealed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from refold.event_schemas import DamagedLogError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.event_log.chain import Link
from refold.warehouse.event_log.layout import MANIFESTS, manifest_key, number_of, numbered
from refold.warehouse.event_log.manifest_parts import HeadsRun, Listed, PartRef, Segment, in_order, write_parts
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import check_times, convert, decode_record, encode_record, is_record


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
        parts: where segments and stream heads are listed: those of the manifest that this one was made from, until it
            is published. Without any, they are in the manifest itself, as releases before wrote it.
        sealed_digest: digest of the last commit whose events are in segments (``chain``); empty in log format 1.
        bucket_count: number of buckets of the streams in segments and stream heads.
        removed_before: number of a commit; those before it may have been removed, except those of imports.
    """

    number: int = 0
    sealed_commit: int = 0
    sealed_position: int = 0
    recorded_at: str = ""
    segments: Sequence[Segment] = ()
    heads: Sequence[HeadsRun] = ()
    imports: dict[str, int] = dataclasses.field(default_factory=dict)
    parts: tuple[PartRef, ...] = ()
    sealed_digest: str = ""
    bucket_count: int = 0
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

    def heads_of(self, bucket: int) -> list[HeadsRun]:
        """Return the runs of stream heads of a bucket, oldest first."""
        if isinstance(self.heads, Listed):
            return self.heads.of_bucket(bucket)
        return [run for run in self.heads if run.bucket == bucket]


def segments_from_json(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the segments of a file of log format 1, which calls untyped segments raw, as this format has them."""
    return [{"untyped" if k == "raw" else k: v for k, v in value.items()} for value in values]


@functools.lru_cache(maxsize=4)
def _decode(data: bytes, *, where: str, has_digest: bool) -> Manifest:
    """Decode a manifest without its parts; cached, since readers that follow a log load the newest repeatedly.

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


def load(store: ObjectStore, key: str, *, has_digest: bool = False) -> Manifest:
    """Load a manifest; its parts are read when they are needed.

    Args:
        store: the log's store.
        key: key of the manifest.
        has_digest: whether it must have one; those of log format 1 have none.

    Raises:
        ObjectNotFoundError: there is none.
        DamagedLogError: it is damaged.
    """
    found = _decode(store.get(key), where=f"{store.url}/{key}", has_digest=has_digest)
    if not found.parts:
        return dataclasses.replace(found, segments=tuple(found.segments), heads=tuple(found.heads))
    segments: Listed[Segment] = Listed("segments", store, found.parts)
    heads: Listed[HeadsRun] = Listed("heads", store, found.parts)
    return dataclasses.replace(found, segments=segments, heads=heads)


def newest_key(store: ObjectStore) -> str:
    """Return the key of the newest manifest of a log; empty if it was never sealed."""
    last = ""
    for key in numbered(store.list_from(MANIFESTS)):
        last = key
    return last


def publish(store: ObjectStore, manifest: Manifest) -> bool:
    """Publish a manifest, and the parts that are new in it; return False if another sealer took its number."""
    parts = write_parts(store, manifest.number, manifest.parts, manifest.segments, manifest.heads)
    written = dataclasses.replace(manifest, segments=(), heads=(), parts=parts)
    if store.put_if_absent(manifest_key(manifest.number), encode_record(written)):
        return True
    for ref in set(parts) - set(manifest.parts):
        store.delete(ref.key)
    return False


__all__ = ["HeadsRun", "Manifest", "Segment", "in_order", "load", "newest_key", "number_of", "publish"]
