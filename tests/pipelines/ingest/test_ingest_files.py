"""Files as they are found: dialects of CSV, shapes of JSON, archives, and the formats of other systems."""

from __future__ import annotations

import dataclasses
import gzip
import json
import sys
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, orc

from refold.event_schemas import UsageError
from refold.pipelines.ingest.ingest import ColumnMapping, ImportLimits
from refold.pipelines.ingest.mapping import FLAT, OWN, ValueSource
from tests.pipelines.ingest.imports import TIME, lines, payloads, read, row

HEADER = "stream_id,event_type,occurred_at,name,price"
GOOD = f"p,Described,{TIME},cup,1.50"


def mapping(**settings: Any) -> ColumnMapping:
    """Return the default mapping with other settings."""
    return dataclasses.replace(OWN, **settings)


def names(folder: Path, data: bytes | str, file: str = "h.csv", **settings: Any) -> list[Any]:
    """Return the names that a file gives."""
    path = folder / file
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    found = read(folder, path, mapping=mapping(**settings))
    assert not found.rejects
    return [p["name"] for p in payloads(found)]


DIALECTS: list[tuple[str, bytes, dict[str, Any]]] = [
    ("tab", f"{HEADER}\n{GOOD}\n".replace(",", "\t").encode(), {"delimiter": "\t"}),
    ("latin-1", f"{HEADER}\n{GOOD}\n".replace("cup", "käse").encode("latin-1"), {"encoding": "latin-1"}),
    ("utf-16", f"{HEADER}\n{GOOD}\n".replace("cup", "käse").encode("utf-16"), {}),
    ("cr", f"{HEADER}\r{GOOD}\r".encode(), {}),
    ("spaces", f"{HEADER}\n{GOOD}\n".replace(",", ", ", 4).encode(), {}),
    ("quote", f"{HEADER}\n{GOOD}\n".replace("cup", "'a,b'").encode(), {"quote": "'"}),
    ("no quote", f"{HEADER}\n{GOOD}\n".replace("cup", '5"').encode(), {"quote": ""}),
    ("escape", f"{HEADER}\n{GOOD}\n".replace("cup", '"a\\"b"').encode(), {"escape": "\\"}),
    ("comment", f"# made by\n{HEADER}\n# more\n{GOOD}\n".encode(), {"comment": "#"}),
    ("skip", f"Report\n\n{HEADER}\n{GOOD}\n".encode(), {"skip_rows": 2}),
    ("no header", f"{GOOD}\n".encode(), {"has_header": False, "column_names": tuple(HEADER.split(","))}),
    ("renamed", f"a,b,c,d,e\n{GOOD}\n".encode(), {"column_names": tuple(HEADER.split(","))}),
]
EXPECTED = {"latin-1": "käse", "utf-16": "käse", "quote": "a,b", "no quote": '5"', "escape": 'a"b'}


@pytest.mark.parametrize(("dialect", "data", "settings"), DIALECTS, ids=[d for d, _, _ in DIALECTS])
def test_dialects_of_csv(tmp_path: Path, dialect: str, data: bytes, settings: dict[str, Any]) -> None:
    """Each setting of the mapping reads its file."""
    assert names(tmp_path, data, **settings) == [EXPECTED.get(dialect, "cup")]


@pytest.mark.parametrize("settings", [{"encoding": "utf-16"}, {"comment": "#", "skip_rows": 1}, {}])
def test_dialects_in_chunks(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A file is read once and in order, and lines are counted as in the file, wherever it is cut."""
    text = "title\n# c\n" * bool(settings.get("comment")) + HEADER + "\n"
    for i in range(30):
        text += f"# {i}\n" * ("comment" in settings) + GOOD.replace("cup", f'"ä\n{i}"') + "\n"
    path = tmp_path / "h.csv"
    path.write_text(text, encoding=settings.get("encoding", "utf-8"))
    found = read(tmp_path, path, mapping=mapping(**settings), limits=ImportLimits(chunk_rows=7))
    assert [p["name"] for p in payloads(found)] == [f"ä\n{i}" for i in range(30)]


def test_a_header_of_another_width_is_refused(tmp_path: Path) -> None:
    """Columns that the mapping names replace those of the header, one for one."""
    with pytest.raises(UsageError, match="its header has 5 columns, but columns in the mapping names 2"):
        names(tmp_path, f"{HEADER}\n{GOOD}\n", column_names=("a", "b"))


def test_shapes_of_json(tmp_path: Path) -> None:
    """One document over several lines, several of them, an array inside an object, and inside an object of it."""
    rows = [row(payload={"name": f"n{i}"}) for i in range(3)]
    expected = ["n0", "n1", "n2"]
    shapes: list[tuple[str, str, dict[str, Any]]] = [
        ("pretty.json", "\n".join(json.dumps(r, indent=2) for r in rows), {}),
        ("object.json", json.dumps({"type": "X", "skip": [{"records": [1]}], "records": rows}), {"rows": "records"}),
        ("deep.json", json.dumps({"a": {"b": 1, "c": rows}, "z": 1}, indent=1), {"rows": "a.c"}),
        ("lines.json", lines(*rows), {}),
    ]
    for name, text, settings in shapes:
        for size in (60, 1 << 20):
            folder = tmp_path / f"{name}-{size}"
            folder.mkdir()
            path = folder / name
            path.write_text(text)
            file_format = "json" if settings else None
            found = read(
                folder, path, mapping=mapping(**settings), format=file_format, limits=ImportLimits(chunk_bytes=size)
            )
            assert [p["name"] for p in payloads(found)] == expected, name
    path = tmp_path / "other.json"
    path.write_text(shapes[1][1])
    with pytest.raises(UsageError, match=r"no key 'recs', which rows .* names, among 'type', 'skip', 'records'"):
        read(tmp_path, path, mapping=mapping(rows="recs"), format="json")


def test_zip_archives(tmp_path: Path) -> None:
    """One file in an archive is read, and its name gives the format; several are refused by name."""
    path = tmp_path / "h.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/h.csv", f"{HEADER}\n{GOOD}\n")
    assert [p["name"] for p in payloads(read(tmp_path, path))] == ["cup"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.csv", "x")
    with pytest.raises(UsageError, match="has 2 files in it"):
        read(tmp_path, path)


COLUMNS = {
    "stream_id": ["p"] * 40,
    "event_type": ["Described"] * 40,
    "occurred_at": [datetime(2024, 5, 1, 12, tzinfo=UTC)] * 40,
    "name": [f"n{i}" for i in range(40)],
    "price": pa.array([Decimal("1.50")] * 40, pa.decimal128(9, 2)),
}


def write_table(path: Path) -> Path:
    """Write a table in the format of the suffix."""
    table = pa.table(COLUMNS)
    if path.suffix == ".orc":
        orc.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, path, compression="zstd", chunksize=9)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=9)
    return path


@pytest.mark.parametrize("name", ["t.orc", "t.feather", "t.arrow"])
@pytest.mark.parametrize("rows", [7, 100])
def test_tables_of_other_systems(tmp_path: Path, name: str, rows: int) -> None:
    """ORC, Feather, and Arrow streams, in chunks."""
    found = read(tmp_path, write_table(tmp_path / name), limits=ImportLimits(chunk_rows=rows))
    assert [(p["name"], p["price"]) for p in payloads(found)] == [(f"n{i}", Decimal("1.50")) for i in range(40)]
    damaged = tmp_path / f"damaged-{name}"
    damaged.write_bytes(b"nothing")
    with pytest.raises(UsageError, match=rf"damaged-{name} is no readable"):
        read(tmp_path, damaged)


def test_avro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logical types arrive as what they mean; without the reader the message has the command that installs it."""
    fastavro = pytest.importorskip("fastavro")
    time = {"type": "long", "logicalType": "timestamp-micros"}
    price = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    fields = [("stream_id", "string"), ("event_type", "string"), ("occurred_at", time)]
    inner = {
        "type": "record",
        "name": "Payload",
        "fields": [{"name": "name", "type": "string"}, {"name": "price", "type": price}],
    }
    schema = {
        "type": "record",
        "name": "Event",
        "fields": [*({"name": n, "type": t} for n, t in fields), {"name": "payload", "type": inner}],
    }
    records = [
        {
            "stream_id": "p",
            "event_type": "Described",
            "occurred_at": COLUMNS["occurred_at"][0],
            "payload": {"name": f"n{i}", "price": Decimal("1.50")},
        }
        for i in range(20)
    ]
    path = tmp_path / "h.avro"
    with path.open("wb") as file:
        fastavro.writer(file, schema, records)
    found = read(tmp_path, path, limits=ImportLimits(chunk_rows=7))
    assert payloads(found) == [{"name": f"n{i}", "price": Decimal("1.50")} for i in range(20)]
    monkeypatch.setitem(sys.modules, "fastavro", None)
    with pytest.raises(UsageError, match=r"pip install 'refold\[avro\]'"):
        read(tmp_path, path)


XES = """<?xml version="1.0" encoding="UTF-8"?>
<log xes.version="1.0" xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="x"/>
  <global scope="event"><string key="concept:name" value="none"/></global>
  <trace>
    <string key="concept:name" value="case-1"/>
    <event>
      <string key="concept:name" value="Described"/>
      <date key="time:timestamp" value="2024-05-01T14:00:00.000+02:00"/>
      <int key="count" value="3"/>
      <float key="price" value="1.50"/>
      <boolean key="gift" value="true"/>
      <string key="name" value="a &amp; b"><string key="meta" value="of the value"/></string>
    </event>
    <event>
      <date key="time:timestamp" value="2024-05-01T14:00:00.000+02:00"/>
      <string key="concept:name" value="Described"/>
      <string key="name" value="second"/>
    </event>
  </trace>
</log>
"""
XES_MAPPING = ColumnMapping(
    envelope={
        "stream_id": ValueSource(columns=("case:concept:name",)),
        "event_type": ValueSource(columns=("concept:name",)),
        "occurred_at": ValueSource(columns=("time:timestamp",)),
    },
    payload=FLAT,
)


@pytest.mark.parametrize("suffix", [".xes", ".xes.gz"])
def test_xes(tmp_path: Path, suffix: str) -> None:
    """The events of each trace, with the attributes of the trace; lines are those of the file."""
    path = tmp_path / f"h{suffix}"
    text = XES.replace('value="second"', 'value="second"/><int key="count" value="x"')
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    found = read(tmp_path, path, mapping=XES_MAPPING)
    assert [e["stream_id"] for e in found.events] == ["case-1"]
    assert payloads(found) == [{"name": "a & b", "count": 3, "price": Decimal("1.50"), "gift": True}]
    assert found.reasons == {15: "count: expected int64, found 'x'"}


def test_xes_without_entities(tmp_path: Path) -> None:
    """A declared entity may stand for gigabytes: it is refused before it is expanded."""
    path = tmp_path / "h.xes"
    path.write_text(
        XES.replace("<log", '<!DOCTYPE log [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n<log', 1).replace("none", "&b;")
    )
    with pytest.raises(UsageError, match="declares the entity 'a'"):
        read(tmp_path, path, mapping=XES_MAPPING)
    path.write_text("<log><trace>")
    with pytest.raises(UsageError, match="no readable XML"):
        read(tmp_path, path, mapping=XES_MAPPING)
