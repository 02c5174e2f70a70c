"""One rule for each type: a value has one meaning, or one refusal, in every format and in every shape of payload."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from refold.pipelines.ingest.ingest import ColumnMapping
from refold.pipelines.ingest.mapping import FLAT, OWN, ValueSource
from tests.pipelines.ingest.imports import TIME, Read, lines, payloads, read, row, write_parquet

ENVELOPE = {"stream_id": "p", "event_type": "Described", "occurred_at": TIME}

Write = Callable[[Path, dict[str, Any]], tuple[Path, dict[str, Any]]]


def flat_json(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A document whose keys are the fields."""
    return _text(folder / "h.jsonl", lines({**ENVELOPE, "name": "x", **values})), {"payload": FLAT}


def nested_json(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A document with the payload as an object."""
    return _text(folder / "h.jsonl", lines({**ENVELOPE, "payload": {"name": "x", **values}})), {}


def json_in_text(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A document with the payload as a string."""
    return _text(folder / "h.jsonl", lines({**ENVELOPE, "payload": json.dumps({"name": "x", **values})})), {}


def exact_json(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A document that only the reader of single documents reads: an element of a list is null."""
    payload = {"name": "x", **values, "lines": [{"sku": "a", "quantity": 1.0}]}
    return _text(folder / "h.jsonl", lines({**ENVELOPE, "payload": payload})), {}


def csv_file(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Cells of text."""
    path = folder / "h.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*ENVELOPE, "name", *values])
        writer.writerow([*ENVELOPE.values(), "x", *values.values()])
    return path, {}


def parquet_text(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Columns of text."""
    columns = {name: [str(value)] for name, value in {**ENVELOPE, "name": "x", **values}.items()}
    return write_parquet(folder / "h.parquet", columns), {}


def parquet_struct(folder: Path, values: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A column of structs of text."""
    columns: dict[str, Any] = {name: [value] for name, value in ENVELOPE.items()}
    return write_parquet(folder / "h.parquet", columns | {"payload": [{"name": "x", **values}]}), {}


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


WAYS: tuple[Write, ...] = (flat_json, nested_json, json_in_text, exact_json, csv_file, parquet_text, parquet_struct)


def outcome(folder: Path, write: Write, values: dict[str, Any], settings: Mapping[str, Any]) -> Any:
    """Return the value of the only field that a row gives, or the reason why it was rejected."""
    folder.mkdir()
    path, options = write(folder, values)
    found: Read = read(folder, path, mapping=ColumnMapping(envelope=OWN.envelope, **{**options, **settings}))
    (field,) = values
    return found.reasons[next(iter(found.reasons))] if found.reasons else payloads(found)[0].get(field)


NEW_YORK = {"zone": "America/New_York"}
SAMOA = {"zone": "Pacific/Apia"}
COMMA = {"decimal": ",", "thousands": "."}
REFUSED = object()

TEXTS: list[tuple[str, str, Mapping[str, Any], Any]] = [
    ("count", "12", {}, 12),
    ("count", " 12 ", {}, 12),
    ("count", "+12", {}, 12),
    ("count", "0.0", {}, 0),
    ("count", "-7.000", {}, -7),
    ("count", "1e3", {}, 1000),
    ("count", "9223372036854775807", {}, 2**63 - 1),
    ("count", "9223372036854775808", {}, REFUSED),
    ("count", "9223372036854775807.5", {}, REFUSED),
    ("count", "1_0", {}, REFUSED),
    ("count", "0x10", {}, REFUSED),
    ("count", "1e999", {}, REFUSED),
    ("count", "١٢", {}, REFUSED),
    ("count", "1,000", {}, REFUSED),
    ("count", "1,000", {"thousands": ","}, 1000),
    ("count", "1,00", {"thousands": ","}, REFUSED),
    ("count", "1.000", COMMA, 1000),
    ("count", "NA", {}, REFUSED),
    ("count", "NA", {"null_values": ("NA", "-")}, None),
    ("price", "1.5", {}, Decimal("1.50")),
    ("price", "1.500000000000000000000000000000", {}, Decimal("1.50")),
    ("price", "1.500000000000000000000000000001", {}, REFUSED),
    ("price", "1.0000000049999", {}, REFUSED),
    ("price", "1e3", {}, Decimal("1000.00")),
    ("price", "1e-30", {}, REFUSED),
    ("price", "1_0", {}, REFUSED),
    ("price", "NaN", {}, REFUSED),
    ("price", "Infinity", {}, REFUSED),
    ("price", "9999999999999999.99", {}, Decimal("9999999999999999.99")),
    ("price", "10000000000000000.00", {}, REFUSED),
    ("price", "1.234,50", COMMA, Decimal("1234.50")),
    ("price", "1234.50", COMMA, REFUSED),
    ("price", "-,5", {"decimal": ","}, Decimal("-0.50")),
    ("ratio", "1.5e-3", {}, 0.0015),
    ("ratio", "0,1", {"decimal": ","}, 0.1),
    ("ratio", "nan", {}, REFUSED),
    ("ratio", "1e400", {}, REFUSED),
    ("gift", "true", {}, True),
    ("gift", "No", {}, False),
    ("gift", "0", {}, False),
    ("gift", "maybe", {}, REFUSED),
    ("day", "2024-02-29", {}, date(2024, 2, 29)),
    ("day", "2023-02-29", {}, REFUSED),
    ("day", "2024-1-2", {}, REFUSED),
    ("day", "infinity", {}, REFUSED),
    ("at", "2024-05-01T12:00:00.123456Z", {}, datetime(2024, 5, 1, 12, 0, 0, 123456, UTC)),
    ("at", "2024-05-01 14:00+02:00", {}, datetime(2024, 5, 1, 12, tzinfo=UTC)),
    ("at", "2024-05-01T12:00:00.1234560Z", {}, datetime(2024, 5, 1, 12, 0, 0, 123456, UTC)),
    ("at", "2024-05-01T12:00:00.1234567Z", {}, REFUSED),
    ("at", "2024-05-01T12:00:00.123456789", {}, REFUSED),
    ("at", "2024-05-01T12:00:00.1234567Z", {"subsecond": "truncate"}, datetime(2024, 5, 1, 12, 0, 0, 123456, UTC)),
    ("at", "1969-12-31T23:59:59.9999999Z", {"subsecond": "truncate"}, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
    ("at", "2024-07-01T12:00:00", {}, datetime(2024, 7, 1, 12, tzinfo=UTC)),
    ("at", "2024-07-01T12:00:00", NEW_YORK, datetime(2024, 7, 1, 16, tzinfo=UTC)),
    ("at", "2024-07-01T12:00:00Z", NEW_YORK, datetime(2024, 7, 1, 12, tzinfo=UTC)),
    ("at", "2024-11-03T01:30:00", NEW_YORK, REFUSED),
    ("at", "2024-11-03T01:30:00", NEW_YORK | {"ambiguous": "earlier"}, datetime(2024, 11, 3, 5, 30, tzinfo=UTC)),
    ("at", "2024-11-03T01:30:00", NEW_YORK | {"ambiguous": "later"}, datetime(2024, 11, 3, 6, 30, tzinfo=UTC)),
    ("at", "2024-03-10T02:30:00", NEW_YORK, REFUSED),
    ("at", "2024-03-10T02:30:00", NEW_YORK | {"nonexistent": "shift"}, datetime(2024, 3, 10, 7, 30, tzinfo=UTC)),
    ("at", "2011-12-30T12:00:00", SAMOA, REFUSED),
    ("at", "2024-12-31T23:59:60Z", {}, REFUSED),
    ("at", "0001-01-01T00:00:00Z", {}, datetime(1, 1, 1, tzinfo=UTC)),
    ("at", "0001-01-01T00:00:00+01:00", {}, REFUSED),
    ("at", "9999-12-31T23:59:59.999999-00:01", {}, REFUSED),
    ("at", "0000-01-01T00:00:00Z", {}, REFUSED),
    ("at", "20240501T120000Z", {}, REFUSED),
    ("at", "2024-W18-3T12:00:00Z", {}, REFUSED),
    ("at", "infinity", {}, REFUSED),
    ("ref", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", {}, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("ref", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", {}, REFUSED),
    ("ref", "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", {}, REFUSED),
]


@pytest.mark.slow
@pytest.mark.parametrize(("field", "text", "settings", "expected"), TEXTS, ids=[f"{f}-{t}-{s}" for f, t, s, _ in TEXTS])
def test_a_text_has_one_meaning(
    tmp_path: Path, field: str, text: str, settings: Mapping[str, Any], expected: Any
) -> None:
    """In flat and nested JSON, JSON in text, CSV, and Parquet columns and structs."""
    found = {write.__name__: outcome(tmp_path / write.__name__, write, {field: text}, settings) for write in WAYS}
    if expected is REFUSED:
        assert {name: str(reason).startswith(f"{field}: expected ") for name, reason in found.items()} == dict.fromkeys(
            found, True
        ), found
        assert len(set(found.values())) == 1, found
    else:
        assert {name: str(v) if field == "ref" else v for name, v in found.items()} == dict.fromkeys(found, expected)


NUMBERS: list[tuple[str, str, Any]] = [
    ("count", "7.0", 7),
    ("count", "7e2", 700),
    ("count", "7.5", REFUSED),
    ("count", "1e400", REFUSED),
    ("price", "1234567890123456.78", Decimal("1234567890123456.78")),
    ("price", "1.00000000000000000000000000001", REFUSED),
    ("price", "0.000000000000000000000000000001", REFUSED),
    ("price", "1e-30", REFUSED),
    ("price", "12.5e-1", Decimal("1.25")),
    ("price", "1e2", Decimal("100.00")),
    ("ratio", "9007199254740993", REFUSED),
    ("gift", "1", REFUSED),
    ("at", "1714564800", REFUSED),
]


@pytest.mark.parametrize(("field", "number", "expected"), NUMBERS)
@pytest.mark.parametrize("shape", ['{"payload": {"name": "x", "%s": %s}}', '{"name": "x", "%s": %s}'])
def test_a_json_number_keeps_its_digits(tmp_path: Path, field: str, number: str, expected: Any, shape: str) -> None:
    """A number that a binary float, or fewer decimal places, would change is refused."""
    text = json.dumps(ENVELOPE)[:-1] + ", " + (shape % (field, number))[1:] + "\n"
    path = _text(tmp_path / "h.jsonl", text)
    flat = ColumnMapping(envelope=OWN.envelope, payload=FLAT if shape.startswith('{"name"') else "payload")
    found = read(tmp_path, path, mapping=flat)
    if expected is REFUSED:
        assert found.reasons[1].startswith(f"{field}: expected ")
    else:
        assert payloads(found)[0][field] == expected


LOCAL_TIMES: list[tuple[datetime, Mapping[str, Any], datetime | None]] = [
    (datetime(2024, 7, 1, 12), {}, datetime(2024, 7, 1, 12, tzinfo=UTC)),
    (datetime(2024, 7, 1, 12), NEW_YORK, datetime(2024, 7, 1, 16, tzinfo=UTC)),
    (datetime(2024, 11, 3, 12), NEW_YORK, datetime(2024, 11, 3, 17, tzinfo=UTC)),
    (datetime(2024, 11, 3, 1, 30), NEW_YORK, None),
    (datetime(2024, 11, 3, 1, 30), NEW_YORK | {"ambiguous": "later"}, datetime(2024, 11, 3, 6, 30, tzinfo=UTC)),
    (datetime(2024, 3, 10, 2, 30), NEW_YORK, None),
    (datetime(2024, 3, 10, 2, 30), NEW_YORK | {"nonexistent": "shift"}, datetime(2024, 3, 10, 7, 30, tzinfo=UTC)),
    (datetime(2011, 12, 30, 12), SAMOA, None),
    (datetime(9999, 12, 31, 23), NEW_YORK, None),
]


@pytest.mark.parametrize(("local", "settings", "expected"), LOCAL_TIMES)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_local_times_of_typed_columns(
    tmp_path: Path, local: datetime, settings: Mapping[str, Any], expected: datetime | None, unit: str
) -> None:
    """A column of timestamps without a zone means what the same text means, in the payload and in the envelope."""
    if local.year == 9999 and unit == "ns":
        pytest.skip("nanoseconds since 1970 end in 2262")
    mapping = ColumnMapping(envelope=OWN.envelope, **settings)
    columns = {n: [v] for n, v in ENVELOPE.items()} | {"name": ["x"]}
    times = pa.array([local], pa.timestamp(unit))
    payload = write_parquet(tmp_path / "payload.parquet", columns | {"at": times})
    envelope = write_parquet(tmp_path / "envelope.parquet", columns | {"occurred_at": times})
    for name, path in (("at", payload), ("occurred_at", envelope)):
        (tmp_path / name).mkdir()
        found = read(tmp_path / name, path, mapping=mapping)
        assert [e[name] for e in found.events] == ([expected] if expected else [])
        assert all(reason.startswith(f"{name}: expected ") for reason in found.reasons.values())


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_are_refused_or_cut(tmp_path: Path, zone: str | None) -> None:
    """Parquet has nanoseconds, an event has microseconds: the same rule as for text, before 1970 too."""
    times = pa.array([1_714_564_800_000_001_000, 1_714_564_800_000_001_999, -1], pa.timestamp("ns", zone))
    columns = {n: [v] * 3 for n, v in ENVELOPE.items()} | {"name": ["x"] * 3, "at": times}
    path = write_parquet(tmp_path / "h.parquet", columns)
    found = read(tmp_path, path)
    assert sorted(found.reasons) == [2, 3]
    assert 'set subsecond = "truncate"' in found.reasons[2]
    (tmp_path / "cut").mkdir()
    cut = read(tmp_path / "cut", path, mapping=ColumnMapping(envelope=OWN.envelope, subsecond="truncate"))
    last = datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
    assert [e["at"] for e in cut.events] == [*[datetime(2024, 5, 1, 12, 0, 0, 1, UTC)] * 2, last]


def test_times_before_1970_in_every_unit(tmp_path: Path) -> None:
    """A number before 1970 is cut as its text is: to the microsecond before."""
    source = ValueSource(columns=("t",), unit="s")
    mapping = ColumnMapping(envelope={**OWN.envelope, "occurred_at": source}, subsecond="truncate")
    path = _text(tmp_path / "h.jsonl", lines(row(t="-0.0000001"), row(t="-1.5")))
    assert [e["occurred_at"] for e in read(tmp_path, path, mapping=mapping).events] == [
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1969, 12, 31, 23, 59, 58, 500_000, UTC),
    ]


FORMATS = [
    ("%d/%m/%Y", "01/02/2020", datetime(2020, 2, 1, tzinfo=UTC)),
    ("%b %d %Y", "Jan 1 2000", datetime(2000, 1, 1, tzinfo=UTC)),
    ("%Y%m%d", "20200101", datetime(2020, 1, 1, tzinfo=UTC)),
    ("%d.%m.%Y %H:%M:%S %z", "01.02.2020 10:00:00 +0100", datetime(2020, 2, 1, 9, tzinfo=UTC)),
    ("rfc2822", "Sat, 01 Feb 2020 10:00:00 +0100", datetime(2020, 2, 1, 9, tzinfo=UTC)),
]


@pytest.mark.parametrize(("format", "text", "expected"), FORMATS)
@pytest.mark.parametrize("write", WAYS)
def test_a_format_of_times(tmp_path: Path, format: str, text: str, expected: datetime, write: Write) -> None:
    """In the payload, in the envelope, and for dates; another text is refused."""
    path, options = write(tmp_path, {"at": text})
    at = ValueSource(columns=("at",), format=format)
    when = {**OWN.envelope, "occurred_at": ValueSource(columns=("occurred_at",))}
    mapping = ColumnMapping(envelope=when, payload_columns={"Described": {"at": at}}, **options)
    (event,) = read(tmp_path, path, mapping=mapping).events
    assert event["at"] == expected


def test_dates_and_epochs_in_the_payload(tmp_path: Path) -> None:
    """A field has a format or a unit of its own."""
    path = _text(
        tmp_path / "h.csv", f"stream_id,event_type,occurred_at,name,d,t\np,Described,{TIME},x,1/2/20,1714564800123\n"
    )
    columns = {"day": ValueSource(columns=("d",), format="%d/%m/%y"), "at": ValueSource(columns=("t",), unit="ms")}
    found = read(tmp_path, path, mapping=ColumnMapping(envelope=OWN.envelope, payload_columns={"Described": columns}))
    (event,) = payloads(found)
    assert (event["day"], event["at"]) == (date(2020, 2, 1), datetime(2024, 5, 1, 12, 0, 0, 123_000, UTC))


def test_null_values_of_every_kind(tmp_path: Path) -> None:
    """They stand for no value in optional fields and in the envelope; a required field is then missing."""
    text = "stream_id,event_type,occurred_at,correlation_id,name,count\n"
    text += f"p,Described,{TIME},NA,x,\\N\np,Described,{TIME},c,NA,3\nNA,Described,{TIME},c,x,3\n"
    mapping = ColumnMapping(envelope=OWN.envelope, null_values=("NA", "\\N"))
    found = read(tmp_path, _text(tmp_path / "h.csv", text), mapping=mapping)
    assert found.reasons == {3: "required field name is null", 4: "stream_id is missing (it comes from stream_id)"}
    assert "correlation_id" not in found.events[0]
    assert payloads(found) == [{"name": "x"}]


def test_a_column_of_nulls_is_no_value(tmp_path: Path) -> None:
    """Arrow's type null fits every optional field; of a required field it is the row that is refused."""
    columns = {n: [v] for n, v in ENVELOPE.items()} | {"correlation_id": pa.nulls(1)}
    nulls = {name: pa.nulls(1) for name in ("gift", "at", "ref", "price", "tags", "lines", "day")}
    path = write_parquet(tmp_path / "h.parquet", columns | nulls | {"name": ["x"]})
    assert payloads(read(tmp_path, path)) == [{"name": "x"}]
    (tmp_path / "required").mkdir()
    path = write_parquet(tmp_path / "r.parquet", columns | {"name": pa.nulls(1)})
    assert read(tmp_path / "required", path).reasons == {1: "required field name is null"}


def test_local_times_are_counted(tmp_path: Path) -> None:
    """The import reports how many times had no zone."""
    from refold.pipelines.ingest.file_reader import ReadSoFar
    from refold.warehouse.event_log.bulk_import.spool import read_spool

    local = "2024-05-01T12:00:00"
    rows = [
        row(occurred_at=local),
        row(),
        row(payload={"name": "x", "at": local}),
        row(payload={"name": "x", "at": TIME}),
    ]
    read(tmp_path, _text(tmp_path / "h.jsonl", lines(*rows)))
    assert ReadSoFar.of(read_spool(tmp_path / "spool").journal).local == 2
