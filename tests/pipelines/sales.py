"""A domain whose keys and columns are named like folders and like the columns that DuckDB adds to files."""

from __future__ import annotations

from typing import Any, TypedDict

from refold.event_schemas import event
from refold.warehouse.declarations.domain import Domain
from refold.warehouse.declarations.endpoints import Lookup
from refold.warehouse.declarations.projection import Fold, Projection, View
from refold.warehouse.declarations.reducers import count, latest, total


@event(schema_version=1)
class Sold:
    """Something was sold; its price is text, which may be no number."""

    region: str
    shelf: int
    filename: str
    cents: str


SALES = Projection(
    name="sales",
    key={"region": "VARCHAR", "bucket": "BIGINT", "filename": "VARCHAR"},
    columns={"cents": total("BIGINT"), "file_row_number": latest("VARCHAR"), "event_type": count()},
    on={
        Sold: "SELECT region, shelf AS bucket, filename, CAST(cents AS BIGINT) AS cents, 'n' AS file_row_number, "
        "1 AS event_type"
    },
)
SHOPS = Projection(
    name="shops",
    key={"shop": "VARCHAR"},
    columns={"region": latest("VARCHAR"), "bucket": latest("BIGINT")},
    on={Sold: "SELECT stream_id AS shop, region, shelf AS bucket"},
)


class Longest(TypedDict):
    """The longest file name of a region."""

    filename: str


def _longest(state: Longest | None, sold: Sold) -> dict[str, Any]:
    return {"filename": max(state["filename"] if state else "", sold.filename, key=len)}


LONGEST = Fold(
    name="longest",
    key={"region": "VARCHAR"},
    columns={"filename": "VARCHAR"},
    on={Sold: "SELECT region, filename"},
    fold=_longest,
)
PLACES = Domain(
    name="places",
    events=(Sold,),
    read_models=(SALES, SHOPS, LONGEST),
    views=(View("regions", "SELECT region, sum(cents)::BIGINT AS cents FROM sales GROUP BY region"),),
    endpoints=(Lookup(path="/shops/{shop}", table="shops", text="One shop."),),
)
