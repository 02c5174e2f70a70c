"""Personal fields in contracts: what can be marked, what the log stores, and what is refused."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, Personal, Registry, SubjectErased, event, schema_of, upcaster
from refold.event_schemas.compatibility import compare
from refold.event_schemas.lock import lock_of, read_lock, write_lock
from refold.event_schemas.personal import personal_fields, stored_schema

MARK = Personal(subject="customer_id")


@dataclass(frozen=True)
class Home:
    """An address with a mark inside."""

    street: Annotated[str, MARK]


@event(schema_version=1)
class Registered:
    """Every kind of field that can be personal."""

    customer_id: uuid.UUID
    name: Annotated[str, MARK]
    email: Annotated[str | None, MARK]
    born: Annotated[date, MARK] | None
    visits: Annotated[int, Personal(subject="customer_id", erased=0)]
    spent: Annotated[Decimal, pa.decimal128(9, 2), Personal(subject="customer_id", erased=Decimal(0))]


@event(schema_version=1)
class Left:
    """An event without personal data."""

    customer_id: str


def test_the_log_stores_text_and_readers_see_the_declared_types() -> None:
    """Types and optional fields are as declared; what is stored is text; the default of erased text is visible."""
    schema = schema_of(Registered)
    assert schema.field("born").type == pa.date32()
    assert schema.field("email").nullable
    stored = stored_schema(schema)
    assert {f.name: (str(f.type), f.nullable) for f in stored if f.name != "customer_id"} == {
        "name": ("string", False),
        "email": ("string", True),
        "born": ("string", True),
        "visits": ("string", False),
        "spent": ("string", False),
    }
    assert {f.name: f.erased for f in personal_fields(schema)} == {
        "name": "[erased]",
        "email": None,
        "born": None,
        "visits": 0,
        "spent": "0.00",
    }


def test_a_contract_without_marks_is_stored_as_it_is() -> None:
    """The schema is the same object, and the domain has no event of erasures."""
    registry = Registry(events=[Left])
    assert registry.stored_schema("Left", 1) is registry.schema("Left", 1)
    assert registry.classes == {"Left": Left}
    assert not registry.reads_personal(["Left"])


def test_a_domain_with_marks_knows_erasures() -> None:
    """The event of an erasure is declared with the first personal field, also with one of an older version."""
    mark = MARK.mark(pa.field("name", pa.string(), nullable=False))

    @upcaster(
        "Joined",
        from_version=1,
        schema=pa.schema([pa.field("customer_id", pa.string(), nullable=False), mark]),
        into=Left,
    )
    def without_name() -> str:
        return "SELECT customer_id FROM event"

    registry = Registry(events=[Left], upcasters=[without_name])
    assert registry.classes["refold.subject_erased"] is SubjectErased
    assert registry.personal_keys == {("Joined", 1)}
    assert registry.reads_personal(["Left"])
    assert registry.subject_fields == ("customer_id",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": Annotated[str, MARK]}, "its subject 'customer_id' is no field of the event"),
        ({"customer_id": Annotated[str, MARK]}, "is encrypted itself"),
        ({"customer_id": str | None, "name": Annotated[str, MARK]}, "expected a required str, int or UUID"),
        ({"customer_id": float, "name": Annotated[str, MARK]}, "expected a required str, int or UUID"),
        ({"customer_id": str, "visits": Annotated[int, MARK]}, "a required field needs a value for erased subjects"),
        (
            {"customer_id": str, "visits": Annotated[int, Personal(subject="customer_id", erased="none")]},
            "expected int64, found 'none'",
        ),
        ({"customer_id": str, "names": Annotated[list[str], MARK] | None}, "cannot be encrypted"),
        ({"customer_id": str, "names": list[Annotated[str, MARK]]}, "marks a part of a nested value"),
        ({"customer_id": str, "home": Home}, "marks a part of a nested value"),
        ({"customer_id": str, "home": Annotated[Home, MARK] | None}, "Personal marks|cannot be encrypted"),
    ],
)
def test_what_cannot_be_encrypted_is_refused(fields: dict[str, Any], message: str) -> None:
    """Each refusal says what to write instead."""
    cls = type("Declared", (), {"__annotations__": fields, "__module__": __name__})
    with pytest.raises(ContractError, match=message):
        event(schema_version=1)(cls)


def test_a_mark_is_part_of_the_lock_file() -> None:
    """Marking a field of a stored version is a change that needs a new version."""

    @event(schema_version=1, name="Registered")
    class Unmarked:
        customer_id: uuid.UUID
        name: str
        email: str | None
        born: date | None
        visits: int
        spent: Annotated[Decimal, pa.decimal128(9, 2)]

    before, after = (lock_of(Registry(events=[c]), "shop") for c in (Unmarked, Registered))
    assert read_lock(write_lock(after), where="lock") == after
    assert "subject" not in write_lock(before)
    [found] = [t for t in compare(before, after).event_types if t.event_type == "Registered"]
    assert {r.what for r in found.reasons} == {"unversioned change"}
    assert "v1 name" in {r.where for r in found.reasons}
