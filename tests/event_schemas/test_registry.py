"""The registry: consistency rules over a domain's contracts, and lookups."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import (
    ContractError,
    Registry,
    UnknownEventTypeError,
    UnknownSchemaVersionError,
    Upcaster,
    event,
    merger,
    schema_of,
    upcaster,
)

OLD = pa.schema([pa.field("id", pa.string(), nullable=False)])


@event(schema_version=3)
class Sold:
    """An event type with a history."""

    sku: str


@event(schema_version=1)
class Returned:
    """An event type that never changed."""

    sku: str


@event(schema_version=1, name="Sold")
class SoldAgain:
    """Another class of the same event type."""

    sku: str


def step(event_type: type | str, from_version: int, **options: Any) -> Upcaster:
    """Make an upcaster in SQL."""

    @upcaster(event_type, from_version=from_version, schema=OLD, **options)
    def rename() -> str:
        return "SELECT id AS sku FROM event"

    return rename


TO_2, TO_3, FROM_BOUGHT = step(Sold, 1), step(Sold, 2), step("Bought", 1, into=Sold)
FROM_HALVES = merger([("Half", 1, OLD), ("OtherHalf", 1, OLD)], into=Returned)(lambda run: run)
REGISTRY = Registry(events=[Sold, Returned], upcasters=[TO_3, FROM_HALVES, TO_2, FROM_BOUGHT])


def test_every_stored_schema_is_listed() -> None:
    """Old versions, retired types and the inputs of a merger are schemas that the log may contain."""
    assert REGISTRY.schema_keys == (
        *(("Bought", 1), ("Half", 1), ("OtherHalf", 1), ("Returned", 1)),
        *(("Sold", 1), ("Sold", 2), ("Sold", 3)),
    )
    assert REGISTRY.classes == {"Sold": Sold, "Returned": Returned}
    assert REGISTRY.upcasters == (FROM_BOUGHT, FROM_HALVES, TO_2, TO_3)


def test_what_is_known_of_a_schema() -> None:
    """A schema has its fields, whether it is declared, and the upcaster that reads it."""
    assert REGISTRY.schema("Sold", 3) == schema_of(Sold)
    assert REGISTRY.schema("Sold", 1) == OLD
    assert REGISTRY.knows(("Bought", 1))
    assert not REGISTRY.knows(("Bought", 2))
    assert REGISTRY.upcaster(("Sold", 2)) is TO_3
    assert REGISTRY.upcaster(("Sold", 3)) is None


def test_the_newest_version_of_an_event_type() -> None:
    """A retired type has none."""
    assert REGISTRY.newest("Sold") == ("Sold", 3)
    assert REGISTRY.newest("Bought") is None


def test_the_sources_of_an_event_type() -> None:
    """All steps are followed backwards; other event types are left out."""
    assert REGISTRY.sources("Sold") == (("Bought", 1), ("Sold", 1), ("Sold", 2), ("Sold", 3))
    assert REGISTRY.sources("Returned") == (("Half", 1), ("OtherHalf", 1), ("Returned", 1))
    assert REGISTRY.sources("Bought") == ()


def test_an_unknown_event_type_is_an_error() -> None:
    """The message lists the known names."""
    with pytest.raises(UnknownEventTypeError, match=r"Unknown event type 'Lost'\. .*: Bought, Half, Other"):
        REGISTRY.schema("Lost", 1)


def test_an_unknown_schema_version_is_an_error() -> None:
    """For an event of newer code, the message lists the known schema versions."""
    with pytest.raises(UnknownSchemaVersionError, match=r"version 4 of event type 'Sold'; known: \[1, 2, 3\]"):
        REGISTRY.schema("Sold", 4)


@pytest.mark.parametrize(
    ("events", "upcasters", "message"),
    [
        ([Sold], [TO_3], "Sold is at schema version 3, but no upcaster reads schema version 1"),
        ([Sold, SoldAgain], [TO_2, TO_3], "Sold is declared twice"),
        ([str], [], "is not an event. Decorate the class"),
        ([Sold], [TO_2, TO_3, step(Sold, 1)], "read the same schema version"),
        ([Sold], [TO_2, TO_3, step(Sold, 3)], "reads schema version 3 of Sold, whose class declares version 3"),
        ([Sold], [TO_2, TO_3, step("Bought", 1)], "Bought has no class. Name the event class that it becomes"),
        ([Sold], [TO_2, TO_3, step("Bought", 1, into=Returned)], "yields Returned, which is not declared"),
    ],
)
def test_contracts_that_contradict_each_other_are_refused(
    events: list[type], upcasters: list[Upcaster], message: str
) -> None:
    """A gap or a contradiction would lose stored events, so it is an error when the domain is made."""
    with pytest.raises(ContractError, match=message):
        Registry(events=events, upcasters=upcasters)


def test_a_retired_type_may_take_several_steps() -> None:
    """Only the last step of a retired type needs ``into=``."""
    registry = Registry(events=[Returned], upcasters=[step("Bought", 1), step("Bought", 2, into=Returned)])
    assert registry.sources("Returned") == (("Bought", 1), ("Bought", 2), ("Returned", 1))
