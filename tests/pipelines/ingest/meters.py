"""A domain with a merger: all readings of a meter that follow each other are one series."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from refold.event_schemas import event, merger
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.projection import Projection
from refold.warehouse.declarations.reducers import collect, count

REF = "tests.pipelines.ingest.meters:METERS"
READING = pa.schema([pa.field("value", pa.int64(), nullable=False)])


@event(schema_version=1)
class SeriesRead:
    """Readings without another event between them."""

    size: int


@event(schema_version=1)
class MeterChanged:
    """A meter was replaced, which ends a series."""


@merger([("MeterRead", 1, READING)], into=SeriesRead)
def join_readings(readings: list[Any]) -> list[SeriesRead]:
    """Join the readings."""
    return [SeriesRead(size=len(readings))]


SERIES = Projection(
    name="series",
    key={"meter": "VARCHAR"},
    columns={"series": count(), "sizes": collect("BIGINT")},
    on={SeriesRead: "SELECT stream_id AS meter, 1 AS series, size AS sizes"},
)

METERS = Domain(name="meters", events=(SeriesRead, MeterChanged), upcasters=(join_readings,), read_models=(SERIES,))
