"""Which types a field may have, and which names an event type and its fields."""

from __future__ import annotations

from dataclasses import make_dataclass
from decimal import Decimal
from typing import Annotated, Any

import pyarrow as pa
import pytest

from refold.event_schemas import ContractError, Registry, event, schema_of, upcaster
from refold.event_schemas.decider import command, dataclass_codec
from refold.event_schemas.field_types import MAX_NAME_BYTES

ALLOWED = [
    *(pa.string(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float64(), pa.date32(), pa.uuid()),
    *(pa.timestamp("us"), pa.timestamp("us", tz="UTC")),
    *(pa.decimal128(1, 0), pa.decimal128(38, 0), pa.decimal128(38, 38)),
    *(pa.list_(pa.int8()), pa.struct([("a", pa.list_(pa.struct([("b", pa.uuid())])))])),
]

REFUSED = [
    (pa.float16(), "Use float"),
    (pa.float32(), "Use float"),
    (pa.decimal32(9, 2), "Use pa.decimal128"),
    (pa.decimal64(18, 2), "Use pa.decimal128"),
    (pa.decimal256(40, 2), "Use pa.decimal128"),
    (pa.decimal128(9, -2), "Use pa.decimal128"),
    (pa.decimal128(2, 4), "Use pa.decimal128"),
    (pa.large_string(), "Use str"),
    (pa.string_view(), "Use str"),
    (pa.binary(), "Base64"),
    (pa.binary(16), "Base64"),
    (pa.large_binary(), "Base64"),
    (pa.binary_view(), "Base64"),
    (pa.date64(), "Use date"),
    (pa.time32("s"), "time of day"),
    (pa.time64("us"), "time of day"),
    (pa.duration("us"), "microseconds"),
    (pa.month_day_nano_interval(), "Use str, int"),
    (pa.timestamp("s", tz="UTC"), "Use datetime"),
    (pa.timestamp("ms", tz="UTC"), "Use datetime"),
    (pa.timestamp("ns", tz="UTC"), "Use datetime"),
    (pa.timestamp("us", tz="Europe/Berlin"), "Use datetime"),
    (pa.dictionary(pa.int32(), pa.string()), "Use the type of its values"),
    (pa.struct([]), "at least one field"),
    (pa.map_(pa.string(), pa.int64()), "Use a list"),
    (pa.large_list(pa.int64()), "Use list"),
    (pa.list_(pa.int64(), 3), "Use list"),
    (pa.list_view(pa.int64()), "Use list"),
    (pa.null(), "with ``| None``"),
    (pa.json_(), "Use str, int"),
]


def declare(annotation: Any, *, field: str = "x", name: str | None = None) -> type:
    """Declare an event with one field."""
    return event(schema_version=1, name=name)(type("Seen", (), {"__annotations__": {field: annotation}}))


@pytest.mark.parametrize("dtype", ALLOWED, ids=str)
def test_a_type_that_every_way_keeps_is_declared(dtype: pa.DataType) -> None:
    """The tests of ``tests/values`` follow values of these types on each way in and out."""
    assert schema_of(declare(Annotated[Any, dtype])).field("x").type == dtype


@pytest.mark.parametrize(("dtype", "advice"), REFUSED, ids=lambda given: str(given))
def test_any_other_type_is_refused_when_it_is_declared(dtype: pa.DataType, advice: str) -> None:
    """At every depth, in an event, a command, a state and an old schema; the message names the field and a way out."""
    for nested in (dtype, pa.list_(dtype), pa.struct([("inner", pa.list_(dtype))])):
        with pytest.raises(ContractError, match=f"Event Seen, field x.*: the type .* cannot be declared.*{advice}"):
            declare(Annotated[Any, nested])
    made = make_dataclass("Seen", [("x", Annotated[Any, dtype])])
    with pytest.raises(ContractError, match="Command Seen, field x: "):
        command(made)
    with pytest.raises(ContractError, match="State Seen, field x: "):
        dataclass_codec(made)
    with pytest.raises(ContractError, match=r"upcaster keep \(from Seen v1\), field x: "):

        @upcaster("Seen", from_version=1, schema=pa.schema([("x", dtype)]), into=declare(str))
        def keep() -> str:
            return "SELECT * FROM event"


def test_a_decimal_may_have_at_most_38_digits() -> None:
    """Arrow has longer ones, which DuckDB has not."""
    assert declare(Annotated[Decimal, pa.decimal128(38, 2)])
    with pytest.raises(ContractError, match="at most 38"):
        declare(Annotated[Decimal, pa.decimal256(39, 2)])


def test_a_dataclass_that_holds_itself_is_refused() -> None:
    """Arrow has no type for it."""
    node = make_dataclass("Node", [("inner", "list[Node]")])
    globals()["Node"] = node
    node.__module__ = __name__
    with pytest.raises(ContractError, match="contains itself"):
        declare(node)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "a\x7f", "\ud800", "a\u2028b", ".", ".."])
def test_an_event_type_has_a_name_that_text_and_paths_can_hold(name: str) -> None:
    """Also the name of a retired event type, which an upcaster reads."""
    with pytest.raises(ContractError, match="the event type "):
        declare(str, name=name)
    with pytest.raises(ContractError, match="the event type "):

        @upcaster(name, from_version=1, schema=pa.schema([("x", pa.string())]), into=declare(str))
        def keep() -> str:
            return "SELECT * FROM event"


@pytest.mark.parametrize("name", ["a/b", "a b", "region=emea", "100%", "Größe", "é" * 33, "x" * MAX_NAME_BYTES])
def test_any_other_name_is_declared(name: str) -> None:
    """Paths hold it percent-encoded."""
    assert declare(str, name=name)


@pytest.mark.parametrize("name", ["x" * (MAX_NAME_BYTES + 1), "é" * 34])
def test_a_name_fits_in_a_segment_of_a_path(name: str) -> None:
    """A file system holds 255 bytes; a letter beyond ASCII takes six of them."""
    with pytest.raises(ContractError, match=f"the limit is {MAX_NAME_BYTES}"):
        declare(str, name=name)


def test_event_types_that_differ_in_case_are_refused() -> None:
    """Their segments would share a folder on a disk that ignores case. Letters beyond ASCII are percent-encoded."""
    with pytest.raises(ContractError, match="'paid' and 'Paid' differ only in case"):
        Registry(events=[declare(str, name="paid"), declare(str, name="Paid")])
    assert Registry(events=[declare(str, name="é"), declare(str, name="É")])


@pytest.mark.parametrize("names", [("Id", "id"), ("",), ("a\0",)])
def test_names_inside_a_struct_are_checked(names: tuple[str, ...]) -> None:
    """As DuckDB compares them: without case."""
    struct = pa.struct([(name, pa.int64()) for name in names])
    with pytest.raises(ContractError, match=r"Event Seen, field x: (two fields|the field name)"):
        declare(Annotated[Any, struct])
