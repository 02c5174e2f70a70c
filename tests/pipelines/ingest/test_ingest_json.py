"""JSON lines, arrays and CloudEvents: which rows become events unchanged, and which are rejected."""

from __future__ import annotations

import dataclasses
import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.event_schemas import PayloadError, UsageError
from refold.event_schemas.payload import canonical_json, from_json
from refold.pipelines.ingest.ingest import ImportLimits
from refold.pipelines.ingest.mapping import FLAT, OWN
from tests.pipelines.ingest.imports import TIME, lines, payloads, read, row
from tests.pipelines.ingest.parcels import PARCELS

FULL = {
    "name": "cup",
    "gift": True,
    "ratio": 1.5,
    "day": "2024-01-02",
    "at": "2024-01-02T03:04:05.000006+02:00",
    "ref": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "price": 19.99,
    "count": 3,
    "tags": ["a", "b"],
    "lines": [{"sku": "c", "quantity": 2}],
}
TYPED = {
    "name": "cup",
    "gift": True,
    "ratio": 1.5,
    "day": date(2024, 1, 2),
    "at": datetime(2024, 1, 2, 1, 4, 5, 6, UTC),
    "ref": UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "price": Decimal("19.99"),
    "count": 3,
    "tags": ["a", "b"],
    "lines": [{"sku": "c", "quantity": 2}],
}


def write(folder: Path, text: str | bytes, name: str = "history.jsonl") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_line_becomes_an_event(tmp_path: Path) -> None:
    """The envelope and a field of every type arrive as they were written."""
    full = row(payload=FULL, event_id="e1", schema_version=1, correlation_id="c", causation_id="a")
    found = read(tmp_path, write(tmp_path, lines(full)))
    assert found.events == [
        {
            "position": 1,
            "stream_id": "p-1",
            "event_id": "e1",
            "event_type": "Described",
            "schema_version": 1,
            "occurred_at": datetime(2024, 5, 1, 12, tzinfo=UTC),
            "correlation_id": "c",
            "causation_id": "a",
            **TYPED,
        }
    ]


@pytest.mark.parametrize(
    ("payload", "field", "value"),
    [
        ({"price": "1234567890123456.78"}, "price", Decimal("1234567890123456.78")),
        ({"price": 5}, "price", Decimal("5.00")),
        ({"price": 1.5000}, "price", Decimal("1.50")),
        ({"at": "2024-01-02T03:04:05"}, "at", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ({"ratio": 2}, "ratio", 2.0),
        ({"tags": []}, "tags", []),
        ({"lines": []}, "lines", []),
        ({"name": "ü\u0000\n"}, "name", "ü\u0000\n"),
        ({"count": -(2**63)}, "count", -(2**63)),
        ({"gift": None, "day": None}, "name", "cup"),
    ],
)
def test_values_are_kept(tmp_path: Path, payload: dict[str, Any], field: str, value: Any) -> None:
    """A value that fits is the same value afterwards."""
    found = read(tmp_path, write(tmp_path, lines(row(payload={"name": "cup"} | payload))))
    assert found.events[0][field] == value


def test_a_long_number_is_read_digit_by_digit(tmp_path: Path) -> None:
    """An amount that a binary float cannot hold is not rounded."""
    text = f'{{"stream_id":"p","event_type":"Described","occurred_at":"{TIME}","payload":{{"name":"x","price":%s}}}}'
    found = read(tmp_path, write(tmp_path, lines(text % "1234567890123456.78", text % "1234567890123456.785")))
    assert found.events[0]["price"] == Decimal("1234567890123456.78")
    assert found.reasons == {2: "price: expected decimal128(18, 2), found 1234567890123456.785"}


AS_DATE = 'a date is written as 2026-01-05; for others set format = "%d/%m/%Y" or the like in the mapping'
AS_TIME = (
    'a time is written as 2026-01-05T09:00:00Z; for others set unit, or format = "%d/%m/%Y %H:%M" or the like, in the '
    "mapping"
)
INVALID_PAYLOADS: list[tuple[dict[str, Any], str]] = [
    ({"price": 1.005}, "price: expected decimal128(18, 2), found 1.005"),
    ({"price": 10**17}, "price: expected decimal128(18, 2), found 100000000000000000"),
    ({"count": 12.7}, "count: expected int64, found 12.7"),
    ({"count": "1_2"}, "count: expected int64, found '1_2'"),
    ({"count": "twelve"}, "count: expected int64, found 'twelve'"),
    ({"count": 2**63}, "count: expected int64, found 9223372036854775808"),
    ({"count": True}, "count: expected int64, found True"),
    ({"gift": 1}, "gift: expected bool, found 1"),
    ({"name": 5}, "name: expected string, found 5"),
    ({"name": None}, "required field name is null; expected string"),
    ({"day": " 2024-1-2 "}, f"day: expected date32[day], found ' 2024-1-2 ' ({AS_DATE})"),
    ({"day": "2024-01-02T00:00:00Z"}, f"day: expected date32[day], found '2024-01-02T00:00:00Z' ({AS_DATE})"),
    ({"day": "2024-02-30"}, "day: expected date32[day], found '2024-02-30'"),
    ({"at": "noon"}, f"at: expected timestamp[us, tz=UTC], found 'noon' ({AS_TIME})"),
    ({"ref": "x"}, "ref: expected extension<arrow.uuid>, found 'x'"),
    ({"colour": 1}, "unknown field colour"),
    ({"lines": [{"sku": "c"}]}, "required field lines[0].quantity is missing; expected int64"),
    ({"lines": [{"sku": "c", "quantity": 1.5}]}, "lines[0].quantity: expected int64, found 1.5"),
    ({"lines": [{"sku": "c", "quantity": 1, "size": 1}]}, "unknown field lines[0].size"),
    ({"tags": ["a", 1]}, "tags[1]: expected string, found 1"),
    ({"tags": ["a", None]}, "required field tags[1] is null; expected string"),
    ({"ratio": float("nan")}, "this is no JSON: NaN is no JSON number"),
]


def test_payloads_that_do_not_fit_are_rejected(tmp_path: Path) -> None:
    """Nothing is rounded, cut, taken for another type or left out: each reason names the field."""
    rows = [row(payload={"name": "cup"} | payload) for payload, _ in INVALID_PAYLOADS]
    found = read(tmp_path, write(tmp_path, lines(*rows)))
    assert found.events == []
    reasons = [found.reasons[line] for line in range(1, len(INVALID_PAYLOADS) + 1)]
    assert [r[: len(reason)] for r, (_, reason) in zip(reasons, INVALID_PAYLOADS, strict=True)] == [
        reason for _, reason in INVALID_PAYLOADS
    ]


INVALID_ROWS: list[tuple[Any, str]] = [
    ('{"stream_id": "p-1"', "this is no JSON: Expecting ',' delimiter"),
    ("5", "expected a JSON object"),
    ("[1]", "expected a JSON object"),
    (row(stream_id=...), "stream_id is missing"),
    (row(stream_id=""), "stream_id is missing"),
    (row(event_type=None), "event_type is missing"),
    (row(event_type="Vanished"), "Unknown event type 'Vanished'"),
    (row(schema_version=7), "Unknown schema version 7 of event type 'Described'; known: [1]"),
    (row(schema_version="newer"), "schema_version: expected a number from 1, found newer"),
    (row(schema_version=0), "schema_version: expected a number from 1, found 0"),
    (row(occurred_at="yesterday"), f"occurred_at: expected a time, found 'yesterday' ({AS_TIME})"),
    (row(occurred_at="infinity"), "occurred_at: expected a time, found 'infinity'"),
    (row(occurred_at=...), "occurred_at is missing"),
    (row(payload=...), "required field name is missing"),
    (row(payload=[1]), "expected an object as payload, found '[1]'"),
    (row(payload="nonsense"), "this is no JSON: Expecting value"),
    (row(payload='"nonsense"'), "this is no JSON: Expecting value"),
    (row(event_type="Lost", payload={"why": 1}), "unknown field why"),
]


def test_rows_that_are_no_event_are_rejected(tmp_path: Path) -> None:
    """Valid rows between invalid ones become events with positions without a gap; a reject has line and text."""
    rows = [r for bad, _ in INVALID_ROWS for r in (row(), bad)]
    found = read(tmp_path, write(tmp_path, lines(*rows)))
    assert [e["position"] for e in found.events] == list(range(1, len(INVALID_ROWS) + 1))
    assert {line: reason[: len(INVALID_ROWS[line // 2 - 1][1])] for line, reason in found.reasons.items()} == {
        2 * i + 2: reason for i, (_, reason) in enumerate(INVALID_ROWS)
    }
    assert [r["text"] for r in found.rejects] == lines(*(bad for bad, _ in INVALID_ROWS)).splitlines()


def test_a_payload_may_be_left_out_or_be_text(tmp_path: Path) -> None:
    """An event without fields needs no payload, and a payload that is JSON in a string is taken for what it is."""
    rows = [row(event_type="Lost", payload=...), row(event_type="Lost", payload={}), row(payload='{"name": "inner"}')]
    assert payloads(read(tmp_path, write(tmp_path, lines(*rows)))) == [{}, {}, {"name": "inner"}]


def test_two_fields_from_one_key(tmp_path: Path) -> None:
    """Fields of different types may be taken from the same key, each value in its own type."""
    mapping = dataclasses.replace(OWN, payload_columns={"Described": {"name": "n", "price": "n", "day": "n"}})
    rows = [row(payload={"n": "1.50"}), row(payload={"n": "2024-01-02"})]
    found = read(tmp_path, write(tmp_path, lines(*rows)), mapping=mapping)
    assert found.reasons == {
        1: f"day: expected date32[day], found '1.50' ({AS_DATE})",
        2: "price: expected decimal128(18, 2), found '2024-01-02'",
    }
    mapping = dataclasses.replace(OWN, payload_columns={"Described": {"name": "n", "price": "n"}})
    (tmp_path / "two").mkdir()
    (event,) = payloads(read(tmp_path / "two", tmp_path / "history.jsonl", mapping=mapping))
    assert event == {"name": "1.50", "price": Decimal("1.50")}


def test_an_older_version_is_kept_as_it_is(tmp_path: Path) -> None:
    """Without a version an event is of version 1; its payload is checked against that."""
    old = row(event_type="Sent", payload={"parcel": "p", "weight": 3})
    new = row(
        event_type="Sent", schema_version=2, payload={"parcel": "p", "weight": 3, "price": "1", "currency": "EUR"}
    )
    found = read(tmp_path, write(tmp_path, lines(old, new, new | {"schema_version": 1})))
    assert [e["schema_version"] for e in found.events] == [1, 2]
    assert found.reasons[3].startswith("unknown field price")


def test_lines_of_all_kinds(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blank lines, bytes that are no UTF-8, and no newline at the end."""
    good = json.dumps(row()).encode()
    data = b"\xef\xbb\xbf" + b"\r\n".join([good, b"", good, b'{"stream_id": "\xff"}', b"  ", good])
    found = read(tmp_path, write(tmp_path, data))
    assert len(found.events) == 3
    assert found.rejects == [
        {
            "file": str(tmp_path / "history.jsonl"),
            "line": 4,
            "reason": "this is no UTF-8",
            "text": '{"stream_id": "\\xff"}',
        }
    ]


def test_an_empty_file_has_no_events(tmp_path: Path) -> None:
    """An empty file, a single newline and an empty array have no events."""
    for i, text in enumerate(("", "\n", "[]", " [ ] ")):
        (tmp_path / str(i)).mkdir()
        found = read(tmp_path / str(i), write(tmp_path, text))
        assert (found.events, found.rejects) == ([], [])


@pytest.mark.parametrize("size", [10, 300, 5_000])
def test_an_endless_line_is_rejected(tmp_path: Path, size: int) -> None:
    """A line over the limit is skipped without buffering it; the rows around it are read."""
    huge = row(payload={"name": "x" * 20_000})
    limits = ImportLimits(chunk_bytes=size, row_bytes=6_000)
    found = read(tmp_path, write(tmp_path, lines(row(), huge, row(), huge).rstrip("\n")), limits=limits)
    assert len(found.events) == 2
    assert found.reasons == dict.fromkeys((2, 4), "the line is longer than 6000 bytes")


def test_a_long_line_is_read(tmp_path: Path) -> None:
    """A line much longer than a chunk is one event; its text in the reject file is cut."""
    limits = ImportLimits(chunk_bytes=1000)
    rows = [row(payload={"name": "x" * 1_000_000}), row(payload={"name": "y" * 100_000, "z": 1})]
    found = read(tmp_path, write(tmp_path, lines(*rows)), limits=limits)
    assert len(found.events[0]["name"]) == 1_000_000
    assert (len(found.rejects[0]["text"]), found.rejects[0]["text_length"]) == (65_536, len(json.dumps(rows[1])))


@pytest.mark.parametrize(
    "limits", [ImportLimits(chunk_bytes=700), ImportLimits(chunk_rows=3), ImportLimits(chunk_bytes=1 << 20)]
)
def test_chunks_make_no_difference(tmp_path: Path, limits: ImportLimits) -> None:
    """The chunk size changes neither the events nor their order."""
    rows = [row(stream_id=f"p-{i % 5}", event_id=f"e{i}") if i % 7 else "bad" for i in range(100)]
    found = read(tmp_path, write(tmp_path, lines(*rows)), limits=limits)
    assert [e["event_id"] for e in found.events] == [f"e{i}" for i in range(100) if i % 7]
    assert [e["position"] for e in found.events] == list(range(1, 86))
    assert list(found.reasons) == [i + 1 for i in range(0, 100, 7)]


def test_an_array_is_cut_into_its_elements(tmp_path: Path) -> None:
    """One array, however it is laid out and cut, gives the events that its elements give as lines."""
    rows = [row(event_id=f"e{i}", payload={"name": '}],[{"' * i, "tags": ["[", "\\"]}) for i in range(20)] + ["x", 5]
    for indent, size in ((None, 50), (2, 333), (0, 1 << 20)):
        folder = tmp_path / f"{indent}"
        folder.mkdir()
        text = json.dumps(rows, indent=indent)
        found = read(folder, write(folder, "\ufeff" + text, "batch.json"), limits=ImportLimits(chunk_bytes=size))
        assert [e["event_id"] for e in found.events] == [f"e{i}" for i in range(20)]
        assert [r["reason"] for r in found.rejects] == ["expected a JSON object"] * 2
        assert text.splitlines()[found.rejects[0]["line"] - 1].strip().endswith(("]", '"x",'))


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('[{"a": 1},\n{"a": }]', 2, "Expecting value"),
        ('[{"a": 1}\n', 2, "not closed"),
        ('[{"a": 1} {"b": 2}]', 1, "expected ','"),
        ('[{"a": 1}]\n{"b": 2}', 2, "after the end"),
        ('[{"a": 1},]', 1, "Expecting value"),
        ('[{"a": "', 1, "Unterminated string"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, text: str, line: int, why: str) -> None:
    """Elements after the damage cannot be delimited; the message names the line."""
    with pytest.raises(UsageError, match=rf"line {line}, element \d: .*{why}"):
        read(tmp_path, write(tmp_path, text, "batch.json"))


CLOUD = {
    "specversion": "1.0",
    "id": "c1",
    "source": "/shop",
    "type": "Described",
    "subject": "p-7",
    "time": TIME,
    "datacontenttype": "application/json",
    "correlationid": "order-1",
    "causationid": "click-1",
    "data": {"name": "cup"},
}


@pytest.mark.parametrize("batch", [False, True])
def test_cloudevents_are_detected(tmp_path: Path, batch: bool) -> None:
    """Structured mode a line each, and batch mode, without a mapping; fallbacks for subject and version."""
    sent = {"parcel": "p", "weight": 1, "price": 1, "currency": "EUR"}
    rows: list[dict[str, Any]] = [
        CLOUD,
        {k: v for k, v in CLOUD.items() if k not in ("subject", "correlationid", "causationid")} | {"id": "c2"},
        CLOUD | {"id": "c3", "type": "Sent", "dataschema": "https://shop/schemas/sent/v2", "data": sent},
        CLOUD | {"id": "c4", "type": "Sent", "schemaversion": 2, "data": sent},
        {k: v for k, v in CLOUD.items() if k != "data"} | {"id": "c5", "data_base64": "eyJuYW1lIjogImJhc2UifQ=="},
        {k: v for k, v in CLOUD.items() if k != "time"},
    ]
    found = read(tmp_path, write(tmp_path, json.dumps(rows) if batch else lines(*rows), "events.json"))
    assert [(e["event_id"], e["stream_id"], e["event_type"], e["schema_version"]) for e in found.events] == [
        ("/shop c1", "p-7", "Described", 1),
        ("/shop c2", "/shop", "Described", 1),
        ("/shop c3", "p-7", "Sent", 2),
        ("/shop c4", "p-7", "Sent", 2),
        ("/shop c5", "p-7", "Described", 1),
    ]
    assert (found.events[0]["correlation_id"], found.events[0]["causation_id"]) == ("order-1", "click-1")
    assert found.events[4]["name"] == "base"
    assert [r["reason"] for r in found.rejects] == ["occurred_at is missing (it comes from time)"]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    """Gzip and Zstandard, of several members and frames too, whatever the suffix says; a cut one is refused."""
    text = lines(*(row(event_id=f"e{i}") for i in range(50))).encode()
    half = text.index(b"\n", len(text) // 2) + 1
    packs = {
        "a.jsonl.gz": gzip.compress(text[:half]) + gzip.compress(text[half:]),
        "b.jsonl.zst": zstandard.compress(text[:half]) + zstandard.compress(text[half:]),
        "c.jsonl": gzip.compress(text),
    }
    for name, data in packs.items():
        folder = tmp_path / name[0]
        folder.mkdir()
        found = read(folder, write(folder, data, name), limits=ImportLimits(chunk_bytes=500))
        assert [e["event_id"] for e in found.events] == [f"e{i}" for i in range(50)], name
        cut = folder / "cut"
        cut.mkdir()
        with pytest.raises(UsageError, match="cannot be read further"):
            read(cut, write(cut, data[:-20], name))


def test_strict_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    """The error names file, line and reason."""
    path = write(tmp_path, lines(row(), row(stream_id=""), "x"))
    with pytest.raises(PayloadError, match=r"history\.jsonl, line 2: stream_id is missing"):
        read(tmp_path, path, strict=True)


SCHEMA = PARCELS.registry.schema("Described", 1)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["2024-01-02", "2024-01-02T03:04:05Z", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "1.25"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sku", "quantity", "x"]), inner),
    max_leaves=4,
)


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.dictionaries(st.sampled_from([*SCHEMA.names, "x"]), ANYTHING), min_size=1, max_size=40))
def test_a_payload_is_read_as_canonical_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory, given_payloads: list[dict[str, Any]]
) -> None:
    """The fast and the exact parser accept the same payloads, with the same values."""
    folder = tmp_path_factory.mktemp("law")
    rows = [row(payload={"name": "cup"} | payload) for payload in given_payloads]
    found = read(folder, write(folder, lines(*rows)), workers=1)
    expected = []
    for made in rows:
        try:
            typed = from_json(json.loads(canonical_json(made["payload"], SCHEMA)), SCHEMA)
        except PayloadError:
            continue
        expected.append({k: v for k, v in typed.items() if v is not None})
    assert payloads(found) == expected


@pytest.mark.parametrize(
    "payload",
    [
        '{"name":"a","name":"b"}',
        '{"name" :"a","name":"a"}',
        '{"name":"a","n\\u0061me":"a"}',
        '{"name":"a", "count" : 1, "count": 2}',
        '{"name":"a","lines":[],"lines":[]}',
        '{"name":"a","lines":[{"sku":"c","quantity":1}],"lines":[{"sku":"c","quantity":1}]}',
        '{"name":"a","lines":[{"sku":"c","quantity":1,"sku":"c"}]}',
        '{"name":"a","lines":[{"sku":"c","quantity":1},{"sku":"c","quantity": 1,"quantity" :1}]}',
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, payload: str, flat: bool) -> None:
    """Whichever value was taken, the other would be lost in silence."""
    envelope = f'{{"stream_id":"p","event_type":"Described","occurred_at":"{TIME}",'
    text = envelope + (payload[1:] if flat else f'"payload":{payload}}}') + "\n"
    mapping = dataclasses.replace(OWN, payload=FLAT if flat else "payload")
    found = read(tmp_path, write(tmp_path, text), mapping=mapping)
    assert "is given twice" in found.reasons[1]
