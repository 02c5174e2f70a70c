"""A small domain whose events have a field of every kind, and a log of it that can be sealed without Beam."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from refold.event_schemas import (
    ENVELOPE,
    Registry,
    event,
    event_type_of,
    merger,
    schema_of,
    schema_version_of,
    upcaster,
)
from refold.event_schemas.payload import from_json, to_json
from refold.event_schemas.registry import SchemaKey
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.engine.connections import connect
from refold.warehouse.event_log import commit
from refold.warehouse.event_log import seal as sealing
from refold.warehouse.event_log.bulk_import.bulk_segments import publish_import
from refold.warehouse.event_log.commit import CommitInfo
from refold.warehouse.event_log.layout import bucket_of, commit_key
from refold.warehouse.event_log.log import EventLog
from refold.warehouse.event_log.manifest import Manifest
from refold.warehouse.event_log.segments import write_heads, write_segments
from refold.warehouse.object_store.records import encode_record

Money = Annotated[Decimal, pa.decimal128(18, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A nested value."""

    sku: str
    price: Money
    on: date | None


@event(schema_version=2)
class Placed:
    """An order was placed; version 1 had no currency."""

    customer: str
    currency: str


@event(schema_version=1)
class Added:
    """A field of every kind."""

    sku: str | None
    quantity: int
    price: Money
    weight: float
    gift: bool
    token: uuid.UUID
    at: datetime
    local: Annotated[datetime, pa.timestamp("us")] | None
    tags: list[str]
    lines: list[Line]


@event(schema_version=1)
class Closed:
    """No field at all."""


@event(schema_version=1)
class Moved:
    """The merged event of two halves."""

    street: str
    city: str


PLACED_V1 = pa.schema([pa.field("customer", pa.string(), nullable=False)])
STREET = pa.schema([pa.field("street", pa.string(), nullable=False)])
CITY = pa.schema([pa.field("city", pa.string(), nullable=False)])


@upcaster(Placed, from_version=1, schema=PLACED_V1)
def add_currency() -> str:
    """Upcast version 1, which had only euros; an empty customer fails."""
    return "SELECT *, CASE WHEN customer = '' THEN error('nameless customer') ELSE 'EUR' END AS currency FROM event"


@upcaster("Bundled", from_version=1, schema=pa.schema([("skus", pa.list_(pa.string()))]), into=Added)
def unbundle(bundled: Any) -> list[Added]:
    """One event for each piece; an empty bundle fails."""
    skus = bundled.payload["skus"]
    if not skus:
        raise ValueError("an empty bundle")
    return [added(sku) for sku in skus]


@merger([("StreetChanged", 1, STREET), ("CityChanged", 1, CITY)], into=Moved)
def join_address(changes: list[Any]) -> list[Moved]:
    """Join the halves of an address."""
    found = {k: v for change in changes for k, v in change.payload.items()}
    return [Moved(street=found["street"], city=found["city"])]


SHOP = Domain(name="shop", events=(Placed, Added, Closed, Moved), upcasters=(add_currency, unbundle, join_address))
REGISTRY = SHOP.registry
YOUNGER = Registry(events=[Placed, Closed], upcasters=[add_currency])
"""The same domain before it had events for additions to an order."""


def added(sku: str | None = "cup", *, quantity: int = 1) -> Added:
    """Return an event with a value in every field."""
    return Added(
        sku=sku,
        quantity=quantity,
        price=Decimal("12345678901234.50"),
        weight=0.1,
        gift=True,
        token=uuid.UUID(int=abs(quantity)),
        at=datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        local=datetime(2024, 7, 1, 12, tzinfo=UTC),
        tags=["ü", 'a "quoted" one', "nul\0"],
        lines=[Line(sku="s", price=Decimal("0.10"), on=date(2024, 1, 1)), Line(sku="t", price=Decimal(-3), on=None)],
    )


def seal(log: EventLog, registry: Registry = REGISTRY) -> Manifest:
    """Seal the tail in this process."""
    made = prepare_seal(log, registry)
    assert sealing.publish(log, made)
    return made


def prepare_seal(log: EventLog, registry: Registry = REGISTRY) -> Manifest:
    """Seal without publishing the manifest."""
    head = log.head()
    folder = f"staging/{uuid.uuid4()}"
    staging = log.store.child(folder)
    infos = [info for info in head.tail if info.import_id is None]
    key, buckets = (
        sealing.repartition(log, infos, staging, "gathered", bucket_count=head.sealed.bucket_count)
        if infos
        else ("", [])
    )
    paths = [staging.local_path(key)] if infos else []
    sealed = [sealing.seal_buckets(log, registry, range(b, b + 1), paths, head.sealed) for b in buckets]
    log.store.delete_prefix(folder)
    return sealing.next_manifest(head.sealed, head.tail, sealed)


def manifest_values(log: EventLog) -> dict[str, Any]:
    """Return what the newest manifest and its parts say, in one object as older releases wrote it."""
    found = log.manifest()
    whole = dataclasses.replace(found, segments=tuple(found.segments), heads=tuple(found.heads), parts=())
    values: dict[str, Any] = orjson.loads(encode_record(whole))
    del values["digest"]
    return values


def bulk_import(
    log: EventLog, import_id: str, events: Sequence[tuple[str, Any]], *, recorded_at: datetime | None = None
) -> CommitInfo:
    """Publish (stream, event) pairs as the segments of one bulk import, begun at some time, without sealing it."""
    recorded_at = recorded_at or datetime.now(UTC)
    rows: dict[int, dict[SchemaKey, list[dict[str, Any]]]] = {}
    versions: Counter[str] = Counter()
    for position, (stream_id, value) in enumerate(events, start=1):
        schema_key = (event_type_of(type(value)), schema_version_of(type(value)))
        versions[stream_id] += 1
        envelope = [position, 0, stream_id, versions[stream_id], f"{import_id}-{position}", *schema_key]
        envelope += [datetime(2024, 1, 1, tzinfo=UTC), recorded_at, import_id, None]
        payload = _arrow_ready(
            {f.name: _plain(value, f.name) for f in REGISTRY.schema(*schema_key)}, REGISTRY.schema(*schema_key)
        )
        bucket = rows.setdefault(bucket_of(stream_id, log.manifest().bucket_count), {})
        bucket.setdefault(schema_key, []).append(dict(zip(ENVELOPE.names, envelope, strict=True)) | payload)
    built = [_built(log, found) for found in rows.values()]
    return publish_import(log, import_id, len(events), built, bucket_count=log.manifest().bucket_count)


def _built(log: EventLog, rows: dict[SchemaKey, list[dict[str, Any]]]) -> sealing.SealedBuckets:
    segments, count = [], log.manifest().bucket_count
    with connect(threads=1) as connection:
        for i, (schema_key, found) in enumerate(rows.items()):
            schema = REGISTRY.schema(*schema_key)
            connection.register(f"_given_{i}", pa.Table.from_pylist(found, pa.schema([*ENVELOPE, *schema])))
            segments += write_segments(
                connection,
                log.store,
                bucket_count=log.manifest().bucket_count,
                payload=schema,
                schema_key=schema_key,
                relation=f"_given_{i}",
            )
        streams = " UNION ALL ".join(f"SELECT stream_id, stream_version FROM _given_{i}" for i in range(len(rows)))
        heads = write_heads(connection, log.store, bucket_count=count, relation=f"({streams})")
    return sealing.SealedBuckets(segments=tuple(segments), heads=tuple(heads))


def _plain(value: Any, name: str) -> Any:
    found = getattr(value, name)
    if name == "lines":
        return [{"sku": line.sku, "price": line.price, "on": line.on} for line in found]
    return found


def write_commit(
    log: EventLog, events: Iterable[tuple[str, str, int, str]], *, recorded_at: datetime | None = None
) -> CommitInfo:
    """Write a commit as another program does: (stream, event type, schema version, payload text), to new streams."""
    head = log.head()
    now = recorded_at or datetime.now(UTC)
    rows = []
    heads: dict[str, int] = {}
    for i, (stream_id, event_type, version, payload) in enumerate(events, start=1):
        heads[stream_id] = heads.get(stream_id, 0) + 1
        place = [head.position + i, head.commit + 1, stream_id, heads[stream_id], str(uuid.uuid4())]
        rows.append([*place, event_type, version, now, now, None, None, payload])
    info = CommitInfo(
        number=head.commit + 1,
        uuid=str(uuid.uuid4()),
        first_position=head.position + 1,
        last_position=head.position + len(rows),
        recorded_at=now,
        previous=head.end.digest,
        heads=heads,
    )
    info, data = commit.encode(info, list(zip(*rows, strict=True)))
    assert log.store.put_if_absent(commit_key(info.number), data)
    return info


def nullify(log: EventLog, event_type: str, field: str) -> None:
    """Make a field NULL in the sealed events of a type, as a release did that did not read what it wrote."""
    before = log.manifest()
    changed = []
    for segment in before.segments:
        if segment.event_type == event_type:
            table = pq.read_table(log.store.local_path(segment.key), partitioning=None)
            index = table.schema.get_field_index(field)
            table = table.set_column(index, field, pa.nulls(len(table), table.schema.field(field).type))
            written = io.BytesIO()
            pq.write_table(table, written)
            log.store.put(segment.key, written.getvalue())
            checksum = hashlib.sha256(written.getvalue()).hexdigest()
            segment = dataclasses.replace(segment, bytes=len(written.getvalue()), checksum=checksum)
        changed.append(segment)
    assert sealing.publish(log, dataclasses.replace(before, number=before.number + 1, segments=tuple(changed)))


def payload_of(value: Any) -> dict[str, Any]:
    """Return an event's payload as reads should return it."""
    schema = schema_of(type(value))
    return from_json(to_json(value, schema), schema)


def _arrow_ready(payload: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Replace UUID values by the bytes that Arrow builds UUID columns from."""
    return {
        f.name: v.bytes if f.type == pa.uuid() and v is not None else v
        for f, v in zip(schema, payload.values(), strict=True)
    }
