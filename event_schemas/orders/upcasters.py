"""The older schemas of the order domain's events, and the upcasters that convert them to the newest."""

from __future__ import annotations

import pyarrow as pa

from refold.event_schemas.envelope import RecordedEvent
from refold.event_schemas.errors import PayloadError
from refold.event_schemas.orders.events import (
    Address,
    ItemAdded,
    OrderPlaced,
    OrderShipped,
    ShippingAddressUpdated,
    StockAdjusted,
)
from refold.event_schemas.upcasting import Upcaster, merger, upcaster


def _required(*fields: tuple[str, pa.DataType]) -> list[pa.Field]:
    return [pa.field(name, dtype, nullable=False) for name, dtype in fields]


ORDER_PLACED_V1 = pa.schema(
    [
        *_required(("order_id", pa.string()), ("customer", pa.string()), ("deliver_on", pa.string())),
        pa.field("note", pa.string()),
    ]
)

ORDER_PLACED_V2 = pa.schema(
    _required(
        ("order_id", pa.string()),
        ("customer", pa.string()),
        ("deliver_on", pa.string()),
        ("currency", pa.string()),
    )
)

ITEM_ADDED_V1 = pa.schema(_required(("sku", pa.string()), ("quantity", pa.int64()), ("price_cents", pa.int64())))

ORDER_DISPATCHED_V1 = pa.schema(_required(("carrier", pa.string()), ("sku", pa.string()), ("quantity", pa.int64())))

STOCK_MOVED_V1 = pa.schema(_required(("from_sku", pa.string()), ("to_sku", pa.string()), ("quantity", pa.int64())))

STREET_CHANGED_V1 = pa.schema(_required(("street", pa.string())))

CITY_CHANGED_V1 = pa.schema([*_required(("city", pa.string())), pa.field("postal_code", pa.string())])


@upcaster(OrderPlaced, from_version=1, schema=ORDER_PLACED_V1)
def add_currency() -> str:
    """Add the currency: the shop sold in euros only. Drop the note, which may no longer be read."""
    return "SELECT * EXCLUDE (note), 'EUR' AS currency FROM event"


@upcaster(OrderPlaced, from_version=2, schema=ORDER_PLACED_V2)
def name_customer_id() -> str:
    """Rename customer, and convert the text to a date; '' meant that no day was asked for."""
    return """
        SELECT
            * EXCLUDE (customer, deliver_on),
            customer AS customer_id,
            CAST(nullif(deliver_on, '') AS DATE) AS deliver_on
        FROM event
    """


@upcaster(ItemAdded, from_version=1, schema=ITEM_ADDED_V1)
def price_in_units() -> str:
    """Convert cents to a decimal. DuckDB reads 0.01 as a decimal; a division would pass through a double."""
    return "SELECT * EXCLUDE (price_cents), price_cents * 0.01 AS unit_price FROM event"


@upcaster("OrderDispatched", from_version=1, schema=ORDER_DISPATCHED_V1, into=OrderShipped)
def dispatched_is_shipped() -> str:
    """Rename the event type. A parcel held one article, and had no tracking code."""
    return "SELECT carrier, NULL AS tracking_code, [{'sku': sku, 'quantity': quantity}] AS items FROM event"


@upcaster("StockMoved", from_version=1, schema=STOCK_MOVED_V1, into=StockAdjusted)
def split_move(moved: RecordedEvent) -> list[StockAdjusted]:
    """Split a move between two articles (repacked, relabelled) into two events; drop a move of nothing."""
    source, target, quantity = moved.payload["from_sku"], moved.payload["to_sku"], moved.payload["quantity"]
    if quantity == 0:
        return []
    return [
        StockAdjusted(sku=source, quantity=-quantity, reason=f"moved to {target}"),
        StockAdjusted(sku=target, quantity=quantity, reason=f"moved from {source}"),
    ]


@merger(
    [("StreetChanged", 1, STREET_CHANGED_V1), ("CityChanged", 1, CITY_CHANGED_V1)],
    into=ShippingAddressUpdated,
)
def join_address(changes: list[RecordedEvent]) -> list[ShippingAddressUpdated]:
    """Join the two halves of an address, which the old form always wrote together.

    Raises:
        PayloadError: one half is missing; an invented one would misdirect parcels.
    """
    halves = {change.event_type: change.payload for change in changes}
    if missing := {"StreetChanged", "CityChanged"} - set(halves):
        raise PayloadError(
            f"Stream {changes[0].stream_id}, commit {changes[0].commit_number}: {min(missing)} is missing; expected "
            "StreetChanged and CityChanged together, in one commit."
        )
    street, city = halves["StreetChanged"], halves["CityChanged"]
    address = Address(street=street["street"], city=city["city"], postal_code=city["postal_code"])
    return [ShippingAddressUpdated(address=address)]


UPCASTERS: tuple[Upcaster, ...] = (
    add_currency,
    name_customer_id,
    price_in_units,
    dispatched_is_shipped,
    split_move,
    join_address,
)
"""Every upcaster of the domain."""
