"""Upcasters: the three forms, and which declarations are rejected."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, Upcaster, event, merger, upcaster
from refold.event_schemas.upcasting import Form

OLD = pa.schema([pa.field("id", pa.string(), nullable=False)])


@event(schema_version=2)
class Sold:
    """The newest version."""

    sku: str


@event(schema_version=1)
class Returned:
    """Another event type."""

    sku: str


def test_a_function_without_arguments_is_sql() -> None:
    """An SQL upcaster converts to the next version of its own type."""

    @upcaster(Sold, from_version=1, schema=OLD)
    def rename() -> str:
        return "SELECT id AS sku FROM event"

    assert (rename.form, rename.targets, rename.into) == (Form.SQL, ("Sold",), ())
    assert rename.sql() == "SELECT id AS sku FROM event"
    assert [source.key for source in rename.sources] == [("Sold", 1)]
    assert rename.name == "upcaster rename (from Sold v1)"


def test_a_function_of_one_event_is_python() -> None:
    """It may yield several event types; each may be given by its class."""

    @upcaster("Swapped", from_version=1, schema=OLD, into=[Sold, Returned])
    def split(swapped: Any) -> list[Any]:
        return [Sold(sku=swapped), Returned(sku=swapped)]

    assert (split.form, split.targets) == (Form.PYTHON, ("Sold", "Returned"))
    assert split.apply("cup") == [Sold(sku="cup"), Returned(sku="cup")]


def test_a_merger_reads_several_schemas() -> None:
    """Inputs are given by class or by type name, schema version and schema."""

    @merger([("Half", 1, OLD), (Sold, 1, OLD)], into=Sold)
    def join(run: list[Any]) -> tuple[Any, ...]:
        return tuple(run)

    assert join.form is Form.MERGE
    assert [source.key for source in join.sources] == [("Half", 1), ("Sold", 1)]
    assert join.name == "upcaster join (from Half v1, Sold v1)"
    assert join.apply([1, 2]) == (1, 2)


@pytest.mark.parametrize("result", [None, "text", iter([])], ids=["None", "text", "generator"])
def test_an_upcaster_returns_a_list(result: Any) -> None:
    """A forgotten return is an error that names the upcaster, and drops no event."""

    @upcaster(Sold, from_version=1, schema=OLD)
    def forget(_: Any) -> Any:
        return result

    with pytest.raises(ContractError, match=r"upcaster forget \(from Sold v1\) returned .*; expected a list of events"):
        forget.apply(None)


def python(**options: Any) -> Upcaster:
    """Declare an upcaster in Python."""
    declaration = {"event_type": Sold, "from_version": 1, "schema": OLD, **options}
    return upcaster(declaration.pop("event_type"), **declaration)(lambda event: [event])


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: python(from_version=0), "the schema version is 0; versions start at 1"),
        (lambda: python(into=str), "into=<class 'str'> is not an event class"),
        (lambda: python(event_type=str), "is not an event. Decorate the class"),
        (lambda: python(schema=pa.schema([("position", pa.int64())])), "the field name 'position' is reserved"),
        (
            lambda: upcaster(Sold, from_version=1, schema=OLD)(lambda one, other: []),
            "takes 2 arguments; expected none .* or one",
        ),
        (
            lambda: upcaster(Sold, from_version=1, schema=OLD, into=[Sold, Returned])(lambda: ""),
            "SQL yields one event type",
        ),
        (lambda: merger([], into=Sold)(lambda run: run), "there are no sources"),
        (lambda: merger([("Half", 1, OLD)], into=())(lambda run: run), "a merger needs into="),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(declare: Any, message: str) -> None:
    """The error says what is wrong when the upcaster is declared, not when it first runs."""
    with pytest.raises(ContractError, match=message):
        declare()
