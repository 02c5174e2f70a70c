"""Hostile values in files: an import keeps the value that an append keeps, and rejects what it refuses.

The same values are imported as JSON lines with the payload as an object, as JSON lines with the payload's fields in the
row, as CloudEvents, as CSV, and as Parquet with columns of text and of the fields' types; into streams that are new and
into streams that exist; all together and one by one.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refold.event_schemas import schema_of
from refold.pipelines.ingest.file_reader import ReadPlan, read_into
from refold.pipelines.ingest.ingest import ColumnMapping, ImportLimits, ingest
from refold.pipelines.ingest.mapping import CLOUDEVENTS, FLAT, OWN, ValueSource
from refold.pipelines.ingest.rejects import RejectFile
from refold.pipelines.ingest.sources import for_file, inspect
from refold.warehouse.engine.arrow_values import array_of
from refold.warehouse.event_log import Appender, NewEvent, StreamAppend, create_log
from refold.warehouse.event_log.bulk_import.spool import Spool, read_spool
from refold.warehouse.personal.personal_data import personal_data
from tests.values.hostile import NOT_WRITABLE, Hostile
from tests.values.logs import payloads, same
from tests.values.shapes import FIELDS, FULL, IMPORTED, Field, class_of

REF = "tests.values.shapes:IMPORTED"
TIME = "2026-01-05T09:00:00Z"


SPELLINGS = frozenset({"text", "yes", "spaces", "whole_float", "exponent", "no_zone", "no_time", "named_zone"})
"""What an import reads and an append refuses: other spellings of an exact value, which files have."""


def nested(stream: str, field: Field, text: str) -> str:
    """Return a row with the payload as an object."""
    head = json.dumps({"stream_id": stream, "event_type": field.event_type, "occurred_at": TIME})
    return f'{head[:-1]},"payload":{{"x":{text}}}}}'


def flat(stream: str, field: Field, text: str) -> str:
    """Return a row with the payload's field beside the envelope's."""
    head = json.dumps({"stream_id": stream, "event_type": field.event_type, "occurred_at": TIME})
    return f'{head[:-1]},"x":{text}}}'


def cloudevent(stream: str, field: Field, text: str) -> str:
    """Return a CloudEvent."""
    head = {"specversion": "1.0", "id": stream, "source": "/tests", "type": field.event_type, "subject": stream}
    return f'{json.dumps(head | {"time": TIME})[:-1]},"data":{{"x":{text}}}}}'


Row = Callable[[str, Field, str], str]
Values = dict[str, tuple[Field, Hostile]]
"""Stream to the value of its event."""

OWN_COLUMNS = {name: ValueSource(columns=(name,)) for name in ("stream_id", "event_type", "occurred_at")}
AS_COLUMNS = ColumnMapping(envelope=OWN_COLUMNS, payload=FLAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A way to write values into files.

    Attributes:
        write: writes them into a folder; returns the files.
        holds: whether it can hold a value of a field.
        mapping: of the files.
        format: of the files.
        spellings: the names of values that are refused elsewhere, and may be read from such files.
    """

    write: Callable[[Path, Values], list[Path]]
    holds: Callable[[Field, Hostile], bool]
    mapping: ColumnMapping | None = None
    format: str | None = None
    spellings: frozenset[str] = SPELLINGS


def in_json(field: Field, value: Hostile) -> bool:
    """Check whether JSON has a value."""
    return bool(value.json) and not (value.bulky and field.shape.name != "plain")


def in_a_cell(field: Field, value: Hostile) -> bool:
    """Check whether a cell of text has a value; an empty one stands for NULL in an optional field."""
    return in_json(field, value) and field.shape.name in ("plain", "optional") and cell(value) not in (None, "")


def cell(value: Hostile) -> str | None:
    """Return the text of a cell; None if UTF-8 has none."""
    text = str(json.loads(value.json)) if value.json.startswith('"') else value.json
    return None if any("\ud800" <= sign <= "\udfff" for sign in text) else text


def typed(field: Field, value: Hostile) -> pa.Array | None:
    """Return a value in a column of its field's Arrow type; None if such a column cannot hold it."""
    if value.python is NOT_WRITABLE or (value.is_refused and value.name not in ("nan", "infinity", "minus_infinity")):
        return None
    try:
        return array_of([field.shape.wrap(value.python)], schema_of(class_of(field, 1)).field("x").type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def as_rows(row: Row) -> Callable[[Path, Values], list[Path]]:
    """Return what writes values as JSON lines."""

    def write(folder: Path, values: Values) -> list[Path]:
        lines = [row(stream, field, field.shape.json.format(value.json)) for stream, (field, value) in values.items()]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
        return [folder / "rows.jsonl"]

    return write


def as_csv(folder: Path, values: Values) -> list[Path]:
    """Write a cell for each value."""
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow([*OWN_COLUMNS, "x"])
        writer.writerows((stream, field.event_type, TIME, cell(value)) for stream, (field, value) in values.items())
    return [folder / "rows.csv"]


def as_text_column(folder: Path, values: Values) -> list[Path]:
    """Write the cells of a CSV file into a text column of a Parquet file."""
    rows = [(stream, field.event_type, TIME, cell(value)) for stream, (field, value) in values.items()]
    columns = dict(zip((*OWN_COLUMNS, "x"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return [folder / "rows.parquet"]


def as_typed_columns(folder: Path, values: Values) -> list[Path]:
    """Write a file for each field, with a column of its type inside a column of structs."""
    files = []
    for event_type, group in itertools.groupby(values.items(), lambda item: item[1][0].event_type):
        streams, arrays = [], []
        for stream, (field, value) in group:
            streams.append(stream)
            arrays.append(typed(field, value))
        payload = pa.StructArray.from_arrays([pa.concat_arrays(arrays)], names=["x"])
        times = pa.array([datetime.fromisoformat(TIME)] * len(streams), pa.timestamp("us", tz="UTC"))
        columns = {"stream_id": streams, "event_type": [event_type] * len(streams), "occurred_at": times}
        files.append(folder / f"{event_type}.parquet")
        pq.write_table(pa.table({**columns, "payload": payload}), files[-1])
    return files


IN_CELLS = SPELLINGS | {"one", "number", "true", "object"}
"""A cell is text, which has no other type: ``1`` is also a text, and a true boolean."""

FORMS = {
    "nested": Form(write=as_rows(nested), holds=in_json),
    "flat": Form(write=as_rows(flat), holds=in_json, mapping=AS_COLUMNS),
    "cloudevents": Form(write=as_rows(cloudevent), holds=in_json, format="cloudevents"),
    "csv": Form(write=as_csv, holds=in_a_cell, mapping=AS_COLUMNS, spellings=IN_CELLS),
    "parquet_text": Form(write=as_text_column, holds=in_a_cell, mapping=AS_COLUMNS, spellings=IN_CELLS),
    "parquet": Form(write=as_typed_columns, holds=lambda field, value: typed(field, value) is not None),
}


def written(form: Form) -> Values:
    """Return all values that a form can hold."""
    return {
        f"{field.event_type}-{number}-{value.name}": (field, value)
        for field in FIELDS
        for number, value in enumerate((field.type.plain, *field.type.values))
        if form.holds(field, value)
    }


@pytest.mark.parametrize(
    "existing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["new_streams", "existing_streams"]
)
@pytest.mark.parametrize(
    "name", [name if name in ("parquet", "flat") else pytest.param(name, marks=pytest.mark.slow) for name in FORMS]
)
def test_an_import_keeps_what_an_append_keeps(name: str, existing: bool, tmp_path: Path) -> None:
    """No value is changed, and none is lost: what is no event is among the rejects."""
    form = FORMS[name]
    values = written(form)
    log = create_log(str(tmp_path / "log"), domain_name="values", bucket_count=2)
    if existing:
        plain = FIELDS[0]
        event = NewEvent(payload={"x": 7}, event_type=plain.event_type, schema_version=1)
        Appender(log, IMPORTED.registry).append_many([StreamAppend(stream, [event]) for stream in values])
    files = [str(file) for file in form.write(tmp_path, values)]
    done = ingest(log, REF, files, mapping=form.mapping, format=form.format, rejects=tmp_path / "rejects.jsonl")
    found = payloads(log, IMPORTED)
    expected = {stream: field.shape.wrap(v.stored) for stream, (field, v) in values.items() if not v.is_refused}
    kept = {s for s in values if not existing or found[s] != {"x": 7}} & found.keys()
    wrong = {s: found[s]["x"] for s in kept & expected.keys() if not same(found[s]["x"], expected[s])}
    assert not wrong
    plain_sevens = {s for s, x in expected.items() if x == 7}  # as the event before them
    spelled = kept - expected.keys()
    assert {values[stream][1].name for stream in spelled} <= form.spellings
    alike = [(s, (values[s][0].type.name, values[s][1].name)) for s in values]
    read = {what for stream, what in alike if stream in spelled}
    assert spelled == {stream for stream, what in alike if what in read}  # at any depth
    assert expected.keys() - kept <= plain_sevens
    assert (done.events, done.rejected) == (len(expected) + len(spelled), len(values) - len(expected) - len(spelled))


ONE_BY_ONE = [
    (name, stream)
    for name, form in FORMS.items()
    for i, stream in enumerate(written(form))
    if (FULL or i % 397 == 0) and "-long" not in stream
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stream"), ONE_BY_ONE)
def test_a_row_alone_is_read_as_among_others(name: str, stream: str, tmp_path: Path) -> None:
    """A file of one row has the value, or the reject, that the row has beside all other values of its field."""
    form = FORMS[name]
    values = written(form)
    field, value = values[stream]
    same_field = {s for s, (f, _) in values.items() if f is field and "-long" not in s}
    alone = read_values(tmp_path / "alone", form, {stream: values[stream]})
    among = read_values(tmp_path / "among", form, {s: v for s, v in values.items() if s in same_field})
    assert alone.keys() == among.keys() & {stream}
    assert all(same(x, among[s]) for s, x in alone.items())
    assert value.is_refused or same(alone[stream], field.shape.wrap(value.stored))


def read_values(folder: Path, form: Form, values: Values) -> dict[str, Any]:
    """Read files into a spool, which is what an import does before it knows the log; return the values by stream."""
    folder.mkdir()
    mapping = form.mapping or (CLOUDEVENTS if form.format else OWN)
    files = [inspect(str(file), format=form.format, report=lambda *_: None) for file in form.write(folder, values)]
    spool = Spool(folder / "spool", bucket_count=2)
    plan = ReadPlan(
        sources=[for_file(file, mapping) for file in files],
        registry=IMPORTED.registry,
        bucket_count=2,
        workers=1,
        limits=ImportLimits(),
        strict=False,
        personal=personal_data("memory://keys", "of no log"),
    )
    read_into(spool, RejectFile(folder / "rejects", size=0, count=0), plan, lambda *_: None)
    chunks = read_spool(folder / "spool").read_chunk(0).values() if spool.journal.chunks else ()
    return {row["stream_id"]: row["x"] for table in chunks for row in table.to_pylist()}
