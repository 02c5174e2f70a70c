"""A small domain for the tests of imports: every type that a field may have, an older version, a retired type."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pyarrow as pa

from refold.event_schemas import event, upcaster
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import count, latest, total

REF = "tests.pipelines.ingest.parcels:PARCELS"
Money = Annotated[Decimal, pa.decimal128(18, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Some pieces of one article."""

    sku: str
    quantity: int


@event(schema_version=2)
class Sent:
    """A parcel was sent; version 1 had no currency."""

    parcel: str
    weight: int
    price: Money
    currency: str


@event(schema_version=1)
class Described:
    """A field of every type, each but the first optional."""

    name: str
    gift: bool | None
    ratio: float | None
    day: date | None
    at: datetime | None
    ref: UUID | None
    price: Money | None
    count: int | None
    tags: list[str] | None
    lines: list[Line] | None


@event(schema_version=1)
class Lost:
    """A parcel was lost: there is no more to say."""


@upcaster(
    Sent,
    from_version=1,
    schema=pa.schema([pa.field(n, t, nullable=False) for n, t in (("parcel", pa.string()), ("weight", pa.int64()))]),
)
def add_price() -> str:
    """Say that it cost nothing."""
    return "SELECT *, 0::DECIMAL(18,2) AS price, 'EUR' AS currency FROM event"


PARCEL = Projection(
    name="parcel",
    key={"parcel_id": "VARCHAR"},
    columns={"events": count(), "price": total("DECIMAL(18,2)"), "name": latest("VARCHAR")},
    on={
        Sent: "SELECT stream_id AS parcel_id, 1 AS events, price",
        Described: "SELECT stream_id AS parcel_id, 1 AS events, price, name",
        Lost: "SELECT stream_id AS parcel_id, 1 AS events",
    },
)

PARCELS = Domain(name="parcels", events=(Sent, Described, Lost), upcasters=(add_price,), read_models=(PARCEL,))

STRICTER = Domain(name="parcels", events=(Sent, Lost), upcasters=(add_price,))
"""The same domain after an event type was dropped."""
