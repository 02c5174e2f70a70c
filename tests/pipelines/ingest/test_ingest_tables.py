"""Parquet and CSV: typed columns without a detour through text, cells of text, and which values are refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from refold.event_schemas import UsageError
from refold.pipelines.ingest.ingest import ColumnMapping, ImportLimits
from refold.pipelines.ingest.mapping import OWN, ValueSource
from tests.pipelines.ingest.imports import TIME, payloads, read, row, write_parquet

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def envelope(count: int, event_type: str = "Described") -> dict[str, Any]:
    """Make the envelope's columns."""
    return {
        "stream_id": [f"p-{i % 3}" for i in range(count)],
        "event_type": [event_type] * count,
        "occurred_at": [NOON] * count,
        "event_id": [f"e{i}" for i in range(count)],
    }


def mapping(**changes: Any) -> ColumnMapping:
    """Change the mapping by the envelope's own names; columns of the envelope by their names."""
    own = {k: changes.pop(k) for k in list(changes) if k in OWN.envelope}
    return ColumnMapping(envelope={**OWN.envelope, **own}, **changes)


def test_typed_columns_become_typed_events(tmp_path: Path) -> None:
    """A wide table of several event types: each takes its own columns, lists and structs among them."""
    columns = envelope(4) | {
        "event_type": ["Described", "Sent", "Sent", "Lost"],
        "schema_version": [1, 2, 1, 1],
        "name": ["cup", None, None, None],
        "day": [date(2024, 1, 2), None, None, None],
        "lines": [[{"sku": "c", "quantity": 2}], None, None, None],
        "tags": [[], None, None, None],
        "parcel": [None, "a", "b", None],
        "weight": pa.array([None, 3, 4, None], pa.int32()),
        "price": pa.array([Decimal("1.25"), Decimal("2.50"), None, None], pa.decimal128(9, 2)),
        "currency": [None, "EUR", None, None],
    }
    found = read(tmp_path, write_parquet(tmp_path / "wide.parquet", columns))
    assert [(e["event_id"], e["event_type"], e["schema_version"]) for e in found.events] == [
        ("e0", "Described", 1),
        ("e1", "Sent", 2),
        ("e2", "Sent", 1),
        ("e3", "Lost", 1),
    ]
    described = {"name": "cup", "price": Decimal("1.25"), "day": date(2024, 1, 2), "tags": []}
    assert payloads(found) == [
        described | {"lines": [{"sku": "c", "quantity": 2}]},
        {"parcel": "a", "weight": 3, "price": Decimal("2.50"), "currency": "EUR"},
        {"parcel": "b", "weight": 4},
        {},
    ]
    assert found.events[0]["occurred_at"] == NOON


def test_a_payload_column_may_be_a_struct_or_text(tmp_path: Path) -> None:
    """A column named payload holds the fields, as a struct or as JSON text; text that does not fit is rejected."""
    struct = envelope(2) | {"payload": [{"name": "cup", "count": 1}, {"name": "pot", "count": None}]}
    text = envelope(2) | {"payload": ['{"name": "cup", "count": 1}', '{"name": 1}']}
    (tmp_path / "text").mkdir()
    typed = read(tmp_path, write_parquet(tmp_path / "struct.parquet", struct))
    parsed = read(tmp_path / "text", write_parquet(tmp_path / "text" / "text.parquet", text))
    assert payloads(typed) == [{"name": "cup", "count": 1}, {"name": "pot"}]
    assert payloads(parsed) == [{"name": "cup", "count": 1}]
    assert parsed.reasons == {2: "name: expected string, found 1"}


CASTS: list[tuple[str, pa.Array, list[str | None]]] = [
    ("count", pa.array([3.0, 3.5, None]), [None, "count: expected int64, found 3.5", None]),
    ("count", pa.array([1, 2**63, 0], pa.uint64()), [None, "count: expected int64, found 9223372036854775808", None]),
    ("count", pa.array(["7", " 7 ", "7.0"]), [None, None, None]),
    (
        "price",
        pa.array([19.99, 0.1 + 0.2, 1e17]),
        [
            None,
            "price: expected decimal128(18, 2), found 0.30000000000000004",
            "price: expected decimal128(18, 2), found 1e+17",
        ],
    ),
    (
        "price",
        pa.array([Decimal("1.250"), Decimal("1.255")], pa.decimal128(9, 3)),
        [
            None,
            "price: expected decimal128(18, 2), found 1.255",
        ],
    ),
    (
        "price",
        pa.array(["1.25", "1.255", "x"]),
        [
            None,
            "price: expected decimal128(18, 2), found '1.255'",
            "price: expected decimal128(18, 2), found 'x'",
        ],
    ),
    (
        "ratio",
        pa.array([1.5, float("nan"), float("inf")]),
        [
            None,
            "ratio: expected double, found nan",
            "ratio: expected double, found inf",
        ],
    ),
    ("ratio", pa.array(["1.5", "nan"]), [None, "ratio: expected double, found 'nan'"]),
    ("name", pa.array([7, 8]), [None, None]),
    ("gift", pa.array(["true", "maybe"]), [None, "gift: expected bool, found 'maybe'"]),
    (
        "day",
        pa.array(["2024-01-02", "2024-01-02 10:00:00"]),
        [
            None,
            "day: expected date32[day], found '2024-01-02 10:00:00' (a date is written as 2026-01-05; for others set "
            'format = "%d/%m/%Y" or the like in the mapping)',
        ],
    ),
    (
        "day",
        pa.array([datetime(2024, 1, 2), datetime(2024, 1, 2, 3)]),
        [
            None,
            "day: expected date32[day], found 2024-01-02 03:00:00",
        ],
    ),
    ("at", pa.array([datetime(2024, 1, 2, 3), None]), [None, None]),
    (
        "ref",
        pa.array(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "x"]),
        [
            None,
            "ref: expected extension<arrow.uuid>, found 'x' "
            "(a UUID is written as 12345678-1234-5678-1234-567812345678)",
        ],
    ),
    ("tags", pa.array([["a"], ["a", None]]), [None, "required field tags is null"]),
    (
        "lines",
        pa.array([[{"sku": "c", "quantity": 1}], [{"sku": "c", "quantity": None}]]),
        [
            None,
            "required field lines is null",
        ],
    ),
]


@pytest.mark.parametrize(("field", "values", "reasons"), CASTS, ids=[f"{f}-{v.type}" for f, v, _ in CASTS])
def test_a_column_is_cast_where_no_value_changes(
    tmp_path: Path, field: str, values: pa.Array, reasons: list[str | None]
) -> None:
    """A value of another type is accepted unless the cast changes the value."""
    columns = envelope(len(values)) | {"name": ["cup"] * len(values)} | {field: values}
    found = read(tmp_path, write_parquet(tmp_path / "cast.parquet", columns))
    assert found.reasons == {i + 1: reason for i, reason in enumerate(reasons) if reason}
    assert len(found.events) == reasons.count(None)


def test_values_arrive_cast(tmp_path: Path) -> None:
    """What was cast is of the contract's type, and times without a zone are of the mapping's."""
    columns = envelope(1) | {
        "name": pa.array([7]),
        "count": pa.array([3.0]),
        "price": pa.array([19.99]),
        "at": pa.array([datetime(2024, 7, 1, 12)]),
        "occurred_at": pa.array([datetime(2024, 1, 1, 12)]),
    }
    path = write_parquet(tmp_path / "cast.parquet", columns)
    found = read(tmp_path, path, mapping=mapping(zone="Europe/Berlin"))
    assert payloads(found) == [
        {"name": "7", "count": 3, "price": Decimal("19.99"), "at": datetime(2024, 7, 1, 10, tzinfo=UTC)}
    ]
    assert found.events[0]["occurred_at"] == datetime(2024, 1, 1, 11, tzinfo=UTC)


def test_nulls_in_required_columns_are_rejected(tmp_path: Path) -> None:
    """A row without a stream, a type, a time or a required field is rejected as JSON, with its row number."""
    columns = envelope(5) | {
        "stream_id": ["p", None, "p", "p", "p"],
        "event_type": ["Described", "Described", None, "Described", "Described"],
        "occurred_at": [NOON, NOON, NOON, None, NOON],
        "name": ["cup", "cup", "cup", "cup", None],
    }
    found = read(tmp_path, write_parquet(tmp_path / "nulls.parquet", columns))
    assert found.reasons == {
        2: "stream_id is missing (it comes from stream_id)",
        3: "event_type is missing (it comes from event_type)",
        4: "occurred_at is missing (it comes from occurred_at)",
        5: "required field name is null",
    }
    assert json.loads(found.rejects[0]["text"])["event_id"] == "e1"


def test_a_table_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    """A missing envelope column is an error at once, with the columns there are; a missing field is one of each row."""
    no_stream = {k: v for k, v in envelope(2).items() if k != "stream_id"} | {"name": ["cup", "pot"]}
    with pytest.raises(UsageError, match=r"no column 'stream_id'.* it has event_type, occurred_at, event_id, name"):
        read(tmp_path, write_parquet(tmp_path / "a.parquet", no_stream))
    found = read(tmp_path, write_parquet(tmp_path / "b.parquet", envelope(1)))
    assert found.reasons == {1: "required field name is missing: there is no column 'name'"}


@pytest.mark.parametrize(
    ("field", "values", "why"),
    [
        ("count", pa.array([True]), "its column 'count' is bool"),
        ("gift", pa.array([NOON]), "its column 'gift' is timestamp"),
        ("count", pa.array([[1]]), "its column 'count' is list"),
        ("tags", pa.array(["a,b"]), "its column 'tags' holds text"),
    ],
)
def test_a_column_that_can_never_fit_is_refused(tmp_path: Path, field: str, values: pa.Array, why: str) -> None:
    """The error appears once per column, not once per row."""
    columns = envelope(1) | {"name": ["cup"]} | {field: values}
    with pytest.raises(UsageError, match=why):
        read(tmp_path, write_parquet(tmp_path / "never.parquet", columns))


@pytest.mark.parametrize("limits", [ImportLimits(chunk_rows=7), ImportLimits(chunk_bytes=2000), ImportLimits()])
def test_row_groups_and_chunks_make_no_difference(tmp_path: Path, limits: ImportLimits) -> None:
    """Rows are read once and in order, for any row groups and chunks."""
    columns = envelope(100) | {"name": [None if i % 10 == 3 else f"n{i}" for i in range(100)]}
    path = write_parquet(tmp_path / "groups.parquet", columns, row_group_size=30)
    found = read(tmp_path, path, limits=limits)
    assert [e["event_id"] for e in found.events] == [f"e{i}" for i in range(100) if i % 10 != 3]
    assert [e["position"] for e in found.events] == list(range(1, 91))
    assert list(found.reasons) == [i + 1 for i in range(100) if i % 10 == 3]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "fake.parquet"
    path.write_text("no")
    with pytest.raises(UsageError, match=r"fake\.parquet is no readable Parquet file"):
        read(tmp_path, path)


def csv(*rows: str) -> str:
    """Write rows below the header that the tests use."""
    return "\n".join(["stream_id,event_type,occurred_at,name,count,price,day,gift", *rows]) + "\n"


def test_csv_cells_become_typed_fields(tmp_path: Path) -> None:
    """Quotes, newlines inside them, empty cells, a byte order mark and CRLF."""
    path = tmp_path / "h.csv"
    rows = [
        f"p-1,Described,{TIME},cup,3,1.25,2024-01-02,true",
        f'p-1,Described,{TIME},"a ""b"", c\nd",,,,',
        "",
        f"p-1,Described,{TIME},last,,,,",
    ]
    path.write_bytes(b"\xef\xbb\xbf" + csv(*rows).replace("\n", "\r\n").rstrip().encode())
    found = read(tmp_path, path)
    assert payloads(found) == [
        {"name": "cup", "count": 3, "price": Decimal("1.25"), "day": date(2024, 1, 2), "gift": True},
        {"name": 'a "b", c\r\nd'},
        {"name": "last"},
    ]


def test_bad_csv_rows_are_rejected_one_by_one(tmp_path: Path) -> None:
    """An unclosed quote affects no other row; lines are counted as an editor counts them."""
    good = f"p-1,Described,{TIME},cup,,,,"
    rows = [
        good,
        f'p-1,Described,{TIME},"never closed,,,,',
        good,
        "too,few",
        good + ",",
        f"p,Described,{TIME},x,7.5,,,",
    ]
    rows += [f'p-1,Described,{TIME},"two\nlines",x,,,', good]
    path = tmp_path / "h.csv"
    path.write_bytes(csv(*rows).encode() + b"\xff,,,,,,,\n")
    found = read(tmp_path, path)
    assert len(found.events) == 3
    assert found.reasons == {
        3: "this is no CSV: ',' expected after '\"'",
        5: "expected 8 cells, found 2",
        6: "expected 8 cells, found 9",
        7: "count: expected int64, found '7.5'",
        8: "count: expected int64, found 'x'",
        11: "this is no UTF-8",
    }
    assert found.rejects[4]["text"] == f'p-1,Described,{TIME},"two\nlines",x,,,'


def test_an_empty_cell_of_a_required_field(tmp_path: Path) -> None:
    """It is an empty text where a text is required, and no value elsewhere."""
    path = tmp_path / "h.csv"
    sent = "stream_id,event_type,occurred_at,schema_version,parcel,weight,price,currency\n"
    path.write_text(sent + f"p,Sent,{TIME},1,,3,,\np,Sent,{TIME},1,a,,,\n")
    found = read(tmp_path, path)
    assert payloads(found) == [{"parcel": "", "weight": 3}]
    assert found.reasons == {3: "required field weight is null"}


@pytest.mark.parametrize("limits", [ImportLimits(chunk_rows=7), ImportLimits(chunk_bytes=400), ImportLimits()])
def test_chunks_of_csv_make_no_difference(tmp_path: Path, limits: ImportLimits) -> None:
    """Rows are read once and in order, for any chunk size."""
    path = tmp_path / "h.csv"
    path.write_text(csv(*(f'p-{i % 3},Described,{TIME},"n\n{i}",,,,' for i in range(60))))
    assert [e["name"] for e in read(tmp_path, path, limits=limits).events] == [f"n\n{i}" for i in range(60)]


def test_other_delimiters_and_json_cells(tmp_path: Path) -> None:
    """Semicolons by the mapping, and a payload of JSON text in one cell."""
    path = tmp_path / "h.csv"
    payload = json.dumps({"name": "cup", "tags": ["a"]}).replace('"', '""')
    path.write_text(f'stream_id;event_type;occurred_at;payload\np;Described;{TIME};"{payload}"\n')
    assert payloads(read(tmp_path, path, mapping=mapping(delimiter=";"))) == [{"name": "cup", "tags": ["a"]}]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    """A duplicate column name is ambiguous, so it is an error."""
    path = tmp_path / "h.csv"
    path.write_text("stream_id,name,name\n")
    with pytest.raises(UsageError, match="names the column 'name' twice"):
        read(tmp_path, path)


def test_renamed_columns_templates_and_constants(tmp_path: Path) -> None:
    """A mapping reads a table under its own column names."""
    columns = {
        "order": [7, 8],
        "kind": ["parcel.sent", "parcel.sent"],
        "ms": [1_714_564_800_000, 1_714_564_800_001],
        "kilo": [3, 4],
    }
    columns_of_file = ColumnMapping(
        envelope={
            "stream_id": ValueSource(template="parcel-{order}"),
            "event_type": ValueSource(constant="Sent"),
            "schema_version": ValueSource(constant=1),
            "occurred_at": ValueSource(columns=("ms",), unit="ms"),
        },
        payload_columns={"Sent": {"weight": "kilo", "parcel": "order"}},
    )
    found = read(tmp_path, write_parquet(tmp_path / "f.parquet", columns), mapping=columns_of_file)
    assert payloads(found) == [{"parcel": "7", "weight": 3}, {"parcel": "8", "weight": 4}]
    assert [e["stream_id"] for e in found.events] == ["parcel-7", "parcel-8"]
    assert [e["occurred_at"].microsecond for e in found.events] == [0, 1000]


def test_an_event_without_an_id_gets_the_same_one_each_time(tmp_path: Path) -> None:
    """The id derives from the file's content and the row, for any chunk size."""
    columns = {k: v for k, v in envelope(10).items() if k != "event_id"} | {"name": ["cup"] * 10}
    path = write_parquet(tmp_path / "f.parquet", columns)
    (tmp_path / "again").mkdir()
    once, again = read(tmp_path, path), read(tmp_path / "again", path, limits=ImportLimits(chunk_rows=3))
    ids = [e["event_id"] for e in once.events]
    assert ids == [e["event_id"] for e in again.events]
    assert len(set(ids)) == 10
    assert row()["stream_id"] not in ids
