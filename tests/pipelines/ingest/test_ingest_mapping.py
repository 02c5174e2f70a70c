"""Mapping files: their syntax, their errors, and their effect on rows of other formats."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import UsageError
from refold.pipelines.ingest.ingest import ColumnMapping, read_mapping
from refold.pipelines.ingest.mapping import TypeName, ValueSource
from tests.pipelines.ingest.imports import TIME, lines, payloads, read

FULL = """
payload = "data"
unknown_fields = "drop"
zone = "Europe/Berlin"
delimiter = ";"

[envelope]
stream_id = "order-{order.id}"
event_type = ["kind", "type"]
schema_version = { column = "schema", pattern = '/v(\\d+)$' }
occurred_at = { column = "ts", unit = "ms" }
event_id = "/meta.id"
correlation_id = { constant = "history" }

[types]
"order.placed" = "Sent"
"order.placed.old" = { event_type = "Sent", schema_version = 1 }

[payload_columns.Sent]
parcel = "id"
"""


def mapped(folder: Path, text: str) -> ColumnMapping:
    """Read a mapping from text."""
    path = folder / "mapping.toml"
    path.write_text(text)
    return read_mapping(path)


def test_a_mapping_file_says_it_all(tmp_path: Path) -> None:
    """Every form of a value is parsed."""
    assert mapped(tmp_path, FULL) == ColumnMapping(
        envelope={
            "stream_id": ValueSource(template="order-{order.id}"),
            "event_type": ValueSource(columns=("kind", "type")),
            "schema_version": ValueSource(columns=("schema",), pattern=r"/v(\d+)$"),
            "occurred_at": ValueSource(columns=("ts",), unit="ms"),
            "event_id": ValueSource(columns=("/meta.id",)),
            "correlation_id": ValueSource(constant="history"),
        },
        payload="data",
        payload_columns={"Sent": {"parcel": "id"}},
        types={
            "order.placed": TypeName(event_type="Sent"),
            "order.placed.old": TypeName(event_type="Sent", schema_version=1),
        },
        unknown_fields="drop",
        zone="Europe/Berlin",
        delimiter=";",
    )


def test_a_mapping_is_applied(tmp_path: Path) -> None:
    """Templates of nested values, fallbacks, patterns, epochs, renamed types and fields, dropped keys."""
    sent = {"id": "a", "weight": 3, "price": 1, "currency": "EUR", "colour": "red"}
    base = {"order": {"id": 7}, "kind": "order.placed", "ts": 1_714_564_800_123, "meta.id": "e1", "data": sent}
    rows = [
        base | {"schema": "https://shop/sent/v2"},
        {k: v for k, v in base.items() if k != "kind"} | {"type": "order.placed.old", "schema": "whatever"},
        base | {"schema": "v2", "kind": "order.lost"},
    ]
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*rows))
    found = read(tmp_path, path, mapping=mapped(tmp_path, FULL))
    new, old = found.events
    assert (new["stream_id"], new["event_type"], new["schema_version"]) == ("order-7", "Sent", 2)
    assert (new["event_id"], new["correlation_id"], new["parcel"]) == ("e1", "history", "a")
    assert new["occurred_at"] == datetime(2024, 5, 1, 12, 0, 0, 123_000, UTC)
    assert old["schema_version"] == 1
    assert found.reasons == {3: "Unknown event type 'order.lost'"}


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 1_714_564_800, 0),
        ("s", 1_714_564_800.25, 250_000),
        ("s", "1714564800.000001", 1),
        ("ms", 1_714_564_800_001, 1_000),
        ("us", 1_714_564_800_000_001, 1),
        ("ns", 1_714_564_800_000_001_000, 1),
        ("s", "17145648e2", 0),
        ("iso", "2024-05-01T14:00:00.000001000+02:00", 1),
        ("iso", "2024-05-01 12:00:00", 0),
    ],
)
def test_times_in_every_unit(tmp_path: Path, unit: str, value: Any, expected: int) -> None:
    """A time is kept in microseconds, to the last digit."""
    path = tmp_path / "h.jsonl"
    path.write_text(lines({"t": value}))
    columns = ColumnMapping(
        envelope={
            "stream_id": ValueSource(constant="p"),
            "event_type": ValueSource(constant="Lost"),
            "occurred_at": ValueSource(columns=("t",), unit=unit),
        }
    )
    assert [e["occurred_at"] for e in read(tmp_path, path, mapping=columns).events] == [
        datetime(2024, 5, 1, 12, 0, 0, expected, UTC)
    ]


def test_flat_rows_newest_versions_and_the_present_time(tmp_path: Path) -> None:
    """Fields beside the envelope's columns, the newest version of each type, and the time of the import."""
    text = """
        payload = "*"
        [envelope]
        stream_id = "parcel"
        event_type = "type"
        schema_version = { constant = "newest" }
        occurred_at = { constant = "now" }
        [payload_columns.Described]
        name = "parcel"
    """
    rows = [
        {"type": "Sent", "parcel": "a", "weight": 1, "price": "1", "currency": "EUR", "more": 1},
        {"type": "Described", "parcel": "b", "tags": ["x"]},
        "[1]",
    ]
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*rows))
    found = read(tmp_path, path, mapping=mapped(tmp_path, text))
    assert [(e["event_type"], e["schema_version"]) for e in found.events] == [("Sent", 2), ("Described", 1)]
    assert payloads(found)[1] == {"name": "b", "tags": ["x"]}
    assert found.events[0]["occurred_at"] == found.events[1]["occurred_at"]
    assert found.reasons == {3: "expected a JSON object"}


def test_constants_do_not_make_events_of_garbage(tmp_path: Path) -> None:
    """A row that is no JSON object is rejected, even if the mapping needs none of its columns."""
    columns = ColumnMapping(
        envelope={
            "stream_id": ValueSource(constant="p"),
            "event_type": ValueSource(constant="Lost"),
            "occurred_at": ValueSource(constant=TIME),
        }
    )
    path = tmp_path / "h.jsonl"
    path.write_text(lines({}, "[1]", '{"a": ', "5", ' \t{"b": 1}'))
    found = read(tmp_path, path, mapping=columns)
    assert (len(found.events), sorted(found.reasons)) == (2, [2, 3, 4])
    table = tmp_path / "h.csv"
    table.write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "csv").mkdir()
    assert read(tmp_path / "csv", table, mapping=columns).reasons == {3: "expected 2 cells, found 3"}


REFUSED = [
    ("envelope = 1", "envelope is 1; expected a table"),
    ("[envelope]\nstream_id = 'a'", "does not set event_type"),
    ("[envelope]\nstream = 'a'", "'stream' is not known under [envelope]; known are causation_id"),
    ("paylod = 'x'", "'paylod' is not known at the top"),
    ("[envelope]\nstream_id = true", "envelope.stream_id is True; expected a column"),
    ("[envelope]\noccurred_at = { column = 'a', unit = 'h' }", "unit is 'h'; expected"),
    ("[envelope]\noccurred_at = { unit = 's' }", "both column and constant"),
    ("[envelope]\nstream_id = { column = 'a', patern = 'b' }", "'patern' is not known in envelope.stream_id"),
    ("[envelope]\nstream_id = { column = 'a', pattern = 'b' }", "has no group"),
    ("[envelope]\nstream_id = { column = 'a', pattern = '(' }", "is an invalid regular expression"),
    ("unknown_fields = 'keep'", "unknown_fields is 'keep'"),
    ("delimiter = ';;'", "delimiter is ';;'; expected one character"),
    ("[types]\na = 1", 'types."a": expected an event type'),
    ("[types]\na = { event_type = 'A', schema_version = 0 }", "expected a number from 1"),
    ("[payload_columns.A]\nb = 1", "payload_columns.A.b is 1; expected text"),
    ("zone = 'Mars/Phobos'\n[envelope]\nstream_id='a'\nevent_type='b'\noccurred_at='c'", "zone is 'Mars/Phobos'"),
    ("= 1", "invalid TOML"),
]


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_an_invalid_mapping_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """The message names the file and the key."""
    with pytest.raises(UsageError) as error:
        mapped(tmp_path, text)
    assert why in str(error.value)
    assert "mapping.toml" in str(error.value)


def test_a_mapping_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(UsageError, match=r"none\.toml cannot be read: No such file"):
        read_mapping(tmp_path / "none.toml")


def test_the_example_in_the_docstring_is_a_mapping(tmp_path: Path) -> None:
    """The example in the docstring parses."""
    from refold.pipelines.ingest import mapping_file

    example = (mapping_file.__doc__ or "").split("::", 1)[1]
    assert tomllib.loads(example)["payload"] == "data"
    assert mapped(tmp_path, example).types["order.placed"].schema_version == 1
    assert json.loads(mapped(tmp_path, example).digest())["zone"] == "Europe/Berlin"
