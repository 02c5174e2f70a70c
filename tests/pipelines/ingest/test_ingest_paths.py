"""Paths into rows: the same in every format; one that no row has is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refold.event_schemas import RejectedRowsError, UsageError
from refold.pipelines.ingest.ingest import ImportLimits, Ingested, ingest, read_mapping
from refold.warehouse.event_log import EventLog, create_log
from tests.pipelines.ingest.imports import TIME, history, lines, row, write_parquet
from tests.pipelines.ingest.parcels import REF


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """An empty log."""
    return create_log(str(tmp_path / "log"), domain_name="parcels", bucket_count=2)


def imported(
    log: EventLog, folder: Path, rows: list[dict[str, Any]], mapping: str, form: str, **options: Any
) -> Ingested:
    """Import rows in a format, with a mapping."""
    (folder / "m.toml").write_text(mapping)
    path = folder / f"h.{form}"
    if form == "parquet":
        write_parquet(path, {name: [r.get(name) for r in rows] for name in rows[0]})
    elif form == "csv":  # objects as JSON text
        cells = [[json.dumps(v).replace('"', '""') if isinstance(v, dict) else v for v in r.values()] for r in rows]
        path.write_text("\n".join([",".join(rows[0]), *(",".join(f'"{c}"' for c in cs) for cs in cells)]) + "\n")
    else:
        path.write_text(lines(*rows))
    limits = ImportLimits(chunk_rows=2)
    return ingest(log, REF, [str(path)], mapping=read_mapping(folder / "m.toml"), limits=limits, **options)


EVENTBRIDGE = """
payload = "detail"
[envelope]
stream_id = {stream}
event_type = "type"
occurred_at = "time"
[payload_columns.Described]
count = "size.pieces"
"""
ROWS = [
    {"type": "Described", "time": TIME, "detail": {"name": f"n{i}", "id": f"i-{i}", "size": {"pieces": i}}}
    for i in range(5)
]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("stream", ['"{detail.id}"', '"detail.id"', '["detail.none", "{detail.id}"]'])
def test_an_envelope_column_from_inside_the_payload(tmp_path: Path, log: EventLog, form: str, stream: str) -> None:
    """The natural mapping of EventBridge, Debezium and CloudEvents; fields of the payload have paths too."""
    mapping = 'unknown_fields = "drop"\n' + EVENTBRIDGE.format(stream=stream)
    imported(log, tmp_path, ROWS, mapping, form)
    assert [(e["stream_id"], e["payload"]["name"], e["payload"]["count"]) for e in history(log)] == [
        (f"i-{i}", f"n{i}", i) for i in range(5)
    ]


def test_a_nested_path_that_leaves_a_key_out_is_an_unknown_field(tmp_path: Path, log: EventLog) -> None:
    """A key that nothing is taken from is refused inside objects too, unless unknown fields are dropped."""
    done = imported(log, tmp_path, ROWS, EVENTBRIDGE.format(stream='"detail.id"'), "jsonl")
    assert [r.reason for r in done.reasons] == [
        "unknown field id; the schema has ['at', 'day', 'gift', 'lines', 'name', "
        "'price', 'ratio', 'ref', 'size.pieces', 'tags']"
    ]


FLAT = 'payload = "*"\n[envelope]\nstream_id = "{id}"\nevent_type = { constant = "Described" }\noccurred_at = "time"\n'
TABLE = [{"id": i, "time": TIME, "name": "x", "org": {"resource": "cup"}} for i in range(3)]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_fields_of_a_flat_row_have_paths(tmp_path: Path, log: EventLog, form: str) -> None:
    """They are not ignored for JSON."""
    imported(log, tmp_path, TABLE, FLAT + '[payload_columns.Described]\nname = "org.resource"\n', form)
    assert [e["payload"]["name"] for e in history(log)] == ["cup"] * 3


MISSPELT = [
    ('[payload_columns.Described]\ncount = "org.resurce"\n', r"payload_columns\.Described\.count.*org\.resource'\?"),
    ('[payload_columns.Described]\ncount = "nmae"\n', r"'nmae'.*did you mean 'name'\?"),
    ('[payload_columns.Described]\ncuont = "name"\n', r"no field 'cuont' \(did you mean 'count'\?\)"),
    ('[payload_columns.Descirbed]\ncount = "name"\n', r"no event type 'Descirbed' \(did you mean 'Described'\?\)"),
    ('[types]\nx = "Snet"\n', r"no event type 'Snet' \(did you mean 'Sent'\?\)"),
]


@pytest.mark.parametrize(("more", "why"), MISSPELT)
@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_a_misspelt_name_is_an_error(tmp_path: Path, log: EventLog, more: str, why: str, form: str) -> None:
    """Of an optional field too, with names like it; and nothing is imported."""
    with pytest.raises(UsageError, match=why):
        imported(log, tmp_path, TABLE, FLAT + more, form)
    assert not history(log)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_a_misspelt_column_of_the_envelope_is_an_error(tmp_path: Path, log: EventLog, form: str) -> None:
    """Also of an optional one; with optional = true a file may lack it."""
    with pytest.raises(UsageError, match="'evnet'"):
        imported(log, tmp_path, TABLE, FLAT + 'event_id = "evnet"\n', form)
    with pytest.raises(UsageError, match=r"'tmie'.*did you mean 'time'"):
        imported(log, tmp_path, TABLE, FLAT.replace('"time"', '"tmie"'), form)
    optional = 'event_id = { column = "evnet", optional = true }\n[payload_columns.Described]\n'
    optional += 'count = { column = "none", optional = true }\n'
    assert imported(log, tmp_path, TABLE, FLAT + optional, form).events == 3


def test_a_path_that_some_row_has_may_be_missing_in_others(tmp_path: Path, log: EventLog) -> None:
    """In any chunk of any file."""
    rows = [{k: v for k, v in r.items() if k != "org" or r["id"] == 2} for r in TABLE]
    mapping = FLAT + '[payload_columns.Described]\ncount = "org.size"\n'
    rows[2] = {**rows[2], "org": {"size": 3}}
    assert imported(log, tmp_path, rows, mapping, "jsonl").events == 3


DEBEZIUM = """
payload = ["after", "before"]
[envelope]
stream_id = ["parcel-{after.parcel}", "parcel-{before.parcel}"]
event_type = "op"
occurred_at = { column = "ts_ms", unit = "ms" }
[types]
c = { event_type = "Sent", schema_version = 1 }
d = { event_type = "Sent", schema_version = 1 }
"""


def test_debezium(tmp_path: Path, log: EventLog) -> None:
    """Deletes have only before; a tombstone after them is left out and counted."""
    changed = {"parcel": "a", "weight": 1}
    rows = [
        {"before": None, "after": changed, "op": "c", "ts_ms": 1},
        {"before": changed, "after": None, "op": "d", "ts_ms": 2},
    ]
    (tmp_path / "m.toml").write_text(DEBEZIUM)
    (tmp_path / "h.jsonl").write_text(lines(*rows, "null", "null"))
    done = ingest(log, REF, [str(tmp_path / "h.jsonl")], mapping=read_mapping(tmp_path / "m.toml"))
    assert (done.events, done.rejected, done.tombstones) == (2, 0, 2)
    assert [(e["stream_id"], e["payload"]["weight"]) for e in history(log)] == [("parcel-a", 1)] * 2


def test_names_that_differ_in_case_only(tmp_path: Path, log: EventLog) -> None:
    """Each key is the one that is written, though the database folds case."""
    rows = [{"Id": "upper", "id": "lower", "time": TIME, "name": "x", "Name": "y"}]
    mapping = FLAT.replace("{id}", "{Id}-{id}") + '[payload_columns.Described]\nname = "Name"\n'
    imported(log, tmp_path, rows, mapping, "jsonl")
    (event,) = history(log)
    assert (event["stream_id"], event["payload"]["name"]) == ("upper-lower", "y")


def test_max_rejects(tmp_path: Path, log: EventLog) -> None:
    """Beyond the limit nothing is imported, with a summary by reason; a share is one of all rows."""
    bad = [row(payload={"name": "x", "count": "NA"}), row(payload={"name": "x", "count": "-"}), row(stream_id="")]
    path = tmp_path / "h.jsonl"
    path.write_text(lines(*[row(event_id=f"e{i}") for i in range(7)], *bad))
    for limit in ("0", "2", "29.9%"):
        with pytest.raises(RejectedRowsError, match=r"3 of 10 rows .*--max-rejects .* 2 rows: count: .*line 8.*'NA'"):
            ingest(log, REF, [str(path)], max_rejects=limit)
        assert not history(log)
    assert len((tmp_path / "h.jsonl.rejects.jsonl").read_text().splitlines()) == 3
    done = ingest(log, REF, [str(path)], max_rejects="30%")
    assert (done.events, done.rejected) == (7, 3)
    assert [(r.reason, r.rows, r.line) for r in done.reasons] == [
        ("count: expected int64", 2, 8),
        ("stream_id is missing (it comes from stream_id)", 1, 10),
    ]
    for wrong in ("few", "-1", "101%", ""):
        with pytest.raises(UsageError, match="--max-rejects is"):
            ingest(log, REF, [str(path)], max_rejects=wrong)
