"""Each upcaster of the order domain: the stored event, and the result."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from refold.event_schemas import PayloadError, RecordedEvent
from refold.event_schemas.orders import Address, ShippingAddressUpdated, StockAdjusted
from refold.event_schemas.orders.upcasters import join_address, split_move
from refold.warehouse.declarations.upcaster_sql import event_relation_schema
from refold.warehouse.engine.connections import connect
from refold.warehouse.orders import ORDERS

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def recorded(event_type: str, stream_version: int = 1, **payload: Any) -> RecordedEvent:
    """Return an event of schema version 1 as it is stored."""
    return RecordedEvent(
        position=stream_version,
        commit_number=1,
        stream_id="order-1",
        stream_version=stream_version,
        event_id=f"e{stream_version}",
        event_type=event_type,
        schema_version=1,
        occurred_at=NOON,
        recorded_at=NOON,
        correlation_id=None,
        causation_id=None,
        payload=payload,
    )


def step(event_type: str, schema_version: int, **payload: Any) -> dict[str, Any]:
    """Run one compiled SQL upcaster on one stored event, and return the resulting payload."""
    envelope = recorded(event_type)
    row = {f: getattr(envelope, f) for f in RecordedEvent.__slots__} | {"_ordinal": 0} | payload
    schema = event_relation_schema(ORDERS.registry.schema(event_type, schema_version))
    with connect() as connection:
        connection.register("event", pa.Table.from_pylist([row], schema))
        sql = ORDERS.upcaster_sql[event_type, schema_version]
        [after] = connection.sql(sql).to_arrow_table().to_pylist()
    return {name: value for name, value in after.items() if name not in row or name in payload}


def test_an_order_placed_of_version_1_was_in_euros() -> None:
    """Version 2 added the currency and dropped the note."""
    after = step("OrderPlaced", 1, order_id="order-1", customer="c7", deliver_on="2024-05-04", note="ring twice")
    assert after == {"order_id": "order-1", "customer": "c7", "deliver_on": "2024-05-04", "currency": "EUR"}


@pytest.mark.parametrize(("text", "day"), [("2024-05-04", date(2024, 5, 4)), ("", None)])
def test_version_3_renamed_customer_and_made_deliver_on_a_date(text: str, day: date | None) -> None:
    """An empty text meant that the customer requested no day."""
    after = step("OrderPlaced", 2, order_id="order-1", customer="c7", deliver_on=text, currency="SEK")
    assert after == {"order_id": "order-1", "customer_id": "c7", "currency": "SEK", "deliver_on": day}


def test_a_day_that_is_none_is_an_error() -> None:
    """Only the empty text means that no day was requested."""
    with pytest.raises(duckdb.ConversionException, match="tomorrow"):
        step("OrderPlaced", 2, order_id="order-1", customer="c7", deliver_on="tomorrow", currency="SEK")


@pytest.mark.parametrize(
    ("cents", "price"), [(1999, "19.99"), (5, "0.05"), (9_007_199_254_740_993, "90071992547409.93")]
)
def test_cents_become_a_decimal_exactly(cents: int, price: str) -> None:
    """The last case has no exact double."""
    after = step("ItemAdded", 1, sku="cup", quantity=2, price_cents=cents)
    assert after == {"sku": "cup", "quantity": 2, "unit_price": Decimal(price)}


def test_order_dispatched_became_order_shipped() -> None:
    """The retired type named one article, the new one lists them."""
    after = step("OrderDispatched", 1, carrier="DHL", sku="cup", quantity=2)
    assert after == {"carrier": "DHL", "tracking_code": None, "items": [{"sku": "cup", "quantity": 2}]}


def test_stock_moved_is_split_into_two_adjustments() -> None:
    """A transfer removes pieces from one article and adds them to the other."""
    moved = recorded("StockMoved", from_sku="cup-12", to_sku="cup", quantity=3)
    assert split_move.apply(moved) == [
        StockAdjusted(sku="cup-12", quantity=-3, reason="moved to cup"),
        StockAdjusted(sku="cup", quantity=3, reason="moved from cup-12"),
    ]


def test_a_move_of_nothing_is_dropped() -> None:
    """An upcaster that returns no event drops its input."""
    assert split_move.apply(recorded("StockMoved", from_sku="cup-12", to_sku="cup", quantity=0)) == []


def test_street_and_city_are_joined() -> None:
    """Of a run that changes the address twice, the last halves count."""
    run = [
        recorded("StreetChanged", 1, street="1 Old Lane"),
        recorded("CityChanged", 2, city="Lund", postal_code=None),
        recorded("CityChanged", 3, city="Malmö", postal_code="211 18"),
        recorded("StreetChanged", 4, street="2 New Road"),
    ]
    address = Address(street="2 New Road", city="Malmö", postal_code="211 18")
    assert join_address.apply(run) == [ShippingAddressUpdated(address=address)]


def test_half_an_address_is_an_error() -> None:
    """The message says which half is missing, and where."""
    with pytest.raises(PayloadError, match=r"order-1, commit 1: CityChanged is missing"):
        join_address.apply([recorded("StreetChanged", street="1 Old Lane")])
