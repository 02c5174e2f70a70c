"""The depot's upcasters, and the meaning of each in Python."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from refold.event_schemas import RecordedEvent, merger, upcaster
from tests.properties.depot.contracts import (
    BUNDLED_V1,
    HALF_A_V1,
    HALF_A_V2,
    HALF_B_V1,
    LABELS_V1,
    NOTES_V1,
    NOTES_V2,
    OPENED_V1,
    OPENED_V2,
    POISON,
    SOLD_V1,
    TRIO_V1,
    TRIO_V2,
    Addressed,
    Labelled,
    Line,
    Opened,
    Packed,
    Sold,
)
from tests.properties.depot.twins import text_or
from tests.properties.reference import Step


@upcaster(Opened, from_version=1, schema=OPENED_V1)
def rename_owner() -> str:
    """Rename a field."""
    return "SELECT * EXCLUDE (owner_name), owner_name AS owner FROM event"


@upcaster(Opened, from_version=2, schema=OPENED_V2)
def split_owners(opened: RecordedEvent) -> list[dict[str, Any]]:
    """Retype a field, add one; split joint owners, drop an account without owners."""
    owner, day = opened.payload["owner"], opened.payload["day"]
    if owner == POISON:
        raise ValueError("nobody is called so")
    opened_on = date.fromisoformat(day) if day else None
    return [{"owner": o, "opened_on": opened_on, "vip": o.isupper()} for o in owner.split("+") if o]


@upcaster(Sold, from_version=1, schema=SOLD_V1)
def price_sold() -> str:
    """Turn cents into a decimal, add two optional fields; drop sales of nothing."""
    return """
        SELECT * EXCLUDE (cents), CAST(cents * 0.01 AS DECIMAL(18,2)) AS price, NULL AS ref, NULL AS sold_at
        FROM event
        WHERE quantity <> 0
    """


@upcaster(Sold, from_version=1, schema=SOLD_V1)
def reprice_sold() -> str:
    """Say, in code that is deployed later, that old prices were half a cent off, and keep sales of nothing."""
    return """
        SELECT * EXCLUDE (cents), CAST(cents * 0.01 + 0.01 AS DECIMAL(18,2)) AS price, NULL AS ref, NULL AS sold_at
        FROM event
    """


@upcaster("Bundled", from_version=1, schema=BUNDLED_V1, into=(Sold, Packed))
def unbundle(bundled: RecordedEvent) -> list[Any]:
    """Split into events of two types; drop an empty bundle."""
    sku, pieces = bundled.payload["sku"], bundled.payload["pieces"] or 0
    ref = UUID(int=pieces) if pieces % 2 else None
    sold = [Sold(sku=sku, quantity=i, price=None, ref=ref, sold_at=None) for i in range(1, pieces + 1)]
    packed = Packed(lines=[Line(sku=sku, quantity=pieces), Line(sku=None, quantity=1)], labels=[f"bundle of {pieces}"])
    return [*sold, packed, *sold[:1]] if pieces else []


@upcaster("Labels", from_version=1, schema=LABELS_V1, into=Labelled)
def unnest_labels() -> str:
    """Make several events of one in SQL."""
    return "SELECT unnest(labels) AS label FROM event"


@upcaster("Notes", from_version=1, schema=NOTES_V1)
def unnest_notes() -> str:
    """Make several events of one in SQL, each of which a Python upcaster converts further."""
    return "SELECT unnest(notes) AS note FROM event"


@upcaster("Notes", from_version=2, schema=NOTES_V2, into=Labelled)
def double_note(note: RecordedEvent) -> list[Labelled]:
    """Make two of each."""
    return [Labelled(label=f"{note.payload['note']}{end}") for end in ("", "!")]


@upcaster("Trio", from_version=1, schema=TRIO_V1)
def part_trio(trio: RecordedEvent) -> list[dict[str, Any]]:
    """First of three steps in Python, which splits."""
    return [{"part": p} for p in trio.payload["parts"]]


@upcaster("Trio", from_version=2, schema=TRIO_V2)
def pass_trio(trio: RecordedEvent) -> list[dict[str, Any]]:
    """Second of three steps."""
    return [{"part": trio.payload["part"]}]


@upcaster("Trio", from_version=3, schema=TRIO_V2, into=Labelled)
def end_trio(trio: RecordedEvent) -> list[Labelled]:
    """Last of three steps, which splits again."""
    return [Labelled(label=trio.payload["part"] + end) for end in "12"]


@upcaster("HalfA", from_version=1, schema=HALF_A_V1)
def name_half() -> str:
    """Lead to a merger, by way of SQL that drops events: a dropped one parts a run."""
    return "SELECT coalesce(street, '?') AS street FROM event WHERE street IS DISTINCT FROM 'nowhere'"


@merger([("HalfA", 2, HALF_A_V2), ("HalfB", 1, HALF_B_V1)], into=Addressed)
def join_halves(run: list[RecordedEvent]) -> list[Addressed]:
    """Join a run, and list its events."""
    words = [str(e.payload.get("street") or e.payload.get("city")) for e in run]
    if POISON in words:
        raise ValueError("there is no such place")
    joined = Addressed(trail="|".join(words), halves=len(run))
    return [joined, joined] if len(run) > 2 else [joined]


UPCASTERS = (
    rename_owner,
    split_owners,
    price_sold,
    unbundle,
    unnest_labels,
    unnest_notes,
    double_note,
    part_trio,
    pass_trio,
    end_trio,
    name_half,
    join_halves,
)


def _sold_twin(e: Any) -> list[dict[str, Any]]:
    price = None if e.cents is None else Decimal(e.cents) / 100
    sold = {"sku": e.sku, "quantity": e.quantity, "price": price, "ref": None, "sold_at": None}
    return [sold] if e.quantity != 0 else []


STEPS = (
    Step.one("Opened", 1, "Opened", 2, lambda e: [{"owner": e.owner_name, "day": e.day}]),
    Step.of(split_owners),
    Step.one("depot.Sold", 1, "depot.Sold", 2, _sold_twin),
    Step.of(unbundle),
    Step.one("Labels", 1, "Labelled", 1, lambda e: [{"label": x} for x in e.labels]),
    Step.one("Notes", 1, "Notes", 2, lambda e: [{"note": x} for x in e.notes]),
    Step.of(double_note),
    Step.of(part_trio),
    Step.of(pass_trio),
    Step.of(end_trio),
    Step.one("HalfA", 1, "HalfA", 2, lambda e: [] if e.street == "nowhere" else [{"street": text_or(e.street, "?")}]),
    Step.of(join_halves),
)
"""What the upcasters mean, in Python."""


def _sold_anew_twin(e: Any) -> list[dict[str, Any]]:
    price = None if e.cents is None else Decimal(e.cents + 1) / 100
    return [{"sku": e.sku, "quantity": e.quantity, "price": price, "ref": None, "sold_at": None}]


LATER_UPCASTERS = tuple(reprice_sold if step is price_sold else step for step in UPCASTERS)
LATER_STEPS = tuple(
    Step.one("depot.Sold", 1, "depot.Sold", 2, _sold_anew_twin) if step.sources == (("depot.Sold", 1),) else step
    for step in STEPS
)
"""The same, but for one upcaster that was changed later."""
