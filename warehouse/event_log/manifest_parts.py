"""The parts of a manifest: objects that list the segments and stream heads of a range of buckets.

The first part of a range lists everything, each later one what changed since then. A seal adds a part to the ranges
that it touched; once the changes of a range are larger than its first part, it writes a new first part. So neither a
seal nor the opening of a log costs more as the log ages, and a reader of one bucket reads the parts of its range alone.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from refold.event_schemas import DamagedLogError, ObjectNotFoundError
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.event_log.layout import part_key
from refold.warehouse.object_store import ObjectStore
from refold.warehouse.object_store.records import RecordError, check_times, decode_record, encode_record, record_digest

_BUCKETS = 16
"""Buckets of a range: a log of 64 buckets has four, a log of 1,024 has 64."""

_MAX_CHANGES = 16
"""Parts of a range after its first: each is a request for those who open the log."""

_REMEMBERED = 1024
"""Ranges whose contents a process keeps: those of sixteen logs of the largest bucket count."""

_WRITERS = 8
"""Parts that are written at the same time."""


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
class Part:
    """A part of a manifest.

    Attributes:
        segments: segments that are new, or replace those of the same key.
        heads: runs of stream heads that are new, or replace those of the same key.
        removed: keys of segments and runs that are live no more.
    """

    segments: tuple[Segment, ...] = ()
    heads: tuple[HeadsRun, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRef:
    """What a manifest says of a part.

    Attributes:
        key: key of its object in the log.
        range: number of its range: its first bucket divided by the buckets of a range.
        bytes: size of its object.
        digest: digest of the record in it.
    """

    key: str
    range: int
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class _Contents:
    """The live segments and stream heads of a range, by key."""

    segments: dict[str, Segment]
    heads: dict[str, HeadsRun]

    def after(self, part: Part) -> _Contents:
        """Return the contents after a change."""
        removed = set(part.removed)
        segments = {key: s for key, s in self.segments.items() if key not in removed}
        heads = {key: h for key, h in self.heads.items() if key not in removed}
        return _Contents(
            segments | {s.key: s for s in part.segments},
            heads | {h.key: h for h in part.heads},
        )

    def change_to(self, segments: Sequence[Segment], heads: Sequence[HeadsRun]) -> Part:
        """Return the change that leads to other contents."""
        kept = {s.key for s in segments} | {h.key for h in heads}
        return Part(
            segments=tuple(s for s in segments if self.segments.get(s.key) != s),
            heads=tuple(h for h in heads if self.heads.get(h.key) != h),
            removed=tuple(key for key in (*self.segments, *self.heads) if key not in kept),
        )


_NOTHING = _Contents({}, {})


T = TypeVar("T", Segment, HeadsRun)


class Listed(Sequence[T], Generic[T]):
    """The live segments or stream heads that parts list; a part is read when something in it is asked for.

    Args:
        kind: ``"segments"`` or ``"heads"``.
        store: the log's store.
        refs: the parts, in order.
    """

    def __init__(self, kind: str, store: ObjectStore, refs: Sequence[PartRef]) -> None:
        self._kind = kind
        self._store = store
        self._ranges = ranges_of(refs)

    def of_bucket(self, bucket: int) -> list[T]:
        """Return those of a bucket; other ranges are not read."""
        return [one for one in self._of_range(bucket // _BUCKETS) if one.bucket == bucket]

    def _of_range(self, number: int) -> Iterable[T]:
        contents: dict[str, T] = getattr(_contents(self._store, self._ranges.get(number, ())), self._kind)
        return contents.values()

    @functools.cached_property
    def _all(self) -> tuple[T, ...]:
        found: list[Any] = [one for number in sorted(self._ranges) for one in self._of_range(number)]
        return tuple(sorted(found, key=in_order) if self._kind == "segments" else found)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self._all[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what is listed: a worker has all that it needs."""
        return (tuple, (self._all,))


def in_order(segment: Segment) -> tuple[str, int, int, int]:
    """Return the key by which segments are sorted."""
    return (segment.event_type, segment.schema_version, segment.bucket, segment.first_position)


def ranges_of(refs: Iterable[PartRef]) -> dict[int, tuple[PartRef, ...]]:
    """Return the parts of each range, in order."""
    found: dict[int, list[PartRef]] = defaultdict(list)
    for ref in refs:
        found[ref.range].append(ref)
    return {number: tuple(of_range) for number, of_range in found.items()}


@dataclass(slots=True)
class _Latest:
    """What a process last read of a range."""

    read: tuple[tuple[PartRef, ...], _Contents] = ((), _NOTHING)


@functools.lru_cache(maxsize=_REMEMBERED)
def _latest(_url: str, _range: int) -> _Latest:
    return _Latest()


def _contents(store: ObjectStore, refs: tuple[PartRef, ...]) -> _Contents:
    """Return what parts of one range list. Who follows a log reads each part once: the last contents are remembered."""
    if not refs:
        return _NOTHING
    latest = _latest(store.url, refs[0].range)
    known, contents = latest.read
    if known != refs[: len(known)]:
        known, contents = (), _NOTHING
    for ref in refs[len(known) :]:
        contents = contents.after(_read(store, ref))
    latest.read = refs, contents
    return contents


def _read(store: ObjectStore, ref: PartRef) -> Part:
    where = f"{store.url}/{ref.key}"
    try:
        data = store.get(ref.key)
        part = decode_record(data, Part)
    except ObjectNotFoundError as error:
        raise DamagedLogError(
            f"{where} is missing, but the manifest names it: it lists segments and stream heads. Restore it from a "
            "backup of the store."
        ) from error
    except RecordError as error:
        raise DamagedLogError(
            f"{where} is not a part of a manifest, or is damaged ({error}). Restore it, or run `refold events verify`."
        ) from error
    if record_digest(data) != ref.digest:
        raise DamagedLogError(
            f"{where} is not the part that the manifest names: it was replaced. Restore it from a backup of the store."
        )
    return part


def write_parts(
    store: ObjectStore,
    number: int,
    before: Sequence[PartRef],
    segments: Sequence[Segment],
    heads: Sequence[HeadsRun],
) -> tuple[PartRef, ...]:
    """Write the parts of a new manifest, and return all that it names.

    Args:
        store: the log's store.
        number: the manifest's number.
        before: the parts of the manifest before it.
        segments: the live segments.
        heads: the live runs of stream heads.
    """
    old = ranges_of(before)
    wanted: dict[int, tuple[list[Segment], list[HeadsRun]]] = defaultdict(lambda: ([], []))
    for segment in segments:
        wanted[segment.bucket // _BUCKETS][0].append(segment)
    for run in heads:
        wanted[run.bucket // _BUCKETS][1].append(run)

    def write(number_of_range: int) -> tuple[PartRef, ...]:
        refs = old.get(number_of_range, ())
        change = _contents(store, refs).change_to(*wanted[number_of_range])
        if refs and change == Part():
            return refs
        data = encode_record(change)
        if refs and (len(refs) > _MAX_CHANGES or sum(r.bytes for r in refs[1:]) + len(data) > refs[0].bytes):
            of_segments, of_heads = wanted[number_of_range]
            refs, data = (), encode_record(Part(segments=tuple(of_segments), heads=tuple(of_heads)))
        key = part_key(number, number_of_range, str(uuid.uuid4()))
        store.put(key, data)
        return (*refs, PartRef(key=key, range=number_of_range, bytes=len(data), digest=record_digest(data)))

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="parts") as pool:
        return tuple(ref for refs in pool.map(write, sorted(wanted)) for ref in refs)


def forget() -> None:
    """Forget the parts that were read, so that they are read and checked again."""
    _latest.cache_clear()
