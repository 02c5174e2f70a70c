"""The events of the depot, and the schemas of older versions and of retired types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import pyarrow as pa

from refold.event_schemas import event

POISON = "poison"
UNLUCKY = 13
Money = Annotated[Decimal, pa.decimal128(18, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Some pieces of one article."""

    sku: str | None
    quantity: int


@event(schema_version=3)
class Opened:
    """An account was opened; version 1 is carried on in SQL, version 2 in Python, which splits and drops."""

    owner: str
    opened_on: date | None
    vip: bool


@event(schema_version=2, name="depot.Sold")
class Sold:
    """Pieces were sold; nearly everything may be unknown."""

    sku: str | None
    quantity: int
    price: Money | None
    ref: UUID | None
    sold_at: datetime | None


@event(schema_version=1)
class Packed:
    """Lists of values and of structs, each maybe empty, elements maybe repeated."""

    lines: list[Line]
    labels: list[str]


@event(schema_version=1)
class Labelled:
    """Where many retired types end: by unnesting in SQL, in Python, and in both."""

    label: str


@event(schema_version=1)
class Addressed:
    """What a merger makes; the trail lists the events of the run."""

    trail: str
    halves: int


@event(schema_version=1)
class Closed:
    """An account was closed: nothing but the envelope."""


@event(schema_version=1)
class Recalled:
    """An article was recalled; no upcaster yields it."""

    sku: str | None
    reason: str
    level: int


EVENTS = (Opened, Sold, Packed, Labelled, Addressed, Closed, Recalled)


def _schema(**fields: pa.DataType | None) -> pa.Schema:
    return pa.schema([pa.field(n.removesuffix("_"), t, nullable=n.endswith("_")) for n, t in fields.items()])


OPENED_V1 = _schema(owner_name=pa.string(), day_=pa.string())
OPENED_V2 = _schema(owner=pa.string(), day_=pa.string())
SOLD_V1 = _schema(sku_=pa.string(), quantity=pa.int64(), cents_=pa.int64())
BUNDLED_V1 = _schema(sku_=pa.string(), pieces_=pa.int64())
LABELS_V1 = _schema(labels=pa.list_(pa.string()))
NOTES_V1 = _schema(notes=pa.list_(pa.string()))
NOTES_V2 = _schema(note_=pa.string())
TRIO_V1 = _schema(parts=pa.list_(pa.string()))
TRIO_V2 = _schema(part=pa.string())
HALF_A_V1 = _schema(street_=pa.string())
HALF_A_V2 = _schema(street=pa.string())
HALF_B_V1 = _schema(city=pa.string())
