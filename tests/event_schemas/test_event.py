"""``@event``: which annotations become which Arrow types, and which declarations are rejected."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, event, event_type_of, is_event, schema_of, schema_version_of
from refold.event_schemas.envelope import ENVELOPE, UTC_MICROSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A nested value."""

    sku: str
    note: str | None


@event(schema_version=2, name="OrderWasPlaced")
class OrderPlaced:
    """A field of every kind."""

    text: str
    whole: int
    number: float
    flag: bool
    day: date
    at: datetime
    ref: UUID
    price: Annotated[Decimal, pa.decimal128(18, 2)]
    small: Annotated[int, pa.int16()]
    plain: Annotated[int, "no Arrow type among these"]
    optional: str | None
    items: list[Item]
    first: Item
    tags: list[str | None]


ITEM = pa.struct([pa.field("sku", pa.string(), nullable=False), pa.field("note", pa.string())])


@pytest.mark.parametrize(
    ("name", "dtype", "nullable"),
    [
        ("text", pa.string(), False),
        ("whole", pa.int64(), False),
        ("number", pa.float64(), False),
        ("flag", pa.bool_(), False),
        ("day", pa.date32(), False),
        ("at", UTC_MICROSECONDS, False),
        ("ref", pa.uuid(), False),
        ("price", pa.decimal128(18, 2), False),
        ("small", pa.int16(), False),
        ("plain", pa.int64(), False),
        ("optional", pa.string(), True),
        ("items", pa.list_(pa.field("element", ITEM, nullable=False)), False),
        ("first", ITEM, False),
        ("tags", pa.list_(pa.field("element", pa.string())), False),
    ],
)
def test_an_annotation_becomes_an_arrow_type(name: str, dtype: pa.DataType, nullable: bool) -> None:
    """Only ``| None`` makes a field optional, at any depth."""
    field = schema_of(OrderPlaced).field(name)
    assert (field.type, field.nullable) == (dtype, nullable)


def test_the_contract_is_read_back() -> None:
    """The class knows its event type, its schema version, and its fields in declared order."""
    assert is_event(OrderPlaced)
    assert (event_type_of(OrderPlaced), schema_version_of(OrderPlaced)) == ("OrderWasPlaced", 2)
    assert schema_of(OrderPlaced).names[:3] == ["text", "whole", "number"]


def test_the_class_name_is_the_default_event_type() -> None:
    """``name=`` is needed only if the class name differs from the event type."""

    @event(schema_version=1)
    class DoorOpened:
        door: str

    assert event_type_of(DoorOpened) == "DoorOpened"


def test_an_event_is_a_frozen_slotted_dataclass_with_keywords() -> None:
    """Events are values: equal by their fields, and immutable."""

    @event(schema_version=1)
    class DoorOpened:
        door: str

    opened: Any = DoorOpened(door="front")
    assert is_dataclass(opened)
    assert opened == DoorOpened(door="front")
    assert not hasattr(opened, "__dict__")
    with pytest.raises(FrozenInstanceError):
        opened.door = "back"  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        DoorOpened("front")  # type: ignore[call-arg]


@pytest.mark.parametrize("schema_version", [0, -1])
def test_versions_start_at_1(schema_version: int) -> None:
    """The error names the event type and the version."""
    with pytest.raises(ContractError, match=f"Event DoorOpened: schema_version is {schema_version}"):

        @event(schema_version=schema_version)
        class DoorOpened:
            door: str


@pytest.mark.parametrize("annotation", [Decimal, dict, str | int, set[str], bytes], ids=str)
def test_an_annotation_without_an_arrow_type_is_refused(annotation: Any) -> None:
    """The error names event, field and annotation; for a Decimal it says how to write one."""
    cls = type("DoorOpened", (), {"__annotations__": {"door": annotation}})
    with pytest.raises(ContractError, match=r"Event DoorOpened, field door: .* has no Arrow type") as caught:
        event(schema_version=1)(cls)
    assert ("decimal128" in str(caught.value)) == (annotation is Decimal)


@pytest.mark.parametrize("name", [*ENVELOPE.names, "_at", "Position"])
def test_reserved_field_names_are_refused(name: str) -> None:
    """A field must not hide a column of the envelope or of refold; names are case-insensitive."""
    cls = type("DoorOpened", (), {"__annotations__": {name: str}})
    with pytest.raises(ContractError, match=f"the field name '{name}' is reserved.*payload_columns"):
        event(schema_version=1)(cls)


def test_field_names_that_differ_in_case_are_refused() -> None:
    """Field names that differ only in case are rejected: SQL cannot distinguish them."""
    cls = type("DoorOpened", (), {"__annotations__": {"door": str, "Door": str}})
    with pytest.raises(ContractError, match="two fields are named 'Door'"):
        event(schema_version=1)(cls)


@pytest.mark.parametrize("read", [event_type_of, schema_version_of, schema_of])
def test_other_classes_have_no_contract(read: Any) -> None:
    """The error shows how to declare an event."""
    assert not is_event(Item)
    assert not is_event(OrderPlaced.__doc__)
    with pytest.raises(ContractError, match="Decorate the class with @event"):
        read(Item)
